"""Predictions to which random things happen: never a hang, never a truncated file, and a second run completes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.prediction_server import PredictionServer
from helpers.random_faults import Bench, as_line

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
RUNS, PART = 300, 30


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with PredictionServer() as server:
        yield Bench(tmp_path_factory.mktemp("random_faults"), server)


def _runs(bench: Bench, seeds: range) -> None:
    """All of them, although some fail; NNUNET_LITE_FAULT_LOG names a file that gets a line of each."""
    failures = []
    for seed in seeds:
        try:
            report = bench.run(seed)
        except (AssertionError, TimeoutError) as error:
            failures.append(f"{error}")
            continue
        if log := os.environ.get("NNUNET_LITE_FAULT_LOG"):
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(as_line(report) + "\n")
    assert not failures, f"{len(failures)} of {len(seeds)} runs:\n\n" + "\n\n".join(failures)


def test_a_few_random_faults(bench: Bench) -> None:
    _runs(bench, range(6))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, RUNS, PART))
def test_three_hundred_random_faults(bench: Bench, first: int) -> None:
    _runs(bench, range(1000 + first, 1000 + first + PART))
