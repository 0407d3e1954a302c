"""Cases stay open within limits, and are read as if they were opened each time."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2, nnUNetDatasetNumpy
from nnunet_lite.training.open_cases import OpenCases, files_at_most


def make_cases(folder: Path, kind: Any, number: int = 4) -> Any:
    rng = np.random.default_rng(0)
    for index in range(number):
        data = rng.standard_normal((1, 8, 9, 10), dtype=np.float32)
        kind.save_case(data, np.full((1, 8, 9, 10), index, np.int16), {"class_locations": {}}, folder / f"case{index}")
    return kind(folder)


class Counting:
    """Counts how often a case is opened."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.opened: list[str] = []

    def __call__(self, case: str) -> Any:
        self.opened.append(case)
        return self.dataset.load_arrays(case)


@pytest.mark.parametrize("limits", [{"files": 5}, {"memory": 2 * 2 * 80_000}])
def test_the_cases_used_last_stay_open(tmp_path: Path, limits: dict[str, int]) -> None:
    load = Counting(make_cases(tmp_path, nnUNetDatasetBlosc2))
    cases = OpenCases(**limits)
    for name in ("case0", "case1", "case0", "case2", "case0", "case1"):
        seg = cases.get(name, load)[1]
        assert int(seg[0, 1:2, 1, 1][0]) == int(name[-1])
    assert load.opened == ["case0", "case1", "case2", "case1"]


def test_nothing_stays_open_without_room(tmp_path: Path) -> None:
    load = Counting(make_cases(tmp_path, nnUNetDatasetBlosc2))
    for cases in (OpenCases(files=1), OpenCases(memory=10)):
        for _ in range(2):
            cases.get("case0", load)
    assert load.opened == ["case0"] * 4


def test_arrays_in_memory_are_not_kept(tmp_path: Path) -> None:
    load = Counting(make_cases(tmp_path, nnUNetDatasetNumpy))
    cases = OpenCases()
    for _ in range(2):
        cases.get("case0", load)
    assert load.opened == ["case0", "case0"]


def test_limit_of_the_system() -> None:
    assert 1 <= files_at_most() <= 1024
    assert isinstance(pickle.loads(pickle.dumps(OpenCases())), OpenCases)
