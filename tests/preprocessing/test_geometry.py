"""There and back between image space and network space."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nnunet_lite.preprocessing.geometry import network_spacing, to_image_space, to_network_space, transposed_spacing


@pytest.mark.parametrize("forward", list(itertools.permutations(range(3))))
def test_there_and_back(forward: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    data = np.zeros((2, 7, 8, 9), np.float32)
    data[:, 1:6, 2:5, 3:9] = rng.uniform(1, 2, (2, 5, 3, 6))
    seg = np.zeros((1, 7, 8, 9), np.uint8)
    seg[0, 2:4, 3, 4:6] = 5
    properties = {"spacing": [3.0, 2.0, 1.0]}
    case = to_network_space(data, seg, properties, forward)
    assert properties == {"spacing": [3.0, 2.0, 1.0]}  # the argument stays as it was
    assert case.data.shape[1:] == case.properties["shape_after_cropping_and_before_resampling"]
    assert case.properties["shape_before_cropping"] == tuple(data.shape[1 + axis] for axis in forward)
    backward = [forward.index(axis) for axis in range(3)]
    np.testing.assert_array_equal(to_image_space(case.data, case.properties, backward), data)
    assert case.seg is not None
    np.testing.assert_array_equal(to_image_space(case.seg[0], case.properties, backward), seg[0])


def test_the_mask_is_made_only_where_it_is_needed() -> None:
    data = np.ones((1, 3, 4, 5), np.float32)
    data[0, 1, 1, 1] = data[0, 0, 0, 0] = 0
    assert to_network_space(data, None, {}, (0, 1, 2), mark_outside=False).seg is None
    mask = to_network_space(data, None, {}, (0, 1, 2)).seg
    assert mask is not None and int((mask == -1).sum()) == 1  # the corner, not the hole


def test_spacings() -> None:
    own = transposed_spacing({"spacing": [1.0, 2.0, 5.0]}, (2, 0, 1))
    assert own == [5.0, 1.0, 2.0]
    assert network_spacing([1.5, 1.5], own) == [5.0, 1.5, 1.5]
    assert network_spacing([4, 1.5, 1.5], own) == [4.0, 1.5, 1.5]
    assert network_spacing([None, 1.5, None], own) == [5.0, 1.5, 2.0]
