"""Mirroring, masks, regions and deep-supervision targets (spec 02, 4.3, 4.7, 4.8)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_lite.training.data_augmentation.segmentation_transforms import (
    ConvertSegmentationToRegionsTransform,
    DownsampleSegForDSTransform,
    MaskImageTransform,
    MirrorTransform,
    RemoveLabelTransform,
)
from nnunet_lite.training.data_augmentation.transforms import Batch, SampleShape


def labels(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int16)[None, None, :, None]


@pytest.mark.parametrize(
    ("size", "new_size", "picked"), [(8, 4, [1, 3, 5, 7]), (8, 2, [2, 6]), (5, 2, [1, 3]), (5, 1, [2])]
)
def test_deep_supervision_picks_upstreams_voxels(size: int, new_size: int, picked: list[int]) -> None:
    transform = DownsampleSegForDSTransform([[1, 1], [new_size / size, 1]])
    full, small = transform.apply(Batch(torch.zeros(1), labels(list(range(size)))), [()]).segmentation
    assert full.flatten().tolist() == list(range(size))
    assert small.flatten().tolist() == picked and small.dtype == torch.int16


def test_sizes_round_half_to_even() -> None:
    transform = DownsampleSegForDSTransform([0.5, [0.25, 0.25]])
    segmentations = transform.apply(Batch(torch.zeros(1), torch.zeros(1, 1, 5, 10)), [()]).segmentation
    assert [tuple(level.shape[2:]) for level in segmentations] == [(2, 5), (1, 2)]


def test_regions_with_ignore_label() -> None:
    transform = ConvertSegmentationToRegionsTransform([(1, 2, 3), (2, 3), 3], 4)
    regions = transform.apply(Batch(torch.zeros(1), labels([0, 1, 2, 3, 4])), [()]).labels()
    expected = [[0, 1, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert regions[0, :, :, 0].int().tolist() == expected and regions.dtype == torch.bool


def test_mask_then_label_removal() -> None:
    batch = Batch(torch.ones(1, 3, 3, 1), labels([-1, 0, 2]))
    batch = RemoveLabelTransform(-1, 0).apply(MaskImageTransform([0, 2]).apply(batch, [()]), [()])
    assert batch.image[0, :, :, 0].tolist() == [[0, 1, 1], [1, 1, 1], [0, 1, 1]]
    assert batch.labels().flatten().tolist() == [0, 0, 2]


def test_mirroring() -> None:
    rng = np.random.default_rng(0)
    transform = MirrorTransform((0, 2))
    drawn = [transform.make_params(rng, SampleShape(1, (3, 4, 5))) for _ in range(4000)]
    for outcome in (None, [0], [2], [0, 2]):
        assert drawn.count(outcome) == pytest.approx(1000, abs=110)
    image = torch.randn(3, 2, 3, 4, 5)
    seg = torch.arange(180).view(3, 1, 3, 4, 5)
    result = transform.apply(Batch(image.clone(), seg.clone()), [[0], None, [0, 2]])
    assert torch.equal(result.image[0], image[0].flip(1)) and torch.equal(result.image[1], image[1])
    assert torch.equal(result.labels()[2], seg[2].flip(1, 3))
    alone = transform.apply(Batch(image[2:], seg[2:]), [[0, 2]])
    assert torch.equal(alone.image[0], result.image[2])
