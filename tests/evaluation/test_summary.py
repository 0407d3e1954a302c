"""Means over cases and classes, and the file they are written to."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from nnunet_lite.evaluation.metrics import class_metrics, joint_histogram
from nnunet_lite.evaluation.summary import (
    key_to_label_or_region,
    label_or_region_to_key,
    load_summary_json,
    names_of_classes,
    plain_label_or_region,
    save_summary_json,
    summarize,
)

A = np.array([[0, 1, 1, 2], [0, 0, 1, 3]]), np.array([[0, 1, 2, 2], [1, 0, 1, 0]])
B = np.array([[0, 0, 0, 1], [0, 0, 0, 0]]), np.array([[0, 0, 0, 0], [0, 0, 1, 0]])


def _summary(classes, ignore_label=None):
    cases = []
    for name, pair in (("a", A), ("b", B)):
        histogram = joint_histogram(*pair)
        cases.append(
            {
                "metrics": {entry: class_metrics(histogram, entry, ignore_label) for entry in classes},
                "reference_file": f"ref/{name}",
                "prediction_file": f"pred/{name}",
            }
        )
    return summarize(cases, classes)


def test_golden_means_of_labels():
    found = _summary([1, 2, 4])
    np.testing.assert_equal(
        found["mean"][1],
        {"Dice": 1 / 3, "IoU": 0.25, "TP": 1.0, "FP": 1.0, "FN": 1.0, "TN": 5.0, "n_pred": 2.0, "n_ref": 2.0},
    )
    np.testing.assert_equal(
        found["mean"][2],
        {"Dice": 2 / 3, "IoU": 0.5, "TP": 0.5, "FP": 0.5, "FN": 0.0, "TN": 7.0, "n_pred": 1.0, "n_ref": 0.5},
    )
    assert math.isnan(found["mean"][4]["Dice"]) and found["mean"][4]["TN"] == 8.0
    np.testing.assert_equal(
        found["foreground_mean"],
        {
            "Dice": math.nan,
            "IoU": math.nan,
            "FN": 1 / 3,
            "FP": 0.5,
            "TN": 6.666666666666667,
            "TP": 0.5,
            "n_pred": 1.0,
            "n_ref": 2.5 / 3,
        },
    )


def test_golden_means_of_regions_with_ignore_label():
    found = _summary([(1, 2), 2], ignore_label=3)
    np.testing.assert_allclose(
        [found["mean"][(1, 2)][name] for name in ("Dice", "IoU", "FP", "TP", "FN", "TN", "n_pred", "n_ref")],
        [4 / 9, 0.4, 1, 2, 0.5, 4, 3, 2.5],
        rtol=1e-15,
    )
    assert (found["mean"][2]["Dice"], found["mean"][2]["TN"]) == (2 / 3, 6.5)
    np.testing.assert_allclose(
        [found["foreground_mean"]["Dice"], found["foreground_mean"]["IoU"]], [5 / 9, 0.45], rtol=1e-15
    )


def test_label_zero_is_averaged_but_no_foreground():
    found = _summary([0, 1, 2])
    assert 0 in found["mean"]
    assert (found["foreground_mean"]["Dice"], found["foreground_mean"]["IoU"]) == (0.5, 0.375)


def test_only_background_gives_nan_and_no_warning(recwarn):
    assert math.isnan(_summary([0])["foreground_mean"]["Dice"])
    assert not recwarn.list


def test_file_has_upstreams_form(tmp_path):
    results = _summary([*range(1, 12), (1, 2), (3,)])
    save_summary_json(results, tmp_path / "summary.json")
    text = (tmp_path / "summary.json").read_text()
    written = json.loads(text)
    assert list(written) == ["foreground_mean", "mean", "metric_per_case"]
    assert list(written["mean"]) == ["(1, 2)", "(3,)", "1", "10", "11", *"23456789"]
    assert list(written["mean"]["1"]) == ["Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref"]
    assert list(written["metric_per_case"][0]) == ["metrics", "prediction_file", "reference_file"]
    assert isinstance(written["metric_per_case"][0]["metrics"]["1"]["TP"], int)
    assert isinstance(written["mean"]["1"]["TP"], float)
    assert '\n    "mean": {' in text and ": NaN" in text


def test_reading_gives_back_what_was_written(tmp_path):
    results = _summary([1, (1, 2)], ignore_label=3)
    save_summary_json(results, tmp_path / "summary.json")
    assert load_summary_json(tmp_path / "summary.json") == results


@pytest.mark.parametrize(("entry", "key"), [(0, "0"), (7, "7"), ((1, 2), "(1, 2)"), ((3,), "(3,)")])
def test_class_keys(entry, key):
    assert label_or_region_to_key(entry) == key
    assert key_to_label_or_region(key) == entry


@pytest.mark.parametrize("entry", [np.int64(3), [np.int64(1), 2], np.array([1, 2]), (np.uint8(4),)])
def test_numpy_integers_do_not_reach_the_keys(entry):
    assert "np." not in label_or_region_to_key(plain_label_or_region(entry))


def test_one_rule_for_names_of_classes():
    labels = {"background": 0, "whole": [1, 2], "core": [2], "edge": 1, "second": [1, 2], "last": 1}
    names = {0: "background", (1, 2): "whole", (2,): "core", 2: "core", 1: "edge"}
    assert names_of_classes(labels) == names
    assert names_of_classes({"region": [2], "label": 2}) == {(2,): "region", 2: "label"}
