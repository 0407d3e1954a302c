"""Scores of all cases from the summaries of folds; which are worst, which are in the middle."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from nnunet_lite.reporting.case_results import CaseResult, read_results, worst_and_median

NAN = math.nan


def summary(folder: Path, cases: dict[str, list[float]], keys: tuple[str, ...] = ("1", "(1, 2)")) -> Path:
    folder.mkdir(parents=True)
    entries = [
        {"prediction_file": f"/gone/{case}.nii.gz", "reference_file": f"/gone/{case}.nii.gz",
         "metrics": {key: {"Dice": value} for key, value in zip(keys, dice, strict=True)}}
        for case, dice in cases.items()
    ]  # fmt: skip
    document = {"metric_per_case": entries, "mean": {}, "foreground_mean": {}}
    (folder / "summary.json").write_text(json.dumps(document))
    return folder / "summary.json"


def test_folds_are_read_together(tmp_path: Path) -> None:
    first = summary(tmp_path / "fold_0" / "validation", {"a": [0.5, 1.0], "b": [NAN, 0.5]})
    second = summary(tmp_path / "fold_1" / "validation", {"c": [NAN, NAN]})
    results = read_results("model", [(0, first), (1, second)], ".nii.gz")
    assert [(case.name, case.fold) for case in results.cases] == [("a", 0), ("b", 0), ("c", 1)]
    assert results.classes == [1, (1, 2)] and not results.faults
    assert results.mean == pytest.approx((0.5 + 0.75) / 2)  # of classes, each over the cases where it occurs
    assert [case.mean for case in results.cases[:2]] == [0.75, 0.5] and math.isnan(results.cases[2].mean)
    assert results.cases[0].prediction == tmp_path / "fold_0" / "validation" / "a.nii.gz"  # folders move


def test_a_prediction_is_never_looked_for_elsewhere(tmp_path: Path) -> None:
    file = summary(tmp_path / "v", {"../../../etc/passwd": [1, 1], "C:\\\\x\\\\y": [1, 1]})
    results = read_results("model", [(0, file)], ".nii.gz")
    assert {case.prediction.parent for case in results.cases} == {tmp_path / "v"}


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"metric_per_case": 3, "mean": {}}', '{"metric_per_case": [{"metrics": {"x": 1}}], "mean": {}}'],
)
def test_a_damaged_summary_is_a_fault(tmp_path: Path, content: str) -> None:
    good = summary(tmp_path / "good", {"a": [1, 1]})
    (tmp_path / "summary.json").write_text(content)
    results = read_results("model", [(0, tmp_path / "summary.json"), (1, good)], ".nii.gz")
    assert len(results.faults) == 1 and str(tmp_path / "summary.json") in results.faults[0]
    assert [case.name for case in results.cases] == ["a"]


def case(name: str, dice: float) -> CaseResult:
    return CaseResult(name, 0, {1: dice}, Path(name))


def test_worst_and_median() -> None:
    cases = [case(f"c{k:03}", (k * 37 % 101) / 101) for k in range(101)] + [case("none", NAN)]
    worst, median = worst_and_median(cases, 10, 3)
    assert [round(one.mean * 101) for one in worst] == list(range(10))
    assert [round(one.mean * 101) for one in median] == [49, 50, 51]


@pytest.mark.parametrize("number", range(7, 40))
def test_median_cases_lie_in_the_middle_and_worst_ones_below(number: int) -> None:
    ordered = [case(f"c{k:02}", k / 50) for k in range(number)]
    worst, median = worst_and_median(ordered[::-1], 10, 3)
    assert ordered[number // 2] in median and len(median) == 3
    start = ordered.index(median[0])
    assert abs(start - (number - start - 3)) <= 1  # as many below as above
    assert worst == ordered[: min(10, start)]


@pytest.mark.parametrize(
    ("number", "worst", "median"), [(0, 0, 0), (1, 1, 0), (6, 6, 0), (7, 2, 3), (12, 5, 3), (21, 9, 3), (22, 10, 3)]
)
def test_few_cases_are_shown_once(number: int, worst: int, median: int) -> None:
    found = worst_and_median([case(str(k), k / 20) for k in range(number)], 10, 3)
    assert tuple(map(len, found)) == (worst, median)
    names = [one.name for group in found for one in group]
    assert len(set(names)) == len(names)
