"""What is drawn, against the rates and ranges of spec 02, 4.3 and 8.3; the seeds are fixed, so are the outcomes.

benchmarks/parity_augmentation.py compares the same with upstream itself.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import numpy as np
import pytest
from scipy import stats

from nnunet_lite.training.data_augmentation.heavy_transforms import OneOfTransform
from nnunet_lite.training.data_augmentation.pipelines import get_heavy_training_transforms, get_training_transforms
from nnunet_lite.training.data_augmentation.transforms import RandomTransform, SampleShape

N = 6000
SHAPE = SampleShape(3, (24, 30, 28))
ROWS = ("spatial", "noise", "blur", "brightness", "contrast", "low resolution", "inverted gamma", "gamma", "mirror")
Draw = Callable[[Any], float]


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Any]]:
    """What every row of the default 3D pipeline drew for each sample; None where it is not applied."""
    pipeline = get_training_transforms((16, 20, 18), (-pi / 6, pi / 6), None, (0, 1, 2), False)
    rng = np.random.default_rng(11)
    samples = [pipeline.make_params(rng, SHAPE) for _ in range(N)]
    return {name: [sample[row] for sample in samples] for row, name in enumerate(ROWS)}


def is_rate(hits: int, trials: int, expected: float) -> bool:
    return abs(hits / trials - expected) < 4 * sqrt(expected * (1 - expected) / trials)


def is_uniform(values: Any, low: float, high: float) -> bool:
    assert low <= min(values) and max(values) <= high
    return bool(stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3)


def is_split(values: Any, low: float, high: float) -> bool:
    """Half of the values below 1, uniform on either side."""
    below, above = [v for v in values if v < 1], [v for v in values if v >= 1]
    return is_rate(len(below), len(values), 0.5) and is_uniform(below, low, 1) and is_uniform(above, 1, high)


RATES = [0.36, 0.1, 0.2 * (1 - 0.5**3), 0.15, 0.15, 0.25 * (1 - 0.5**3), 0.1, 0.3, 1 - 0.5**3]


@pytest.mark.parametrize(("name", "rate"), list(zip(ROWS, RATES, strict=True)))
def test_rates(drawn: dict[str, list[Any]], name: str, rate: float) -> None:
    assert is_rate(sum(params is not None for params in drawn[name]), N, rate)


def test_rows_do_not_depend_on_each_other(drawn: dict[str, list[Any]]) -> None:
    applied = np.array([[params is not None for params in drawn[name]] for name in ROWS], dtype=float)
    between_rows = np.corrcoef(applied) - np.eye(len(ROWS))
    assert np.abs(between_rows).max() < 4.5 / sqrt(N)
    with_the_next = [np.corrcoef(row[:-1], row[1:])[0, 1] for row in applied]
    assert np.abs(with_the_next).max() < 4.5 / sqrt(N)


def test_rotation_and_zoom(drawn: dict[str, list[Any]]) -> None:
    matrices = np.array([matrix for matrix in drawn["spatial"] if matrix is not None])
    factors = np.cbrt(np.linalg.det(matrices))
    turned = matrices / factors[:, None, None]
    rotated = np.abs(turned - np.eye(3)).max((1, 2)) > 1e-9
    zoomed = np.abs(factors - 1) > 1e-9
    for kind in (rotated, zoomed):
        assert is_rate(int(kind.sum()), N, 0.2)
    assert is_rate(int((rotated & zoomed).sum()), N, 0.04)
    assert is_uniform(factors[zoomed], 0.7, 1.4)
    turned = turned[rotated]
    angles = (
        np.arctan2(turned[:, 2, 1], turned[:, 2, 2]),
        -np.arcsin(turned[:, 2, 0]),
        np.arctan2(turned[:, 1, 0], turned[:, 0, 0]),
    )
    for angle in angles:
        assert is_uniform(angle, -pi / 6 - 1e-9, pi / 6 + 1e-9)
    assert np.abs(np.corrcoef(angles) - np.eye(3)).max() < 4.5 / sqrt(len(turned))


def columns(params: list[Any]) -> list[dict[int, tuple[float, ...]]]:
    """Per sample what was drawn for each chosen channel."""
    return [dict(zip(one.channels, one.values, strict=True)) for one in params if one is not None]


def test_noise_has_one_deviation_but_values_per_channel(drawn: dict[str, list[Any]]) -> None:
    samples = columns(drawn["noise"])
    assert all(set(sample) == {0, 1, 2} for sample in samples)
    assert is_uniform([sample[0][0] for sample in samples], 0, 0.1)
    assert all(sample[0][0] == sample[1][0] == sample[2][0] for sample in samples)
    seeds = [sample[channel][1] for sample in samples for channel in range(3)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("name", ["blur", "low resolution"])
def test_channels_are_chosen_by_themselves(drawn: dict[str, list[Any]], name: str) -> None:
    samples = columns(drawn[name])
    patterns = np.bincount([sum(2**channel for channel in sample) for sample in samples], minlength=8)[1:]
    assert stats.chisquare(patterns).pvalue > 1e-3


def test_blur_and_low_resolution_ranges(drawn: dict[str, list[Any]]) -> None:
    sigmas = [sigma for sample in columns(drawn["blur"]) for sigma in sample.values()]
    for axis in range(3):
        assert is_uniform([sigma[axis] for sigma in sigmas], 0.5, 1)
    assert np.abs(np.corrcoef(np.array(sigmas).T) - np.eye(3)).max() < 4.5 / sqrt(len(sigmas))
    scales = [scale for sample in columns(drawn["low resolution"]) for scale in sample.values()]
    assert {len(scale) for scale in scales} == {1}  # one for all axes
    assert is_uniform([scale[0] for scale in scales], 0.5, 1)


@pytest.mark.parametrize(
    ("name", "position", "low", "high"),
    [
        ("brightness", 0, 0.75, 1.25),
        ("contrast", 0, 0.75, 1.25),
        ("inverted gamma", 2, 0.7, 1.5),
        ("gamma", 2, 0.7, 1.5),
    ],
)
def test_factors_per_channel(drawn: dict[str, list[Any]], name: str, position: int, low: float, high: float) -> None:
    samples = columns(drawn[name])
    assert all(set(sample) == {0, 1, 2} for sample in samples)
    factors = np.array([[sample[channel][position] for channel in range(3)] for sample in samples])
    for channel in range(3):
        assert is_split(factors[:, channel], low, high)
    assert np.abs(np.corrcoef(factors.T) - np.eye(3)).max() < 4.5 / sqrt(len(samples))


def test_gamma_keeps_statistics_and_inverts_once(drawn: dict[str, list[Any]]) -> None:
    for name, sign in (("inverted gamma", -1.0), ("gamma", 1.0)):
        values = [value for sample in columns(drawn[name]) for value in sample.values()]
        assert {value[:2] for value in values} == {(sign, 1.0)}


def test_mirroring(drawn: dict[str, list[Any]]) -> None:
    patterns = np.bincount([sum(2**axis for axis in axes or ()) for axes in drawn["mirror"]], minlength=8)
    assert stats.chisquare(patterns).pvalue > 1e-3


def test_dummy_2d_and_2d_turn_in_the_plane_by_any_angle() -> None:
    for patch, dummy in (((6, 20, 18), True), ((20, 18), False)):
        spatial = get_training_transforms(patch, (-pi, pi), None, None, dummy).transforms[0]
        rng = np.random.default_rng(3)
        matrices = [spatial.make_params(rng, SampleShape(1, patch)) for _ in range(3000)]
        turned = np.array([matrix for matrix in matrices if matrix is not None and abs(matrix[0, 1]) > 1e-9])
        assert turned.shape[1:] == (2, 2)
        assert is_rate(len(turned), 3000, 0.2)
        assert is_uniform(np.arctan2(turned[:, 1, 0], turned[:, 0, 0]), -pi, pi)


HEAVY_RATES = {
    "OneOf": (0.2 + 0.2) / 2 * (1 - 0.5**3),
    "GaussianNoise": 0.1,
    "BrightnessAdditive": 0.1 * (1 - 0.5**3),
    "SimulateLowResolution": 0.15 * (1 - 0.5**3),
    "Gamma": 0.1,
    "Mirror": 0.75,
    "BlankRectangle": 0.4 * (1 - 0.5**3),
    "BrightnessGradientAdditive": 0.3 * (1 - 0.5**3),
    "LocalGamma": 0.3 * (1 - 0.5**3),
    "Sharpening": 0.2 * (1 - 0.5**3),
}


def test_rates_of_the_heavy_pipeline() -> None:
    pipeline = get_heavy_training_transforms((20, 24), (-pi, pi), None, (0, 1), False)
    rng = np.random.default_rng(4)
    samples = [pipeline.make_params(rng, SampleShape(3, (40, 40))) for _ in range(4000)]
    for row, transform in enumerate(pipeline.transforms[1:-1], 1):
        inner = transform.transform if isinstance(transform, RandomTransform) else transform
        params = [sample[row] for sample in samples]
        applied = [one[1] if isinstance(transform, OneOfTransform) else one for one in params]
        hits = sum(one is not None for one in applied)
        assert is_rate(hits, 4000, HEAVY_RATES[type(inner).__name__.removesuffix("Transform")]), inner
