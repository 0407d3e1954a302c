"""Environment switches that are numbers of cores and processes."""

from __future__ import annotations

import os

import pytest

from nnunet_lite.configuration import cpu_count, num_compute_threads, usable_processes
from nnunet_lite.exceptions import ArgumentError


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS", "nnUNet_def_n_proc"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("nnunet_lite.configuration.cpu_quota", lambda: None)


@pytest.mark.parametrize(("slurm", "expected"), [("4", 4), ("32", 8), ("", 8), ("4(x2)", 8)])
def test_cores(monkeypatch: pytest.MonkeyPatch, slurm: str, expected: int) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", slurm)
    assert cpu_count() == expected


@pytest.mark.parametrize(("omp", "expected"), [("1", 1), ("4,2", 4), ("64", 8), ("0", 8), ("many", 8)])
def test_threads_of_a_computation(monkeypatch: pytest.MonkeyPatch, omp: str, expected: int) -> None:
    assert num_compute_threads() == 8
    monkeypatch.setenv("OMP_NUM_THREADS", omp)
    assert num_compute_threads() == expected


def test_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [usable_processes(wanted) for wanted in (None, 0, 3, 99)] == [8, 0, 3, 8]
    monkeypatch.setenv("nnUNet_def_n_proc", "5")
    assert usable_processes(None) == 5
    with pytest.raises(ArgumentError, match="-1"):
        usable_processes(-1)
