"""Rules of planning: what they decide and the reason they give."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.experiment_planning.planning_rules import (
    checked_memory_target,
    checked_plans_name,
    checked_target_spacing,
    choose_batch_size,
    choose_target_spacing,
    plain_numbers,
    resampled_shapes,
)


@pytest.mark.parametrize(
    ("spacings", "shape", "expected", "reason"),
    [
        ([(1, 1, 1)] * 3, (50, 50, 50), [1, 1, 1], "median of all cases"),
        ([(3, 1, 1)] * 3, (20, 200, 200), [3, 1, 1], "median of all cases"),  # a ratio of exactly 3 is not coarse
        ([(5, 1, 1)] * 3, (67, 200, 200), [5, 1, 1], "median of all cases"),  # coarse, but as many voxels as others
        ([(5, 1, 1), (5, 1, 1), (3, 1, 1)], (20, 200, 200), [3.4, 1, 1], "coarse axis 0 the 10th percentile"),
        ([(1, 5, 1), (1, 5, 1), (1, 3, 1)], (200, 20, 200), [1, 3.4, 1], "coarse axis 1 the 10th percentile"),
        ([(5, 1, 1)] * 7 + [(0.5, 1, 1)] * 3, (20, 200, 200), [1.00001, 1, 1], "not in all"),
    ],
)
def test_target_spacing(spacings, shape, expected, reason):
    found = choose_target_spacing(spacings, [shape] * len(spacings), 3)
    assert found.spacing.tolist() == pytest.approx(expected, abs=1e-12)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("ratio", "voxels", "maximum", "value", "reason"),
    [
        (2.0, 1e9, None, 24, "GPU memory"),
        (2.0, 1e6, None, 5, "dataset size"),
        (2.0, 1e4, None, 2, "the minimum"),
        (0.01, 1e9, None, 2, "the minimum"),
        (2.0, 1e9, 7, 7, "planner's limit"),
    ],
)
def test_batch_size(ratio, voxels, maximum, value, reason):
    found = choose_batch_size(ratio, 12, voxels, 0.05, [100, 100], 2, maximum)
    assert (found.value, found.reason) == (value, reason)


def test_shapes_of_resampled_cases():
    spacings, shapes = [(1, 1, 4), (1, 1, 2)], [(30, 20, 10), (3, 40, 50)]
    found = resampled_shapes(spacings, shapes, [2.0, 2.0, 10.0], [2, 0, 1])
    assert found.tolist() == [[20, 15, 2], [50, 2, 4]]
    flat = resampled_shapes(spacings, shapes, [2.0, 100.0], [2, 0, 1])
    assert flat.tolist() == [[10, 15, 1], [50, 2, 1]]  # 2d keeps the slices; never less than one voxel


def test_plain_numbers_keep_whole_numbers_whole():
    assert [type(value) for value in plain_numbers(np.array([1, 2]))] == [int, int]
    assert [type(value) for value in plain_numbers([np.float64(1.5), np.float64(2)])] == [float, float]


def test_what_is_asked_for_is_checked():
    assert checked_target_spacing(None) is None
    assert checked_target_spacing(["1", 2, 3.5]) == [1, 2, 3.5]
    assert checked_memory_target(None, 8) == 8
    for spacing in ([1, 1], ["a", 1, 1], [0, 1, 1]):
        with pytest.raises(ArgumentError, match="three positive numbers"):
            checked_target_spacing(spacing)
    assert checked_plans_name("my Plans_1.5mm") == "my Plans_1.5mm"
    for name in ("", "a/b", "..", " x", "nnUNetPlans.json", "a\\b"):
        with pytest.raises(ArgumentError, match="expected a file name without folder and ending"):
            checked_plans_name(name)
    with pytest.raises(ArgumentError, match="that of another file"):
        checked_plans_name("dataset")
    with pytest.raises(ArgumentError, match="positive number of GB"):
        checked_memory_target(float("inf"), 8)
