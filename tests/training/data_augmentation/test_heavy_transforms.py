"""The transforms of the heavy augmentation, spec 02, 8.3."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter

from nnunet_lite.training.data_augmentation.heavy_transforms import (
    BlankRectangleTransform,
    BrightnessAdditiveTransform,
    BrightnessGradientAdditiveTransform,
    LocalGammaTransform,
    MedianFilterTransform,
    OneOfTransform,
    Rot90Transform,
    SharpeningTransform,
    TransposeAxesTransform,
    equal_axes,
)
from nnunet_lite.training.data_augmentation.intensity_transforms import ChannelParams, IntensityTransform
from nnunet_lite.training.data_augmentation.pipelines import get_heavy_training_transforms
from nnunet_lite.training.data_augmentation.transforms import Batch, SampleShape, Transform

RNG = np.random.default_rng


def _apply(transform: IntensityTransform, image: torch.Tensor, drawn: tuple[float, ...]) -> torch.Tensor:
    """One image of one channel, (*spatial) in and out."""
    batch = transform.apply(Batch(image[None, None].clone(), torch.zeros(1)), [ChannelParams([0], [drawn])])
    return batch.image[0, 0]


@pytest.mark.parametrize(
    ("patch", "axes"),
    [((32, 32, 32), [0, 1, 2]), ((20, 320, 320), [1, 2]), ((64, 64, 96), [0, 1]), ((10, 20, 30), []), ((56, 40), [])],
)
def test_equal_axes(patch: tuple[int, ...], axes: list[int]) -> None:
    assert equal_axes(patch) == axes


@pytest.mark.parametrize("transform", [Rot90Transform((0, 2)), TransposeAxesTransform((0, 2))])
def test_axes_are_moved_in_image_and_labels_alike(transform: Transform) -> None:
    image = torch.arange(3 * 2 * 3.0).view(1, 1, 3, 2, 3)
    seen = set()
    for seed in range(30):
        params = transform.make_params(RNG(seed), SampleShape(1, (3, 2, 3)))
        batch = transform.apply(Batch(image, image.to(torch.int16)), [params])
        assert (batch.image == batch.labels()).all()
        assert sorted(batch.image.flatten().tolist()) == sorted(image.flatten().tolist())
        assert batch.image[0, 0, 1, :, 1].tolist() == image[0, 0, 1, :, 1].tolist()  # the centre line stays
        seen.add(tuple(batch.image.flatten().tolist()))
    assert len(seen) == (4 if isinstance(transform, Rot90Transform) else 2)
    untouched = transform.apply(Batch(image, image.to(torch.int16)), [None])
    assert (untouched.image == image).all()


def test_one_of() -> None:
    first, second = BrightnessAdditiveTransform(10, 0, 1), BrightnessAdditiveTransform(20, 0, 1)
    one = OneOfTransform([first, second])
    params = [one.make_params(RNG(seed), SampleShape(1, (2, 2))) for seed in range(2000)]
    image = one.apply(Batch(torch.zeros(2000, 1, 2, 2), torch.zeros(1)), params).image
    assert set(image.flatten().tolist()) == {10, 20}
    assert float((image == 10).float().mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("size", [2, 5, 7])
def test_median_filter(size: int) -> None:
    image = torch.rand((9, 8, 7), generator=torch.Generator().manual_seed(0))
    expected = median_filter(image.numpy(), size)
    assert np.array_equal(_apply(MedianFilterTransform(), image, (size,)).numpy(), expected)
    drawn = {MedianFilterTransform().draw(RNG(seed), SampleShape(1, (4, 4)))[0] for seed in range(200)}
    assert drawn == {2, 3, 4, 5, 6, 7}


def test_sharpening() -> None:
    """As upstream: the centre of an impulse rises by 6 s, its neighbours fall by s."""
    impulse = torch.zeros(5, 5, 5)
    impulse[2, 2, 2] = 1
    sharp = _apply(SharpeningTransform(), impulse, (0.5,))
    assert float(sharp[2, 2, 2]) == 4
    assert float(sharp[2, 2, 3]) == float(sharp[1, 2, 2]) == -0.5
    assert float(sharp.sum()) == pytest.approx(1)
    flat = _apply(SharpeningTransform(), torch.full((4, 1), 3.0), (1,))
    assert (flat == 3).all()


def test_blank_rectangles() -> None:
    image = torch.rand((30, 40), generator=torch.Generator().manual_seed(0))
    result = _apply(BlankRectangleTransform(), image, (3, 5, 10, 8))
    box = (slice(3, 8), slice(10, 18))
    assert torch.allclose(result[box], image[box].mean().expand(5, 8))
    result[box] = image[box]
    assert (result == image).all()
    for seed in range(200):
        numbers = np.array(BlankRectangleTransform().draw(RNG(seed), SampleShape(1, (30, 40)))).reshape(-1, 2, 2)
        assert 1 <= len(numbers) <= 4
        starts, sizes = numbers[..., 0], numbers[..., 1]
        assert ((sizes >= (3, 4)) & (sizes < (10, 13))).all()
        assert ((starts >= 0) & (starts + sizes <= (30, 40))).all()


def test_brightness_gradient() -> None:
    drawn = (10.0, 4.0, 20.0, -8.0, 3.0)  # scale and centre per axis, strength
    result = _apply(BrightnessGradientAdditiveTransform(), torch.zeros(16, 12), drawn)
    expected = np.exp(-0.5 * ((np.arange(16)[:, None] - 4) / 10) ** 2 - 0.5 * ((np.arange(12) + 8) / 20) ** 2)
    expected = (expected - expected.min()) / np.ptp(expected)  # as upstream: 0 where it is lowest
    assert np.allclose(result.numpy(), 3 * expected, atol=1e-5)
    strengths = [BrightnessGradientAdditiveTransform().strength(RNG(seed)) for seed in range(500)]
    assert all(1 <= abs(strength) <= 5 for strength in strengths)
    assert np.mean([strength > 0 for strength in strengths]) == pytest.approx(0.5, abs=0.08)


def test_local_gamma_keeps_the_range() -> None:
    image = torch.linspace(2, 6, 64).view(8, 8)
    result = _apply(LocalGammaTransform(), image, (4.0, 1.0, 1e6, 4.0, 2.0))
    blob = torch.exp(-0.5 * ((torch.arange(8) - 1) / 4) ** 2)[:, None]
    blob = (blob - blob.min()) / (blob.max() - blob.min())
    scaled = (image - 2) / 4
    assert torch.allclose(result, torch.lerp(scaled, scaled**2, blob) * 4 + 2, atol=1e-4)
    local = _apply(LocalGammaTransform(), image, (1.0, 0.0, 1.0, 0.0, 2.0))
    assert torch.allclose(local[6:], image[6:], atol=1e-4)
    assert torch.isfinite(_apply(LocalGammaTransform(), torch.ones(4, 4), (1.0, 0.0, 1.0, 0.0, 0.5))).all()


@pytest.mark.parametrize("patch", [(4, 32, 32), (2, 3, 4), (5, 5)])
def test_small_patches_work(patch: tuple[int, ...]) -> None:
    """Upstream fails where an edge is below 6."""
    pipeline = get_heavy_training_transforms(patch, (-0.5, 0.5), None, range(len(patch)), False)
    for seed in range(40):
        image = torch.rand(2, *patch)
        sample = pipeline(image=image, segmentation=torch.ones(1, *patch, dtype=torch.int16), rng=RNG(seed))
        assert sample["image"].shape == image.shape
        assert torch.isfinite(sample["image"]).all()


def test_rotation_and_zoom_per_axis() -> None:
    spatial = get_heavy_training_transforms((16, 16, 16), (-0.5, 0.5), None, None, False).transforms[0]
    matrices = [spatial.make_params(RNG(seed), SampleShape(1, (16, 16, 16))) for seed in range(2000)]
    moved = [matrix for matrix in matrices if matrix is not None]
    assert len(moved) / len(matrices) == pytest.approx(1 - 0.6 * 0.8, abs=0.03)
    factors = np.array([np.linalg.norm(matrix, axis=0) for matrix in moved])
    zoomed = factors[np.ptp(factors, axis=1) > 1e-6]
    assert len(zoomed) / len(matrices) == pytest.approx(0.2, abs=0.03)
    assert zoomed.min() >= 0.7
    assert zoomed.max() <= 1.43
    pure = [matrix for matrix in moved if np.allclose(np.linalg.norm(matrix, axis=0), 1)]
    about_one_axis = np.mean([sum(abs(matrix[i, i] - 1) < 1e-12 for i in range(3)) == 1 for matrix in pure])
    assert about_one_axis == pytest.approx(3 / 8, abs=0.06)
