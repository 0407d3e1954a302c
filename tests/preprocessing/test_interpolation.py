"""Per-axis operators against scikit-image and scipy; shape rule and separate-axis rule of spec 01, 9.1."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
from skimage.transform import resize

from nnunet_lite.preprocessing.interpolation import (
    axis_operator,
    compute_new_shape,
    determine_do_sep_z_and_axis,
    interpolation_plan,
    nearest_index,
    operator_blocks,
)


@pytest.mark.parametrize(
    ("shape", "old", "new", "expected"),
    [
        ((10, 32, 30), (3.0, 1.1, 1.1), (3.5, 1, 1), (9, 35, 33)),
        ((5, 5, 5), (1, 1, 1), (2, 2, 2), (2, 2, 2)),
        ((7, 7, 7), (1, 1, 1), (2, 2, 2), (4, 4, 4)),
        ((3, 3, 3), (1, 1, 1), (2, 2, 2), (2, 2, 2)),
        ((1, 64, 80), (999, 1, 1), (999, 1, 1), (1, 64, 80)),
        ((1, 4, 4), (1, 1, 1), (3, 9, 1), (1, 1, 4)),  # upstream: 0, 0, 4
    ],
)
def test_compute_new_shape(
    shape: tuple[int, ...], old: tuple[float, ...], new: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    assert compute_new_shape(shape, old, new) == expected


@pytest.mark.parametrize(
    ("force", "current", "new", "axis"),
    [
        (None, (3.0, 1, 1), (3.0, 1, 1), None),
        (None, (3.01, 1, 1), (1, 1, 1), 0),
        (None, (3.1, 1, 1), (1, 1, 1), 0),
        (None, (1, 1, 1), (1, 1, 4), 2),
        (None, (1, 1, 1), (3.1, 1, 1), 0),
        (None, (0.24, 1.25, 1.25), (1, 1, 1), None),
        (None, (4, 4, 1), (1, 1, 1), None),
        (None, (5, 1, 5), (1, 1, 1), None),
        (None, (1, 1, 5), (1, 5, 1), 2),
        (None, (10, 1.5, 1.4), (5, 1, 1), 0),
        (None, (999, 1, 1), (999, 1, 1), 0),
        (True, (1, 1, 1), (9, 1, 1), None),
        (True, (2, 1, 1), (1, 1, 1), 0),
        (False, (9, 1, 1), (9, 1, 1), None),
    ],
)
def test_separate_axis(
    force: bool | None, current: tuple[float, ...], new: tuple[float, ...], axis: int | None
) -> None:
    assert determine_do_sep_z_and_axis(force, current, new) == (axis is not None, axis)


@pytest.mark.parametrize(
    ("size_in", "size_out", "expected"),
    [
        (2, 3, [0, 1, 1]),
        (5, 10, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
        (10, 5, [1, 3, 5, 7, 9]),
        (7, 4, [0, 2, 4, 6]),
        (4, 7, [0, 0, 1, 2, 2, 3, 3]),
        (3, 2, [0, 2]),
        (12, 13, [0, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11]),
    ],
)
def test_slice_selection(size_in: int, size_out: int, expected: list[int]) -> None:
    assert nearest_index(size_in, size_out).tolist() == expected


@pytest.mark.parametrize("order", [0, 1, 2, 3, 5])
@pytest.mark.parametrize(("size_in", "size_out"), [(1, 4), (2, 3), (5, 2), (13, 31), (50, 37), (3, 1)])
def test_operator_equals_skimage(order: int, size_in: int, size_out: int) -> None:
    values = np.random.default_rng(0).normal(size=(size_in, 3))
    expected = resize(values, (size_out, 3), order=order, mode="edge", anti_aliasing=False, clip=False)
    np.testing.assert_allclose(axis_operator(size_in, size_out, order) @ values, expected, atol=1e-10)


def test_operator_equals_map_coordinates() -> None:
    values = np.random.default_rng(1).normal(size=40)
    position = (np.arange(29) + 0.5) * 40 / 29 - 0.5
    expected = scipy.ndimage.map_coordinates(values, position[None], order=3, mode="nearest")
    np.testing.assert_allclose(axis_operator(40, 29, 3) @ values, expected, atol=1e-10)


@pytest.mark.parametrize("order", [1, 3])
def test_blocks_cover_the_operator_without_denormals(order: int) -> None:
    operator = axis_operator(300, 211, order)
    rebuilt = np.zeros_like(operator)
    for start, stop, first, last, matrix in operator_blocks(300, 211, order):
        rebuilt[start:stop, first:last] = matrix
    np.testing.assert_allclose(rebuilt, operator, atol=1e-7)
    assert np.abs(rebuilt[rebuilt != 0]).min() > 1e-10
    assert all(last - first < 200 for _, _, first, last, _ in operator_blocks(300, 211, order))


def test_plan_names_what_happens_per_axis() -> None:
    plan = interpolation_plan((10, 32, 30), (9, 32, 33), (10, 1, 1), (11, 1, 1), 3, 0, None)
    assert [axis.mode for axis in plan.axes] == ["nearest", "identity", "spline"]
    assert plan.separate_axis == 0 and not plan.is_identity
    assert interpolation_plan((4, 4, 4), (4, 4, 4), (1, 1, 1), (2, 2, 2), 3).is_identity
    with pytest.raises(ValueError, match="read-only"):
        plan.axes[0].index[0] = 1
