"""Sizes, channels and labels at the limits of what may come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nnunet_lite.exceptions import ExtensionError
from nnunet_lite.training.data_augmentation.pipelines import get_heavy_training_transforms, get_training_transforms
from nnunet_lite.training.data_augmentation.spatial_transforms import SpatialTransform, rotation_matrix
from nnunet_lite.training.data_augmentation.transforms import Batch, ComposeTransforms, SampleShape

PATCHES = [(1, 1), (1, 9), (2, 3), (4, 1, 2), (3, 4, 4), (1, 16, 12), (2, 2, 2)]


def augmented(pipeline: Any, image: torch.Tensor, segmentation: torch.Tensor, seeds: int = 40) -> list[Batch]:
    """Many samples of one image."""
    results = []
    for seed in range(seeds):
        sample = pipeline(image=image, segmentation=segmentation, rng=np.random.default_rng(seed))
        assert bool(torch.isfinite(sample["image"]).all())
        results.append(Batch(sample["image"], sample["segmentation"]))
    return results


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("channels", [1, 12])
@pytest.mark.parametrize("make", [get_training_transforms, get_heavy_training_transforms])
def test_short_axes_and_many_channels(make: Any, channels: int, patch: tuple[int, ...]) -> None:
    axes = tuple(range(len(patch)))
    for dummy in {False, len(patch) == 3}:
        pipeline = make(patch, (-3.1, 3.1), None, axes, dummy, [True] * channels)
        initial = tuple(n + 2 for n in patch) if not dummy else (patch[0], patch[1] + 2, patch[2] + 1)
        image = torch.randn((channels, *initial), generator=torch.Generator().manual_seed(0))
        labels = torch.randint(-1, 3, (1, *initial), generator=torch.Generator().manual_seed(1)).short()
        for image_, segmentation in augmented(pipeline, image, labels, seeds=15):
            assert image_.shape == (channels, *patch) and image_.dtype == torch.float32
            assert segmentation.shape == (1, *patch) and segmentation.dtype == torch.int16
            assert int(segmentation.min()) >= 0 and int(segmentation.max()) <= 2


@pytest.mark.parametrize("make", [get_training_transforms, get_heavy_training_transforms])
@pytest.mark.parametrize("value", [0.0, 3.0, -1e6])
def test_constant_images(make: Any, value: float) -> None:
    pipeline = make((8, 9, 7), (-0.5, 0.5), None, (0, 1, 2), False)
    image = torch.full((2, 14, 14, 12), value)
    augmented(pipeline, image, torch.ones((1, 14, 14, 12), dtype=torch.int16))


def test_all_outside() -> None:
    pipeline = get_training_transforms((8, 8, 8), (-0.5, 0.5), [[1, 1, 1], [0.5, 0.5, 0.5]], (0, 1, 2), False, [True])
    labels = torch.full((1, 14, 14, 12), -1, dtype=torch.int16)
    for image, segmentation in augmented(pipeline, torch.randn(1, 14, 14, 12), labels):
        assert not image.any()
        assert all(not level.any() for level in segmentation)


def test_largest_labels_survive_rotation() -> None:
    labels = torch.zeros((1, 1, 20, 20), dtype=torch.int16)
    labels[..., 10:] = 32767
    labels[..., 12:, :] = 32766
    transform = SpatialTransform([12, 12])
    for angle in (0.1, 0.7, 2.0):
        result = transform.apply(Batch(labels.float(), labels), [rotation_matrix([0, angle])]).labels()
        assert set(result.unique().tolist()) <= {0, 32766, 32767}
        assert len(result.unique()) == 3


def test_regions_ignore_label_and_previous_stage_at_once() -> None:
    pipeline = get_training_transforms(
        (8, 10, 8), (-0.5, 0.5), [[1, 1, 1], [0.5, 0.5, 0.5]], (0, 1, 2), False, [True, False], True, [1, 2],
        [(1, 2), 2], 3,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((2, 14, 16, 12), generator=generator)
    labels = torch.randint(-1, 4, (2, 14, 16, 12), generator=generator).short()
    labels[1].clamp_(max=2)
    for result, levels in augmented(pipeline, image, labels):
        assert result.shape == (4, 8, 10, 8)
        assert set(result[2:].unique().tolist()) <= {0, 1}
        assert int(result[2:].sum(0).max()) <= 1  # labels exclude each other
        assert [tuple(level.shape) for level in levels] == [(3, 8, 10, 8), (3, 4, 5, 4)]
        assert bool((levels[0][1] <= levels[0][0]).all()) and not bool((levels[0][2] & levels[0][0]).any())


def test_two_labels_or_several_compete_alike() -> None:
    """Voxels where two labels meet take a way of their own; compared with every label interpolated by itself."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(-1, 5, (1, 1, 9, 9, 9), generator=generator).float()
    labels = torch.nn.functional.interpolate(coarse, (36, 36, 36))[0].short()
    matrix = rotation_matrix([0.3, -0.2, 0.4]) * 0.9
    transform = SpatialTransform([24, 24, 24])
    params = [matrix]
    result = transform.apply(Batch(labels[None].float(), labels[None]), params).labels()[0, 0]
    shares = []
    for label in range(-1, 5):
        one = (labels == label).float()[None]
        outside = transform.apply(Batch(torch.ones_like(one), labels[None]), params).image[0, 0]
        share = transform.apply(Batch(one, labels[None]), params).image[0, 0]
        shares.append(share + (1 - outside) * (label == -1))
    best = torch.stack(shares).sort(0, descending=True)
    clear = best.values[0] - best.values[1] > 2e-3
    assert float(clear.float().mean()) > 0.98
    assert torch.equal(result[clear], (best.indices[0] - 1).short()[clear])


def test_a_batch_with_every_kind_of_sample() -> None:
    pipeline = get_training_transforms((6, 16, 14), (-3.1, 3.1), None, (0, 1, 2), True)
    rng = np.random.default_rng(2)
    shape = (6, 24, 24)
    images = torch.randn((12, 2, *shape), generator=torch.Generator().manual_seed(0))
    labels = torch.randint(-1, 3, (12, 1, *shape), generator=torch.Generator().manual_seed(0)).short()
    params = [pipeline.make_params(rng, SampleShape(2, shape)) for _ in range(12)]
    assert {one[0] is None for one in params} == {True, False}
    together = pipeline.apply(Batch(images.clone(), labels.clone()), params)
    for b in range(12):
        alone = pipeline.apply(Batch(images[b : b + 1].clone(), labels[b : b + 1].clone()), params[b : b + 1])
        torch.testing.assert_close(alone.image[0], together.image[b])
        assert torch.equal(alone.labels()[0], together.labels()[b])


def _image_only(image: Any, segmentation: Any) -> Any:
    return image


def _half(image: Any, segmentation: Any) -> Any:
    return {"image": image}


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (_image_only, "the transform _image_only returned a Tensor, expected a dictionary with image, segmentation"),
        (_half, "the transform _half returned a dictionary of image, expected a dictionary with image, segmentation"),
        (lambda image, segmentation: None, "returned None, expected"),
    ],
)
def test_a_users_transform_that_returns_something_else(transform: Any, words: str) -> None:
    batch = Batch(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ExtensionError, match=words):
        ComposeTransforms([transform]).apply(batch, [[1]])
