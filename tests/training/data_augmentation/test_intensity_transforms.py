"""Golden numbers of spec 02, 4.5, and the distributions of 4.3."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_lite.training.data_augmentation.intensity_transforms import (
    ChannelParams,
    ContrastTransform,
    GammaTransform,
    GaussianBlurTransform,
    GaussianNoiseTransform,
    IntensityTransform,
    MultiplicativeBrightnessTransform,
    SimulateLowResolutionTransform,
    gaussian_weights,
    split_factor,
)
from nnunet_lite.training.data_augmentation.transforms import Batch, SampleShape


def apply(transform: IntensityTransform, values: list[float], drawn: tuple[float, ...]) -> list[float]:
    image = torch.tensor(values, dtype=torch.float32)[None, None, :, None]
    batch = transform.apply(Batch(image, torch.zeros(1)), [ChannelParams([0], [drawn])])
    return [float(value) for value in batch.image[0, 0, :, 0]]


def test_split_factor() -> None:
    legacy = np.random.RandomState(0)
    drawn = [split_factor(legacy, 0.75, 1.25) for _ in range(4)]
    assert drawn == pytest.approx([1.178797, 1.136221, 0.911474, 0.972943], abs=1e-6)
    rng = np.random.default_rng(0)
    assert np.mean([split_factor(rng, 0.7, 1.5) for _ in range(20000)]) == pytest.approx(1.05, abs=0.01)
    assert min(split_factor(rng, 1.2, 1.5) for _ in range(100)) >= 1.2


@pytest.mark.parametrize(
    ("sigma", "weights"),
    [
        (0.5, [0.78698599, 0.10650697]),
        (1, [0.39905027, 0.24203622, 0.05400558, 0.00443305]),
        (0.75, [0.5320973, 0.2187517, 0.0151996]),
    ],
)
def test_blur_weights(sigma: float, weights: list[float]) -> None:
    assert gaussian_weights(sigma) == pytest.approx(weights, abs=1e-7)


def test_blur_kernel_lengths() -> None:
    lengths = [2 * len(gaussian_weights(sigma)) - 1 for sigma in (0.58, 0.59, 0.91, 0.92)]
    assert lengths == [3, 5, 5, 7]


def test_blur_mirrors_at_the_border() -> None:
    image = torch.arange(5.0)[None, None, :, None]
    result = GaussianBlurTransform().apply(Batch(image, torch.zeros(1)), [ChannelParams([0], [(0.75, 1.0)])])
    expected = [0.498302, 1.030399, 2, 2.969601, 3.501698]
    assert result.image.flatten().tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("factor", "expected"), [(1.5, [0, 0.625, 2.125, 4]), (0.5, [0.875, 1.375, 1.875, 2.875])])
def test_contrast(factor: float, expected: list[float]) -> None:
    assert apply(ContrastTransform(), [0, 1, 2, 4], (factor,)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ((1, 1, 2), [0.532685, 0.764555, 1.460163, 4.242597]),
        ((1, 0, 2), [0, 0.25, 1, 4]),
        ((-1, 1, 2), [-0.416327, 1.316735, 2.554636, 3.544956]),
    ],
)
def test_gamma(drawn: tuple[float, ...], expected: list[float]) -> None:
    assert apply(GammaTransform(), [0, 1, 2, 4], drawn) == pytest.approx(expected, abs=1e-5)


def test_constant_channels_stay_finite() -> None:
    assert apply(GammaTransform(), [3, 3, 3], (-1, 1, 0.7)) == pytest.approx([3, 3, 3], abs=1e-4)


def test_low_resolution() -> None:
    transform = SimulateLowResolutionTransform(ignore_axes=(1,))
    result = apply(transform, [float(i) for i in range(8)], (0.5,))
    assert result == pytest.approx([1, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7])


def test_low_resolution_equals_torch_interpolation() -> None:
    image = torch.randn(1, 1, 9, 12, 7)
    small = torch.nn.functional.interpolate(image, size=[round(n * 0.63) for n in (9, 12, 7)], mode="nearest-exact")
    expected = torch.nn.functional.interpolate(small, size=(9, 12, 7), mode="trilinear")
    params = [ChannelParams([0], [(0.63,)])]
    result = SimulateLowResolutionTransform().apply(Batch(image.clone(), torch.zeros(1)), params)
    torch.testing.assert_close(result.image, expected, atol=1e-5, rtol=0)


def test_noise_is_a_standard_deviation_shared_by_the_channels() -> None:
    params = GaussianNoiseTransform((0.1, 0.1)).make_params(np.random.default_rng(1), SampleShape(2, (40, 40, 40)))
    assert params.values[0][0] == params.values[1][0] == pytest.approx(0.1)
    noise = GaussianNoiseTransform().apply(Batch(torch.zeros(1, 2, 40, 40, 40), torch.zeros(1)), [params]).image
    assert noise.std(dim=(2, 3, 4)).flatten().tolist() == pytest.approx([0.1, 0.1], rel=0.02)
    assert not torch.equal(noise[0, 0], noise[0, 1])


@pytest.mark.parametrize(
    "transform",
    [
        GaussianNoiseTransform(),
        GaussianBlurTransform(),
        MultiplicativeBrightnessTransform(),
        ContrastTransform(),
        SimulateLowResolutionTransform(),
        GammaTransform(p_invert_image=1),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_a_batch_is_treated_as_its_samples(transform: IntensityTransform) -> None:
    rng = np.random.default_rng(3)
    images = torch.randn(3, 2, 8, 9, 10)
    params = [transform.make_params(rng, SampleShape(2, (8, 9, 10))), None]
    params.append(transform.make_params(rng, SampleShape(2, (8, 9, 10))))
    together = transform.apply(Batch(images.clone(), torch.zeros(1)), params).image
    for b in range(3):
        alone = transform.apply(Batch(images[b : b + 1].clone(), torch.zeros(1)), params[b : b + 1]).image[0]
        torch.testing.assert_close(together[b], alone)
    assert torch.equal(together[1], images[1])
    assert not torch.equal(together, images)
