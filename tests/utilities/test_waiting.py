"""Waiting for futures: results in the order they come, and a signal is heard in between."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from nnunet_lite.utilities import waiting
from nnunet_lite.utilities.waiting import as_they_end, error_of, wait_for_any


def test_errors_and_results() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert error_of(pool.submit(int, "3")) is None
        assert isinstance(error_of(pool.submit(int, "three")), ValueError)


def test_as_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_NAP", 0.01)
    futures: list[Future[int]] = [Future() for _ in range(3)]
    ended = as_they_end(futures)
    for number in (2, 0, 1):
        threading.Timer(0.05, futures[number].set_result, [number]).start()
        assert next(ended).result() == number
    assert list(ended) == [] and list(as_they_end([])) == []
    wait_for_any([])


def test_the_main_thread_wakes_up_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that was set off in another thread runs while nothing ends."""
    monkeypatch.setattr(waiting, "_NAP", 0.05)
    future: Future[int] = Future()
    before = signal.signal(signal.SIGINT, lambda *_: future.set_result(1))
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # so that the other thread has to take it

        def take() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

        thread = threading.Thread(target=take)
        thread.start()
        assert error_of(future) is None
        thread.join()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, before)
