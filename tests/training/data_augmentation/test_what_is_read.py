"""Only the part of a case that the drawn geometry needs is read; every sample draws for itself."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest

from nnunet_lite.training.data_augmentation.augmentation_geometry import configure_augmentation
from nnunet_lite.training.data_augmentation.pipelines import get_training_transforms
from nnunet_lite.training.data_loader import nnUNetDataLoader


class Labels:
    """As much of a label manager as the loader needs."""

    has_ignore_label = False
    all_labels = (0, 1)


class CountingArray:
    """Counts the voxels that are read."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype
        self.read: list[int] = []

    def __getitem__(self, index: Any) -> Any:
        found = self.array[index]
        self.read.append(found.size)
        return found


class OneCase:
    """One case that is larger than any patch."""

    identifiers = ("case",)

    def __init__(self, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(0)
        self.data = CountingArray(rng.standard_normal((1, *shape), dtype=np.float32))
        self.seg = CountingArray(rng.integers(0, 2, (1, *shape)).astype(np.int16))
        self.properties = {"class_locations": {1: np.argwhere(self.seg.array == 1)}}

    def load_case(self, identifier: str) -> tuple[Any, ...]:
        return self.data, self.seg, None, self.properties


def loader_of(patch: tuple[int, ...], shape: tuple[int, ...]) -> tuple[nnUNetDataLoader, OneCase, int]:
    """Loader, its dataset and the voxels of the enlarged patch."""
    geometry = configure_augmentation(patch)
    dataset = OneCase(shape)
    transforms = get_training_transforms(
        patch, geometry.rotation_for_DA, None, geometry.mirror_axes, geometry.do_dummy_2d_data_aug
    )
    loader = nnUNetDataLoader(
        dataset, 50, geometry.initial_patch_size, patch, Labels(), transforms=transforms, seed=5
    )  # fmt: skip
    return loader, dataset, prod(geometry.initial_patch_size)


@pytest.mark.parametrize(
    ("patch", "shape"), [((16, 16, 16), (60, 60, 60)), ((4, 20, 16), (20, 60, 60)), ((24, 20), (4, 90, 90))]
)
def test_a_third_of_the_samples_needs_more_than_the_patch(patch: tuple[int, ...], shape: tuple[int, ...]) -> None:
    loader, dataset, enlarged = loader_of(patch, shape)
    for index in range(8):
        loader.read_batch(0, index)
    for array in (dataset.data, dataset.seg):
        read = np.array(array.read)
        assert len(read) == 400
        assert read.max() <= enlarged
        more = read > prod(patch)
        assert 0.25 < more.mean() < 0.42  # zooming in alone needs less than the patch
        # at the border of the image the part of a patch that lies outside is not read either
        assert np.median(read[~more]) <= prod(patch)
        assert read.mean() < prod(patch) + 0.4 * (enlarged - prod(patch))


def test_samples_of_a_batch_draw_for_themselves() -> None:
    """Upstream's workers repeat each other's stream of torch; here no two samples share a noise seed or a decision."""
    loader, _, _ = loader_of((8, 8, 8), (30, 30, 30))
    params = [one for index in range(4) for one in loader.read_batch(0, index).params]
    seeds = [value[1] for one in params if one[1] is not None for value in one[1].values]
    assert len(set(seeds)) == len(seeds) > 5
    decisions = [tuple(row is None for row in one) for one in params]
    assert len(set(decisions)) > 20
    first, second = (loader.read_batch(0, index).params for index in (0, 1))
    assert [one[-2] for one in first] != [one[-2] for one in second]
