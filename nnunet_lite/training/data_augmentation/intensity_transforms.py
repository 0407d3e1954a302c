"""Noise, blur, brightness, contrast, low resolution and gamma, with the distributions of spec 02, 4.3 and 4.5."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from nnunet_lite.training.data_augmentation.transforms import Batch, Params, SampleShape, Transform

_TINY = 1e-7  # keeps divisions by the range or deviation of a constant channel finite


class ChannelParams(NamedTuple):
    """Channels of one sample to be changed, and what was drawn for each."""

    channels: list[int]
    values: list[tuple[float, ...]]


def split_factor(rng: Generator, low: float, high: float) -> float:
    """A factor that is below and above 1 equally often, if the range holds both; uniform within either side."""
    if low < 1 and rng.uniform() < 0.5:
        return float(rng.uniform(low, 1))
    return float(rng.uniform(max(low, 1), high))


class IntensityTransform(Transform):
    """Changes each chosen channel by itself; what is drawn for a channel does not depend on its voxels."""

    def __init__(self, p_per_channel: float = 1) -> None:
        self.p_per_channel = p_per_channel

    def make_params(self, rng: Generator, shape: SampleShape) -> Params:
        chosen = [channel for channel in range(shape.channels) if rng.uniform() < self.p_per_channel]
        return ChannelParams(chosen, [self.draw(rng, shape) for _ in chosen]) if chosen else None

    @abstractmethod
    def draw(self, rng: Generator, shape: SampleShape) -> tuple[float, ...]:
        """Everything random for one channel."""

    @abstractmethod
    def compute(self, channels: Tensor, values: list[tuple[float, ...]]) -> Tensor:
        """New values of channels (N, *spatial), given what was drawn for each; may work in place."""

    def apply(self, batch: Batch, params: Sequence[Params]) -> Batch:
        image = batch.image
        where = [b * image.shape[1] + c for b, drawn in enumerate(params) if drawn is not None for c in drawn.channels]
        values = [value for drawn in params if drawn is not None for value in drawn.values]
        if not where:
            return batch
        image = image.contiguous()
        flat = image.flatten(0, 1)
        if len(where) == len(flat):
            return batch._replace(image=self.compute(flat, values).view(image.shape))
        index = torch.tensor(where, device=flat.device)
        flat[index] = self.compute(flat[index], values)
        return batch._replace(image=image)


def _column(values: list[tuple[float, ...]], position: int, like: Tensor) -> Tensor:
    """One drawn number per channel, shaped to broadcast over (N, *spatial)."""
    numbers = torch.tensor([value[position] for value in values], dtype=like.dtype, device=like.device)
    return numbers.view(-1, *[1] * (like.ndim - 1))


def _axes(channels: Tensor) -> tuple[int, ...]:
    return tuple(range(1, channels.ndim))


def _mean_and_deviation(channels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation per channel; in two passes, five times faster than torch.std_mean."""
    axes = _axes(channels)
    mean = channels.mean(axes, keepdim=True)
    length = torch.linalg.vector_norm(channels - mean, dim=axes, keepdim=True)
    return mean, length / max(1, channels[0].numel() - 1) ** 0.5


class GaussianNoiseTransform(IntensityTransform):
    """Adds noise of one standard deviation to all channels of a sample, with values of its own in each channel.

    Args:
        noise_variance: range the standard deviation is drawn from (upstream calls it a variance).
    """

    def __init__(self, noise_variance: tuple[float, float] = (0, 0.1)) -> None:
        super().__init__()
        self.noise_variance = noise_variance

    def make_params(self, rng: Generator, shape: SampleShape) -> Params:
        sigma = float(rng.uniform(*self.noise_variance))
        seeds = [int(rng.integers(2**53)) for _ in range(shape.channels)]
        return ChannelParams(list(range(shape.channels)), [(sigma, seed) for seed in seeds])

    def draw(self, rng: Generator, shape: SampleShape) -> tuple[float, ...]:
        return float(rng.uniform(*self.noise_variance)), float(rng.integers(2**53))

    def compute(self, channels: Tensor, values: list[tuple[float, ...]]) -> Tensor:
        for channel, (sigma, seed) in zip(channels, values, strict=True):
            generator = torch.Generator(device=channels.device).manual_seed(int(seed))
            noise = torch.randn(channel.shape, generator=generator, device=channels.device, dtype=channels.dtype)
            channel.add_(noise, alpha=sigma)
        return channels


