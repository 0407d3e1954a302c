"""Lesions found, missed and false, counted by hand and by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from nnunet_lite.evaluation.lesion_counts import count_lesions, detection_rates


def _mask(rows):
    return np.array([[character != "." for character in row] for row in rows])


def test_counted_by_hand():
    reference = _mask(["##..#....", "##..#..#.", ".........", "#.......#"])
    prediction = _mask([".#####...", "....#....", ".....##..", "..#....##"])
    found = count_lesions(reference, prediction)
    assert found == {
        "lesions_ref": 5,
        "lesions_pred": 2,  # the long one, connected over corners, runs through three of the reference
        "lesions_found": 3,
        "lesions_missed": 2,
        "lesions_false": 1,
        "lesion_sensitivity": 3 / 5,
        "lesion_precision": 3 / 4,
        "lesion_f1": 6 / 9,
    }


@pytest.mark.parametrize("shape", [(12, 12, 12), (30, 30)])
def test_as_scipy_numbers_components(shape):
    generator = np.random.default_rng(5)
    for share in (0.02, 0.05, 0.1):
        reference, prediction = generator.random(shape) < share, generator.random(shape) < share
        everything = np.ones((3,) * len(shape))
        of_reference, n_ref = ndimage.label(reference, everything)
        of_prediction, n_pred = ndimage.label(prediction, everything)
        hit = [bool(prediction[of_reference == number].any()) for number in range(1, n_ref + 1)]
        touching = [bool(reference[of_prediction == number].any()) for number in range(1, n_pred + 1)]
        found = count_lesions(reference, prediction)
        assert [found[f"lesions_{name}"] for name in ("ref", "pred", "found", "missed", "false")] == [
            n_ref,
            n_pred,
            sum(hit),
            n_ref - sum(hit),
            n_pred - sum(touching),
        ]


def test_corners_connect_voxels():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    assert count_lesions(mask, mask)["lesions_ref"] == 2


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4), (0, 0, 0), (0, 0)])
def test_nothing_anywhere(shape):
    found = count_lesions(np.zeros(shape, bool), np.zeros(shape, bool))
    assert [found[f"lesions_{name}"] for name in ("ref", "pred", "found", "missed", "false")] == [0] * 5
    assert all(math.isnan(found[f"lesion_{name}"]) for name in ("sensitivity", "precision", "f1"))


@pytest.mark.parametrize(
    ("counts", "rates"),
    [((0, 2, 0), (0, math.nan, 0)), ((0, 0, 2), (math.nan, 0, 0)), ((2, 1, 3), (2 / 3, 2 / 5, 1 / 2))],
)
def test_rates(counts, rates):
    np.testing.assert_equal(tuple(detection_rates(*counts).values()), rates)
