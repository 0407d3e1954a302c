"""Failed cases: a line each, and nothing of them stays in memory."""

from __future__ import annotations

import pytest
import torch

from nnunet_lite.exceptions import DatasetError, NumericalError, StorageError, WorkerError
from nnunet_lite.inference.failed_cases import explained, failure_of, note_of, stopped_early, warn_of
from nnunet_lite.utilities.parallel import Outcome


def caught(error: Exception) -> Exception:
    try:
        large = torch.zeros(10)
        raise error from ValueError(str(large))
    except Exception as raised:
        return raised


def test_an_error_lets_go_of_what_it_holds() -> None:
    error = explained(caught(DatasetError("a: unreadable")))
    assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)
    assert str(error) == "a: unreadable"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_memory_that_ran_out_gets_advice(error: Exception) -> None:
    assert "memory ran out" in str(explained(caught(error))) and "-npp" in str(explained(error))


def test_other_errors_are_not_taken_for_it() -> None:
    for error in (ValueError("shape"), WorkerError("If memory ran out, use fewer processes; out of memory")):
        assert explained(error) is error


def test_the_list() -> None:
    failures = [
        Outcome("b", None, NumericalError("b: the network put out NaN")),
        Outcome("a", None, KeyError("x")),
    ]
    error = failure_of(failures, 5, True)
    assert isinstance(error, NumericalError)
    assert str(error).splitlines() == [
        "2 of 5 cases failed:",
        "  b: the network put out NaN",
        "  a: KeyError: 'x'",
        "The others are predicted; --continue_prediction (overwrite=False) predicts only what is missing.",
    ]
    assert "continue" not in str(failure_of(failures, 5, False)) and "continue" not in str(
        failure_of(failures, 2, True)
    )


def test_one_failure_of_many_is_one_line() -> None:
    error = failure_of([Outcome("a", None, DatasetError("a: unreadable"))], 3, True)
    assert str(error).startswith("1 of 3 cases failed: a: unreadable. The others are predicted; --continue_prediction")
    assert "\n" not in str(error) and error.failed_cases == ("a",)


def test_a_single_case_is_its_own_error() -> None:
    error = DatasetError("a: unreadable")
    assert failure_of([Outcome("a", None, error)], 1, True) is error


def test_failures_are_said_in_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    failures = [Outcome("b", None, DatasetError("b: no\nimage")), Outcome("a", None, KeyError("x"))]
    warn_of(failures)
    assert caplog.messages == ["b failed: no image", "a failed: KeyError: 'x'"]
    assert note_of(failures) == "Stopped; 2 cases had failed: b (no image); a (KeyError: 'x')"
    assert note_of(failures[:1]) == "Stopped; 1 case had failed: b (no image)"


def test_a_full_disk() -> None:
    error = stopped_early(StorageError("No space left"), 3, 10)
    assert str(error).startswith("No space left (3 of 10 cases are predicted; --continue_prediction")
