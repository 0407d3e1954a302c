"""Boxes, cropping, padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import blosc2
import numpy as np
import pytest

from nnunet_lite.utilities.arrays import bounding_box, box_shape, crop_and_pad, slices


def test_bounding_box_of_random_masks_equals_the_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        shape = tuple(rng.integers(1, 9, size=rng.integers(1, 5)))
        mask = rng.random(shape) < 0.1
        box = bounding_box(mask)
        if not mask.any():
            assert box is None
            continue
        where = np.argwhere(mask)
        assert box == [[int(low), int(high) + 1] for low, high in zip(where.min(0), where.max(0), strict=True)]
        assert box_shape(box) == mask[slices(box)].shape


@pytest.mark.parametrize("store", [np.asarray, blosc2.asarray])
@pytest.mark.parametrize("starts", [(0, 0), (-2, 3), (4, 5), (-10, 0), (9, 9), (2, 1)])
def test_crop_and_pad_equals_padding_first(starts: tuple[int, int], store: Callable[[Any], Any]) -> None:
    values = np.arange(2 * 6 * 7).reshape(2, 6, 7).astype(np.int16)
    array = store(values)
    wide = np.pad(values, ((0, 0), (20, 20), (20, 20)), constant_values=-1)
    expected = wide[:, starts[0] + 20 : starts[0] + 24, starts[1] + 20 : starts[1] + 25]
    result = crop_and_pad(array, starts, (4, 5), -1)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == array.dtype
    result[:] = 7
    assert np.array_equal(array[:], np.arange(2 * 6 * 7).reshape(2, 6, 7))
