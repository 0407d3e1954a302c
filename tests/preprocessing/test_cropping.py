"""Nonzero box, hole filling and the -1 mark; facts of spec 01, 9.7."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from nnunet_lite.preprocessing.cropping import create_nonzero_mask, crop_to_nonzero, nonzero_bounding_box


def _holed_volume() -> np.ndarray:
    data = np.zeros((1, 5, 6, 7), np.float32)
    data[0, 1:4, 1:5, 2:6] = 1
    data[0, 2, 2:4, 3:5] = 0
    return data


def test_hole_in_the_middle_is_filled_and_box_is_tight() -> None:
    data = _holed_volume()
    assert int((data != 0).sum()) == 44
    assert int(create_nonzero_mask(data).sum()) == 48
    cropped, seg, box = crop_to_nonzero(data)
    assert box == [[1, 4], [1, 5], [2, 6]]
    assert cropped.shape == seg.shape == (1, 3, 4, 4)
    assert seg.dtype == np.int8 and not seg.any()


def test_outside_of_the_mask_is_marked_only_where_seg_is_zero() -> None:
    data = _holed_volume()
    data[0, 0, 0, 2] = 1
    zeros = np.zeros(data.shape, np.int16)
    _, seg, box = crop_to_nonzero(data, zeros)
    assert box == [[0, 4], [0, 5], [2, 6]]
    assert int((seg == -1).sum()) == 31
    assert not zeros.any()  # arguments stay as they were
    ones = np.ones(data.shape, np.uint8)
    ones[0, 0] = 0
    _, seg, _ = crop_to_nonzero(data, ones)
    assert [int((seg == label).sum()) for label in (-1, 1, 0)] == [19, 60, 1]


def test_empty_image_and_opposite_corners() -> None:
    _, seg, box = crop_to_nonzero(np.zeros((1, 4, 4, 4), np.float32))
    assert box == [[0, 4]] * 3 and (seg == -1).all()
    corners = np.zeros((2, 3, 3, 3), np.float32)
    corners[0, 0, 0, 0] = corners[1, 2, 2, 2] = 1
    assert nonzero_bounding_box(corners) == [[0, 3]] * 3


def test_cavity_tunnel_ring_and_nan() -> None:
    cavity = np.ones((1, 5, 5, 5), np.float32)
    cavity[0, 2, 2, 2] = 0
    assert int(create_nonzero_mask(cavity).sum()) == 125
    cavity[0, :, 2, 2] = 0
    assert int(create_nonzero_mask(cavity).sum()) == 120
    ring = np.ones((1, 1, 5, 5), np.float32)
    ring[0, 0, 2, 2] = 0
    assert int(create_nonzero_mask(ring).sum()) == 24
    nan = np.zeros((1, 3, 3, 3), np.float32)
    nan[0, 1, 1, 1] = np.nan
    assert int(create_nonzero_mask(nan).sum()) == 1


@pytest.mark.parametrize("density", [0.3, 0.7, 0.9])
def test_filling_in_the_box_equals_filling_in_the_volume(density: float) -> None:
    rng = np.random.default_rng(int(density * 10))
    for _ in range(20):
        data = np.zeros((1, 9, 8, 10), np.float32)
        data[0, 1:8, 2:7, 1:9] = rng.random((7, 5, 8)) < density
        expected = scipy.ndimage.binary_fill_holes(data[0] != 0)
        np.testing.assert_array_equal(create_nonzero_mask(data), expected)


def test_unsigned_labels_can_hold_the_mark() -> None:
    data = np.zeros((1, 3, 3, 3), np.float32)
    data[0, 0, 0, 0] = data[0, 2, 2, 2] = 1
    seg = np.zeros(data.shape, np.uint16)
    seg[0, 1, 1, 1] = 40000
    _, marked, _ = crop_to_nonzero(data, seg)
    assert marked.min() == -1 and marked.max() == 40000
