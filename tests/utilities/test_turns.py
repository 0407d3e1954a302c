"""One thread at a time; copies and forked processes have a lock of their own."""

from __future__ import annotations

import copy
import os
import pickle
import threading

import pytest

from nnunet_lite.utilities.turns import Turns


def free_for_another_thread(turns: Turns, seconds: float) -> bool:
    entered = threading.Event()

    def enter() -> None:
        with turns:
            entered.set()

    threading.Thread(target=enter, daemon=True).start()
    return entered.wait(seconds)


def test_one_thread_at_a_time_and_that_one_as_often_as_it_likes() -> None:
    turns = Turns()
    with turns:
        with turns:
            assert not free_for_another_thread(turns, 0.1)
        assert not free_for_another_thread(turns, 0.1)
    assert free_for_another_thread(turns, 10)


def test_copies_are_free() -> None:
    turns = Turns()
    with turns:
        for other in (copy.deepcopy(turns), pickle.loads(pickle.dumps(turns))):
            assert free_for_another_thread(other, 10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_does_not_wait_for_a_thread_it_does_not_have() -> None:
    turns, inside, leave = Turns(), threading.Event(), threading.Event()

    def stay() -> None:
        with turns:
            inside.set()
            leave.wait(30)

    threading.Thread(target=stay, daemon=True).start()
    assert inside.wait(10)
    child = os.fork()
    if not child:
        with turns:
            os._exit(7)
    leave.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
