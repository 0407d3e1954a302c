"""Conversations with processes: answers in order, nothing waits for one that does not listen."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import struct
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest

from nnunet_lite.utilities import courier
from nnunet_lite.utilities.courier import Answer, Courier

LARGE = np.arange(2**20, dtype=np.int32)  # 4 MiB; a pipe holds a few hundred KiB


class _Foreign(Exception):
    def __init__(self, first: int, second: int) -> None:  # cannot be unpickled: it gets one argument there
        super().__init__("foreign")


class _Peer:
    """The other end, and how often the courier has called."""

    def __init__(self) -> None:
        mine, self.end = multiprocessing.Pipe()
        self.called = threading.Semaphore(0)
        self.courier = Courier(mine, self.called.release)

    def answer(self) -> Answer | None:
        assert self.called.acquire(timeout=20)
        return self.courier.take()


def test_questions_and_answers() -> None:
    peer = _Peer()
    for number in range(3):
        peer.courier.ask(("question", number))
        assert peer.end.recv() == ("question", number)
        peer.end.send(number)
        assert peer.answer() == Answer(number)
    assert peer.courier.take() is None
    peer.courier.close()
    assert peer.courier.over


def test_a_large_question_to_one_who_does_not_listen_holds_up_nobody() -> None:
    peer = _Peer()
    peer.courier.ask(LARGE)
    assert peer.courier.take() is None and not peer.courier.over
    assert np.array_equal(peer.end.recv(), LARGE)
    peer.end.close()
    assert peer.answer() is None and peer.courier.over
    peer.courier.close()


@pytest.mark.skipif(os.name != "posix", reason="half a message is written by hand")
def test_half_an_answer_holds_up_nobody() -> None:
    peer = _Peer()
    peer.courier.ask("question")
    peer.end.recv()
    message = pickle.dumps("a whole answer")
    os.write(peer.end.fileno(), struct.pack("!i", len(message)) + message[:5])
    assert peer.courier.take() is None and not peer.called.acquire(timeout=0.1)
    os.write(peer.end.fileno(), message[5:])
    assert peer.answer() == Answer("a whole answer")
    peer.end.close()
    peer.courier.close()


def test_the_last_answer_of_one_who_has_ended_is_there() -> None:
    peer = _Peer()
    peer.courier.ask("question")
    peer.end.recv()
    peer.end.send("last words")
    peer.end.close()
    peer.courier.close()
    assert peer.courier.take() == Answer("last words")
    assert peer.courier.over


def test_closing_waits_no_longer_than_a_moment_for_one_who_never_answers() -> None:
    peer = _Peer()
    peer.courier.ask(LARGE)
    start = time.monotonic()
    peer.courier.close()
    assert time.monotonic() - start < 10
    peer.end.close()


def test_what_cannot_be_pickled_is_an_error_at_once() -> None:
    peer = _Peer()
    with pytest.raises((TypeError, AttributeError)):
        peer.courier.ask(lambda: None)
    peer.courier.ask("still works")
    assert peer.end.recv() == "still works"
    peer.end.close()
    peer.courier.close()


def test_what_cannot_be_unpickled_is_the_answers_error() -> None:
    peer = _Peer()
    peer.courier.ask("question")
    peer.end.recv()
    unreadable: Any = _Foreign(1, 2)
    peer.end.send(unreadable)
    answer = peer.answer()
    assert answer is not None and isinstance(answer.error, TypeError)
    peer.courier.close()


class _Slow:
    """Takes longer to read than `close` waits."""

    def __reduce__(self) -> Any:
        return _wait_and_say, (0.3, "slow")


def _wait_and_say(seconds: float, text: str) -> str:
    time.sleep(seconds)
    return text


def test_an_answer_that_takes_long_to_read_outlives_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "_LAST_WORDS", 0.1)
    peer = _Peer()
    peer.courier.ask("question")
    peer.end.recv()
    peer.end.send(_Slow())
    assert peer.called.acquire(timeout=20)
    peer.end.close()
    peer.courier.close()
    assert peer.courier.take() == Answer("slow")


def test_memory_that_does_not_suffice_for_an_answer_is_its_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(self: Connection) -> bytes:
        raise MemoryError

    peer = _Peer()
    monkeypatch.setattr(Connection, "recv_bytes", fail)
    peer.courier.ask("question")
    answer = peer.answer()
    assert answer is not None and isinstance(answer.error, MemoryError) and peer.courier.over
    peer.courier.close()
    assert "Traceback" not in capfd.readouterr().err
