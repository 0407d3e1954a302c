"""Golden facts of spec 03, 11.9, and the definition on random label maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.postprocessing.connected_components import (
    groups_without_common_labels,
    members_of,
    remove_all_but_largest_component_from_segmentation,
    small_components,
    without_small_components,
)


def by_definition(segmentation: NDArray[Any], labels: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = np.isin(segmentation, labels)
    numbered, number = ndimage.label(mask, np.ones((3,) * mask.ndim))
    if number == 0:
        return np.zeros_like(mask)
    sizes = np.bincount(numbered.ravel())[1:]
    keep = np.flatnonzero(sizes == sizes.max()) + 1
    return mask & ~np.isin(numbered, keep)


@pytest.mark.parametrize("shape", [(9, 10, 11), (1, 17, 13), (40, 1, 3), (20, 30)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_the_definition_on_random_label_maps(shape: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(len(shape) + shape[0])
    for share in (0.05, 0.3, 0.6):
        segmentation = (rng.integers(1, 6, shape) * (rng.random(shape) < share)).astype(dtype)
        masks = [(1,), (2, 5), (4,), (77,)]
        found = small_components(segmentation, masks)
        for number, labels in enumerate(masks):
            removed = np.zeros(segmentation.size, bool)
            removed[found.voxels[found.owner == number]] = True
            np.testing.assert_array_equal(removed.reshape(shape), by_definition(segmentation, labels))


def test_values_far_apart_and_below_zero() -> None:
    segmentation = np.array([[[-3, 70000, 70000, 0, 70000, -3, -3]]])
    found = small_components(segmentation, [(70000,), (-3,)])
    assert sorted(zip(found.voxels.tolist(), found.owner.tolist(), strict=True)) == [(0, 1), (4, 0)]


def test_components_of_equal_size_all_stay() -> None:
    assert small_components(np.array([[[1, 1, 0, 1, 1, 0, 1]]]), [(1,)]).voxels.tolist() == [6]


def test_corners_connect() -> None:
    cube = np.zeros((2, 2, 2), np.uint8)
    cube[0, 0, 0] = cube[1, 1, 1] = 1
    assert small_components(cube, [(1,)]).voxels.size == 0


@pytest.mark.parametrize("shape", [(3, 4, 5), (0, 4, 5)])
def test_nothing_to_remove(shape: tuple[int, ...]) -> None:
    assert small_components(np.zeros(shape, np.uint8), [(1,)]).voxels.size == 0
    assert small_components(np.ones(shape, np.uint8), []).voxels.size == 0


def test_members() -> None:
    assert members_of(3) == (3,)
    assert members_of(np.int64(3)) == (3,)
    assert members_of([1, 2]) == members_of((1, 2)) == members_of([(1, 2)]) == members_of([[2], 1]) == (1, 2)
    for wrong in ("1", 1.5, True, None):
        with pytest.raises(ArgumentError, match="expected labels, regions or a list"):
            members_of([wrong])


@pytest.mark.parametrize("seed", range(5))
def test_many_at_once_are_one_after_another(seed: int) -> None:
    rng = np.random.default_rng(seed)
    segmentation = rng.integers(1, 7, (6, 9, 10)) * (rng.random((6, 9, 10)) < 0.4)
    entries: list[Any] = [[1, 2, 3, 4, 5, 6], 1, 2, (3, 4), 5, (2, 3), 6, 4]
    expected = segmentation
    for entry in entries:
        expected = remove_all_but_largest_component_from_segmentation(expected, entry)
    np.testing.assert_array_equal(without_small_components(segmentation, entries), expected)
    assert groups_without_common_labels(entries) == [[entries[0]], [1, 2, (3, 4), 5], [(2, 3), 6, 4]]
