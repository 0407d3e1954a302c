"""Tables of results, plans, fingerprint and folds: what they say, and that they stay within bounds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from helpers.reports import EVIL, fingerprint, report_documents

from nnunet_lite.model_selection.dataset_status import FoldStatus
from nnunet_lite.plans.fingerprint import DatasetFingerprint
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.reporting.case_results import CaseResult, Results
from nnunet_lite.reporting.fingerprint_section import fingerprint_section
from nnunet_lite.reporting.plans_section import plans_section
from nnunet_lite.reporting.results_section import results_section
from nnunet_lite.reporting.training_curves import Curves
from nnunet_lite.reporting.training_section import training_section


def results(cases: int, classes: int, fold: int | str = 0) -> Results:
    labels: list[Any] = list(range(1, classes + 1))
    found = [CaseResult(f"c{k}", fold, {c: (k + c) % 7 / 7 for c in labels}, Path("x")) for k in range(cases)]
    return Results("model", labels, found, [])


def test_cases_with_few_classes_have_a_column_each() -> None:
    html = results_section(results(3, 2), {1: EVIL, 2: "two"}, 10)
    assert "&lt;script&gt;" in html and EVIL not in html
    assert '<th scope="row">c0</th><td>0</td><td>0.2143</td><td>0.1429</td><td>0.2857</td>' in html
    assert '<th scope="col" aria-sort="ascending"><button type="button">mean Dice</button></th>' in html


def test_cases_with_many_classes_name_their_worst() -> None:
    html = results_section(results(3, 30), {c: f"organ {c}" for c in range(1, 31)}, 10)
    assert "<td>0.0000</td><td>organ 7</td><td>4</td>" in html


def test_long_tables_end_with_a_note() -> None:
    html = results_section(results(50, 2), {}, 20)
    assert "The 30 cases with the highest Dice are left out" in html and html.count("<tr>") == 2 + 2 + 20


def test_a_fold_of_all_cases_comes_with_a_warning() -> None:
    assert "trained with" in results_section(results(3, 1, "all"), {}, 9) and "warning" not in results_section(
        results(3, 1), {}, 9
    )


def test_a_class_that_never_occurs() -> None:
    found = Results("m", [1, (1, 2)], [CaseResult("a", 0, {1: math.nan, (1, 2): 0.5}, Path("a"))], ["a fault <b>"])
    html = results_section(found, {(1, 2): "whole"}, 9)
    assert '<th scope="row">whole</th><td>1, 2</td><td>0.5000</td>' in html and "a fault &lt;b&gt;" in html
    assert "mean foreground Dice <strong>0.5000</strong>" in html
    assert "No case has been validated" in results_section(found._replace(cases=[]), {}, 9)


def test_plans() -> None:
    html = plans_section({"nnUNetPlans": PlansManager(report_documents()["plans.json"])})
    for words in (
        "3 × 12 × 14",
        "1 × 1 × 1, 2 times 2 × 2 × 2",
        "3 times 2",
        "8, 16, 32",
        "PlainConvUNet",
        "3d_lowres",
    ):
        assert words in html, words
    assert EVIL not in html  # and configurations that lack nearly everything have dashes
    assert html.count("<td>–</td>") > 20


def test_fingerprint() -> None:
    html = fingerprint_section(DatasetFingerprint(fingerprint()), [f"CT{EVIL}"])
    assert html.count("<figure") == 7 and "kept 75.0 %" in html and EVIL not in html
    flat = {**fingerprint(), "shapes_after_crop": [[1, 12, 14]] * 3, "spacings": [[999.0, 1.0, 1.0]] * 3}
    two_dimensional = fingerprint_section(DatasetFingerprint(flat), [])
    assert two_dimensional.count("<figure") == 5 and "999" not in two_dimensional
    many = {**fingerprint()}
    key = "foreground_intensity_properties_per_channel"
    many[key] = {str(k): many[key]["0"] for k in range(40)}
    assert "16 further channels are not shown" in fingerprint_section(DatasetFingerprint(many), [])


@pytest.mark.parametrize("seconds", [2.5, 250.0, math.nan])
def test_folds(seconds: float) -> None:
    keys = ("train_losses", "val_losses", "mean_fg_dice", "ema_fg_dice", "lrs", "seconds")
    curves = Curves([0, 1], {**{key: [0.25, 0.5] for key in keys}, "seconds": [seconds] * 2}, "metrics.jsonl")
    folds = [FoldStatus(0, "trained", None, 0.75, False), FoldStatus("all", "in training", 7, None, False)]
    html = training_section("m", folds, {0: curves, "all": None})
    time = {2.5: "2.5 s", 250.0: "4 min"}.get(seconds, "–")
    assert (
        f'<th scope="row">0</th><td>trained</td><td>2</td><td>{time}</td><td>0.5000</td><td>0.7500</td><td>no</td>'
        in html
    )
    assert '<th scope="row">all</th><td>in training</td><td>7</td><td>–</td><td>–</td><td>–</td><td></td>' in html
    assert html.count('class="curve s0') == 5  # legend, two losses, two of Dice
    assert "No log, metrics or checkpoint" in training_section("m", folds, {})