class GaussianBlurTransform(IntensityTransform):
    """Blurs with a truncated Gaussian whose sigma (voxels) is drawn anew for every channel and axis.

    Args:
        blur_sigma: range of sigma.
        p_per_channel: probability of each channel to be changed.
        synchronize_axes: one sigma for all axes of a channel.
    """

    def __init__(
        self,
        blur_sigma: tuple[float, float] = (0.5, 1.0),
        p_per_channel: float = 0.5,
        synchronize_axes: bool = False,
    ) -> None:
        super().__init__(p_per_channel)
        self.blur_sigma = blur_sigma
        self.synchronize_axes = synchronize_axes

    def draw(self, rng: Generator, shape: SampleShape) -> tuple[float, ...]:
        if self.synchronize_axes:
            return (float(rng.uniform(*self.blur_sigma)),) * len(shape.spatial)
        return tuple(float(rng.uniform(*self.blur_sigma)) for _ in shape.spatial)

    def compute(self, channels: Tensor, values: list[tuple[float, ...]]) -> Tensor:
        for i, sigmas in enumerate(values):
            blurred = channels[i]
            for axis, sigma in enumerate(sigmas):
                blurred = _correlate_symmetric(blurred, axis, gaussian_weights(sigma))
            channels[i] = blurred
        return channels


