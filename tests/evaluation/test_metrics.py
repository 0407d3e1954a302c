"""The golden facts of spec 03, 11.8, and the histogram they rest on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_lite.evaluation.metrics import class_metrics, compute_metrics, joint_histogram
from nnunet_lite.exceptions import DatasetError

REFERENCE = {"a": [[0, 1, 1, 2], [0, 0, 1, 3]], "b": [[0, 0, 0, 1], [0, 0, 0, 0]]}
PREDICTION = {"a": [[0, 1, 2, 2], [1, 0, 1, 0]], "b": [[0, 0, 0, 0], [0, 0, 1, 0]]}

GOLDEN = [  # case, class, ignore label, TP FP FN TN, n_pred n_ref, Dice, IoU
    ("a", 1, None, (2, 1, 1, 4), (3, 3), 0.6666666666666666, 0.5),
    ("a", 2, None, (1, 1, 0, 6), (2, 1), 0.6666666666666666, 0.5),
    ("a", 3, None, (0, 0, 1, 7), (0, 1), 0, 0),
    ("a", 1, 3, (2, 1, 1, 3), (3, 3), 0.6666666666666666, 0.5),
    ("a", 2, 3, (1, 1, 0, 5), (2, 1), 0.6666666666666666, 0.5),
    ("a", (1, 2), None, (4, 1, 0, 3), (5, 4), 0.8888888888888888, 0.8),
    ("b", 1, None, (0, 1, 1, 6), (1, 1), 0, 0),
    ("b", 2, None, (0, 0, 0, 8), (0, 0), math.nan, math.nan),
]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
@pytest.mark.parametrize(("case", "entry", "ignore", "counts", "sizes", "dice", "iou"), GOLDEN)
def test_golden_facts(case, entry, ignore, counts, sizes, dice, iou, dtype):
    histogram = joint_histogram(np.array(REFERENCE[case], dtype), np.array(PREDICTION[case], dtype))
    found = class_metrics(histogram, entry, ignore)
    assert tuple(found[name] for name in ("TP", "FP", "FN", "TN")) == counts
    assert (found["n_pred"], found["n_ref"]) == sizes
    np.testing.assert_equal((found["Dice"], found["IoU"]), (dice, iou))


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 25, np.uint8),
        (0, 256, np.uint8),
        (-1, 5, np.int16),
        (0, 3000, np.uint16),
        (-(2**40), 2**40, np.int64),
        (5, 9, np.int32),
        (0, 60000, np.uint16),
    ],
)
def test_histogram_counts_every_pair_of_values(low, high, dtype):
    generator = np.random.default_rng(0)
    values = np.unique(generator.integers(low, high, 12)).astype(dtype)
    reference, prediction = (generator.choice(values, (3, 40, 50)) for _ in range(2))
    histogram = joint_histogram(reference, prediction)
    assert histogram.counts.sum() == reference.size
    row = {int(value): index for index, value in enumerate(histogram.reference_values)}
    column = {int(value): index for index, value in enumerate(histogram.prediction_values)}
    for first in values:
        for second in values:
            expected = np.sum((reference == first) & (prediction == second))
            assert histogram.counts[row[int(first)], column[int(second)]] == expected


def test_different_types_and_memory_orders_compare_by_position():
    generator = np.random.default_rng(1)
    reference = generator.integers(0, 4, (5, 6, 7)).astype(np.uint64)
    prediction = np.asfortranarray(np.where(reference == 3, -1, reference.astype(np.int32)))
    found = class_metrics(joint_histogram(reference, prediction), (1, 2))
    assert found["TP"] == np.isin(reference, (1, 2)).sum()
    assert found["FP"] == found["FN"] == 0


def test_voxels_beyond_one_chunk_are_all_counted(monkeypatch):
    monkeypatch.setattr("nnunet_lite.evaluation.metrics._CHUNK", 7)
    reference = np.arange(1000) % 3
    assert class_metrics(joint_histogram(reference, reference), 2)["TP"] == np.sum(reference == 2)


class _FakeReader:
    """Serves arrays by name, with properties."""

    def __init__(self, **images):
        self.images = images

    def read_seg(self, file):
        return self.images[file]


def test_shapes_that_differ_are_named():
    reader = _FakeReader(ref=(np.zeros((1, 2, 3, 4), int), {}), pred=(np.zeros((1, 2, 3, 5), int), {}))
    with pytest.raises(DatasetError, match=r"pred has shape \(2, 3, 5\), its reference ref has \(2, 3, 4\)"):
        compute_metrics("ref", "pred", reader, [1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, None),
        ({"spacing": [1, 1, 2.5]}, "spacing (1, 1, 2.5), its reference (1, 1, 2)"),
        ({"sitk_stuff": {"origin": (0, 0, 7)}}, "origin (0, 0, 7), its reference (0, 0, 0)"),
    ],
)
def test_another_place_in_the_world_is_noted(changed, message):
    properties = {"spacing": [1, 1, 2], "sitk_stuff": {"origin": (0, 0, 0)}}
    image = np.ones((1, 2, 2, 2), int)
    reader = _FakeReader(ref=(image, properties), pred=(image, {**properties, **changed}))
    assert compute_metrics("ref", "pred", reader, [1])["geometry_warning"] == message
