"""A word about waiting: when, how often, and never an error of its own."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import pytest

from nnunet_lite.training import data_watch
from nnunet_lite.training.data_watch import DataWatch, describe_wait


class Clock:
    """Time that passes only while the watch sleeps; after 3000 s of it the wait is over."""

    def __init__(self) -> None:
        self.now = 0.0
        self.over = threading.Event()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= 3000:
            self.over.set()
            time.sleep(0.001)


def test_words_come_within_a_minute_and_grow_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(data_watch, "time", clock)
    said: list[tuple[float, str]] = []
    with DataWatch().waiting(lambda: "batch 7", lambda text: said.append((clock.now, text))):
        assert clock.over.wait(30)
    times = [when for when, _ in said]
    assert 30 <= times[0] <= 60
    assert said[0][1].startswith("Waiting for data for 3") and said[0][1].endswith(" s: batch 7")
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert gaps == sorted(gaps) and max(gaps) <= 603 and 6 <= len(times) <= 10


def test_short_waits_are_only_added_up() -> None:
    said: list[str] = []
    watch = DataWatch(first_word=60)
    for _ in range(3):
        with watch.waiting(lambda: "", said.append):
            time.sleep(0.01)
    assert watch.seconds >= 0.03 and not said


def test_an_error_while_asking_does_not_matter() -> None:
    said: list[str] = []
    spoken = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        spoken.set()

    with DataWatch(first_word=0.01).waiting(lambda: str(1 // 0), say):
        assert spoken.wait(30)
    assert "ZeroDivisionError when asking what for" in said[0]


def test_its_thread_ends_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_watch, "_IDLE", 0.02)
    watch = DataWatch(first_word=0.01)
    for _ in range(2):
        said: queue.SimpleQueue[str] = queue.SimpleQueue()
        with watch.waiting(lambda: "", said.put):
            assert said.get(timeout=30)
        thread = watch._thread
        if thread is not None:
            thread.join(30)
        assert watch._thread is None


def test_loaders_of_all_kinds() -> None:
    class Own:
        stops_waiting = True

        def describe_wait(self) -> str:
            return "batch 3"

    def batches() -> Any:
        yield

    assert describe_wait(Own()).startswith("batch 3. The training goes on")
    assert "saves and ends, --c" in describe_wait(Own())
    assert "the next batch of generator" in describe_wait(batches()) and "twice ends at once" in describe_wait(
        batches()
    )