def gaussian_weights(sigma: float) -> list[float]:
    """Centre and one side of upstream's truncated, normalised Gaussian.

    The length is the odd number nearest to 6 sigma + 0.5; at an even rounding the side of the unrounded value decides.
    """
    width = 6 * sigma + 0.5
    length = round(width)
    if length % 2 == 0:
        length += 1 if width > length else -1
    weights = np.exp(-0.5 * (np.arange(length // 2 + 1) / sigma) ** 2)
    return [float(weight) for weight in weights / (2 * weights.sum() - weights[0])]


def _correlate_symmetric(values: Tensor, axis: int, weights: list[float]) -> Tensor:
    """Weighted sum of the neighbours along one axis; the image is mirrored at its outermost voxels.

    Short axes are mirrored as often as needed, so any size works (upstream fails below four voxels).
    """
    radius, size = len(weights) - 1, values.shape[axis]
    if radius == 0 or size == 1:
        return values
    padded = values.index_select(axis, _mirrored(size, radius, values.device))
    result = padded.narrow(axis, radius, size) * weights[0]
    for distance, weight in enumerate(weights[1:], 1):
        result.add_(padded.narrow(axis, radius - distance, size), alpha=weight)
        result.add_(padded.narrow(axis, radius + distance, size), alpha=weight)
    return result


@lru_cache(maxsize=1024)
def _mirrored(size: int, radius: int, device: torch.device) -> Tensor:
    """Source index of every voxel of an axis that is mirrored at both ends."""
    positions = np.arange(-radius, size + radius) % (2 * (size - 1))
    return torch.from_numpy(np.minimum(positions, 2 * (size - 1) - positions)).to(device)


class MultiplicativeBrightnessTransform(IntensityTransform):
    """Multiplies each channel by a factor of its own."""

    def __init__(self, multiplier_range: tuple[float, float] = (0.75, 1.25)) -> None:
        super().__init__()
        self.multiplier_range = multiplier_range

    def draw(self, rng: Generator, shape: SampleShape) -> tuple[float, ...]:
        return (split_factor(rng, *self.multiplier_range),)

    def compute(self, channels: Tensor, values: list[tuple[float, ...]]) -> Tensor:
        return channels.mul_(_column(values, 0, channels))


class ContrastTransform(IntensityTransform):
    """Stretches each channel about its mean.

    Args:
        contrast_range: range of the factor.
        p_per_channel: probability of each channel to be changed.
        preserve_range: clip to the range the channel had.
    """

    def __init__(
        self,
        contrast_range: tuple[float, float] = (0.75, 1.25),
        p_per_channel: float = 1,
        preserve_range: bool = True,
    ) -> None:
        super().__init__(p_per_channel)
        self.contrast_range = contrast_range
        self.preserve_range = preserve_range

    def draw(self, rng: Generator, shape: SampleShape) -> tuple[float, ...]:
        return (split_factor(rng, *self.contrast_range),)

    def compute(self, channels: Tensor, values: list[tuple[float, ...]]) -> Tensor:
        mean = channels.mean(_axes(channels), keepdim=True)
        low, high = channels.amin(_axes(channels), keepdim=True), channels.amax(_axes(channels), keepdim=True)
        channels.sub_(mean).mul_(_column(values, 0, channels)).add_(mean)
        if not self.preserve_range:
            return channels
        return torch.minimum(torch.maximum(channels, low, out=channels), high, out=channels)


class SimulateLowResolutionTransform(IntensityTransform):
    """Picks voxels at a coarser grid and interpolates linearly back; one scale per channel for all axes.

    Args:
        scale: range of the coarse grid's size relative to the patch.
        ignore_axes: spatial axes that stay as they are.
        p_per_channel: probability of each channel to be changed.
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.5, 1.0),
        ignore_axes: tuple[int, ...] = (),
        p_per_channel: float = 0.5,
    ) -> None:
        super().__init__(p_per_channel)
        self.scale = scale
        self.ignore_axes = tuple(ignore_axes)

    def draw(self, rng: Generator, shape: SampleShape) -> tuple[float, ...]:
        return (float(rng.uniform(*self.scale)),)

    def compute(self, channels: Tensor, values: list[tuple[float, ...]]) -> Tensor:
        for i, (scale,) in enumerate(values):
            coarse = channels[i]
            for axis, size in enumerate(channels.shape[1:]):
                if axis not in self.ignore_axes:
                    coarse = coarse.index_select(axis, nearest_exact(size, max(1, round(size * scale)), coarse.device))
            for axis, size in enumerate(channels.shape[1:]):
                coarse = _upsample_linear(coarse, axis, size)
            channels[i] = coarse
        return channels


@lru_cache(maxsize=1024)
def nearest_exact(size: int, new_size: int, device: torch.device) -> Tensor:
    """Source index of every voxel when an axis is resized by nearest neighbour between voxel centres."""
    index = np.floor((np.arange(new_size) + 0.5) * (size / new_size)).astype(np.int64)
    return torch.from_numpy(np.minimum(index, size - 1)).to(device)


@lru_cache(maxsize=1024)
def _between_centres(size: int, new_size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of both neighbours of every voxel of a resized axis, and the weight of the second."""
    position = ((np.arange(new_size) + 0.5) * (size / new_size) - 0.5).clip(0, size - 1)
    lower = np.floor(position).astype(np.int64)
    weight = (position - lower).astype(np.float32)
    low, high, share = (torch.from_numpy(part) for part in (lower, np.minimum(lower + 1, size - 1), weight))
    return low.to(device), high.to(device), share.to(device)


def _upsample_linear(values: Tensor, axis: int, new_size: int) -> Tensor:
    """Resize one axis linearly between voxel centres (corners not aligned), constant beyond the outermost centres."""
    size = values.shape[axis]
    if size == new_size:
        return values
    low, high, weight = _between_centres(size, new_size, values.device)
    shape = [-1 if d == axis else 1 for d in range(values.ndim)]
    return values.index_select(axis, low).lerp_(values.index_select(axis, high), weight.view(shape))


class GammaTransform(IntensityTransform):
    """Raises each channel, scaled to 0..1, to a power; mean and standard deviation are restored afterwards.

    Args:
        gamma: range of the exponent.
        p_invert_image: probability of working on the negated channel.
        p_per_channel: probability of each channel to be changed.
        p_retain_stats: probability of restoring mean and standard deviation.
    """

    def __init__(
        self,
        gamma: tuple[float, float] = (0.7, 1.5),
        p_invert_image: float = 0,
        p_per_channel: float = 1,
        p_retain_stats: float = 1,
    ) -> None:
        super().__init__(p_per_channel)
        self.gamma = gamma
        self.p_invert_image = p_invert_image
        self.p_retain_stats = p_retain_stats

    def draw(self, rng: Generator, shape: SampleShape) -> tuple[float, ...]:
        invert, retain = rng.uniform() < self.p_invert_image, rng.uniform() < self.p_retain_stats
        return -1.0 if invert else 1.0, float(retain), split_factor(rng, *self.gamma)

    def compute(self, channels: Tensor, values: list[tuple[float, ...]]) -> Tensor:
        axes = _axes(channels)
        sign, retain, gamma = (_column(values, i, channels) for i in range(3))
        channels.mul_(sign)
        mean, deviation = _mean_and_deviation(channels)
        low = channels.amin(axes, keepdim=True)
        span = channels.amax(axes, keepdim=True) - low
        channels.sub_(low).div_(span.clamp(min=_TINY)).pow_(gamma).mul_(span).add_(low)
        if any(value[1] for value in values):
            new_mean, new_deviation = _mean_and_deviation(channels)
            factor = torch.where(retain > 0, deviation / new_deviation.clamp(min=_TINY), torch.ones_like(deviation))
            shift = torch.where(retain > 0, mean - new_mean * factor, torch.zeros_like(mean))
            channels.mul_(factor).add_(shift)
        return channels.mul_(sign)
