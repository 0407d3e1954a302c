"""Who may start when memory is shared."""

from __future__ import annotations

import threading

import pytest

from nnunet_lite.utilities.memory import available_memory
from nnunet_lite.utilities.memory_budget import MemoryBudget


def test_work_is_admitted_as_long_as_it_fits() -> None:
    budget = MemoryBudget(100)
    assert budget.admit(60) and budget.admit(40) and not budget.admit(1)
    budget.release(60)
    assert budget.taken == 40 and budget.admit(50)


def test_what_is_too_large_runs_alone() -> None:
    budget = MemoryBudget(100)
    assert budget.admit(10) and not budget.admit(1000)
    budget.release(10)
    assert budget.admit(1000) and not budget.admit(1)


def test_waiting_arrays_count_but_never_stop_everything() -> None:
    budget = MemoryBudget(100)
    budget.keep(90)
    assert budget.admit(50), "nothing else works: what the array waits for must run"
    assert not budget.admit(1)
    budget.keep(-90)
    assert budget.admit(50) and budget.taken == 100


def test_a_second_try_runs_alone() -> None:
    budget = MemoryBudget(100)
    assert budget.admit(1) and not budget.admit(1, alone=True)
    budget.release(1)
    assert budget.admit(1, alone=True) and not budget.admit(1)
    budget.release(1)
    assert budget.admit(1)


def test_this_process_comes_before_workers() -> None:
    budget = MemoryBudget(100)
    assert budget.admit(80)
    inside = threading.Event()

    def network() -> None:
        with budget.hold(50):
            inside.set()

    thread = threading.Thread(target=network)
    thread.start()
    while not budget._first:
        pass
    assert not inside.is_set() and not budget.admit(1), "the room that becomes free is for the one that waits"
    budget.release(80)
    assert inside.wait(10)
    thread.join()
    assert budget.taken == 0 and budget.admit(100)


def test_memory_is_given_back_after_an_error() -> None:
    budget = MemoryBudget(100)
    with pytest.raises(KeyError), budget.hold(30):
        raise KeyError
    assert budget.taken == 0


def test_the_default_is_most_of_what_is_free() -> None:
    assert 0 < MemoryBudget().limit < available_memory() * 1.5
