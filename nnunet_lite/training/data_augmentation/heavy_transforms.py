"""What the heavy augmentation (DA5, spec 02, 8.3) has beyond the default one."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from nnunet_lite.training.data_augmentation.intensity_transforms import IntensityTransform
from nnunet_lite.training.data_augmentation.transforms import Batch, Params, SampleShape, Transform

_TINY = 1e-8  # keeps the division by the range of a constant channel finite


class OneOfTransform(Transform):
    """Applies one of several transforms to each sample, all equally likely."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def make_params(self, rng: Generator, shape: SampleShape) -> Params:
        chosen = int(rng.integers(len(self.transforms)))
        return chosen, self.transforms[chosen].make_params(rng, shape)

    def apply(self, batch: Batch, params: Sequence[Params]) -> Batch:
        for position, transform in enumerate(self.transforms):
            batch = transform.apply(batch, [drawn if chosen == position else None for chosen, drawn in params])
        return batch


class _AxesTransform(Transform):
    """Moves voxels between axes of equal length, in image and segmentation alike."""

    def __init__(self, allowed_axes: Sequence[int]) -> None:
        self.allowed_axes = sorted(int(axis) for axis in allowed_axes)

    def move(self, values: Tensor, params: Params) -> Tensor:
        """One sample (C, *spatial), turned as drawn."""
        raise NotImplementedError

    def apply(self, batch: Batch, params: Sequence[Params]) -> Batch:
        image, labels = batch.image.clone(), batch.labels().clone()
        for sample, drawn in enumerate(params):
            if drawn is not None:
                image[sample] = self.move(batch.image[sample], drawn)
                labels[sample] = self.move(batch.labels()[sample], drawn)
        return Batch(image, labels)


class Rot90Transform(_AxesTransform):
    """Turns by 0 to 3 right angles in the plane of two of the axes."""

    def make_params(self, rng: Generator, shape: SampleShape) -> Params:
        first, second = rng.choice(self.allowed_axes, size=2, replace=False)
        return int(first), int(second), int(rng.integers(4))

    def move(self, values: Tensor, params: Params) -> Tensor:
        first, second, times = params
        return torch.rot90(values, times, (first + 1, second + 1))


class TransposeAxesTransform(_AxesTransform):
    """Puts the axes into a random order."""

    def make_params(self, rng: Generator, shape: SampleShape) -> Params:
        order = list(range(len(shape.spatial)))
        for axis, other in zip(self.allowed_axes, rng.permutation(self.allowed_axes), strict=True):
            order[axis] = int(other)
        return order

    def move(self, values: Tensor, params: Params) -> Tensor:
        return values.permute(0, *(axis + 1 for axis in params))


class MedianFilterTransform(IntensityTransform):
    """Replaces every voxel by the median of a cube around it; its edge is drawn for each channel."""

    def __init__(self, filter_size: tuple[int, int] = (2, 8), p_per_channel: float = 0.5) -> None:
        super().__init__(p_per_channel)
        self.filter_size = filter_size

    def draw(self, rng: Generator, shape: SampleShape) -> tuple[float, ...]:
        return (float(rng.integers(*self.filter_size)),)

    def compute(self, channels: Tensor, values: list[tuple[float, ...]]) -> Tensor:
        from scipy.ndimage import median_filter

        for channel, (size,) in zip(channels, values, strict=True):
            channel.copy_(torch.from_numpy(median_filter(channel.cpu().numpy(), int(size))))
        return channels


class BrightnessAdditiveTransform(IntensityTransform):
    """Adds a number to each channel, drawn from a normal distribution."""

    def __init__(self, mu: float = 0, sigma: float = 0.5, p_per_channel: float = 0.5) -> None:
        super().__init__(p_per_channel)
        self.mu = mu
        self.sigma = sigma

    def draw(self, rng: Generator, shape: SampleShape) -> tuple[float, ...]:
        return (float(rng.normal(self.mu, self.sigma)),)

    def compute(self, channels: Tensor, values: list[tuple[float, ...]]) -> Tensor:
        for channel, (number,) in zip(channels, values, strict=True):
            channel.add_(number)
        return channels


class BlankRectangleTransform(IntensityTransform):
    """Fills boxes with the mean of their voxels.

    Args:
        num_rectangles: range of the number of boxes per channel, upper end excluded.
        p_per_channel: probability of each channel to be changed.

    An edge is drawn between a tenth and a third of the patch; upstream fails where that range is empty.
    """

    def __init__(self, num_rectangles: tuple[int, int] = (1, 5), p_per_channel: float = 0.5) -> None:
        super().__init__(p_per_channel)
        self.num_rectangles = num_rectangles

    def draw(self, rng: Generator, shape: SampleShape) -> tuple[float, ...]:
        drawn: list[int] = []
        for _ in range(int(rng.integers(*self.num_rectangles))):
            for edge in shape.spatial:
                low = max(1, edge // 10)
                size = int(rng.integers(low, max(edge // 3, low + 1)))
                drawn += [int(rng.integers(edge - size + 1)), size]
        return tuple(map(float, drawn))

    def compute(self, channels: Tensor, values: list[tuple[float, ...]]) -> Tensor:
        axes = channels.ndim - 1
        for channel, drawn in zip(channels, values, strict=True):
            numbers = [int(number) for number in drawn]
            for first in range(0, len(numbers), 2 * axes):
                pairs = zip(
                    numbers[first : first + 2 * axes : 2], numbers[first + 1 : first + 2 * axes : 2], strict=True
                )
                box = channel[tuple(slice(start, start + size) for start, size in pairs)]
                box.fill_(box.mean())
        return channels


class _BlobTransform(IntensityTransform):
    """Works through a Gaussian of random width and centre, shifted and scaled to 0..1 within the patch."""

    def draw(self, rng: Generator, shape: SampleShape) -> tuple[float, ...]:
        drawn = []
        for edge in shape.spatial:
            scale = exp(rng.uniform(log(max(edge // 6, 1)), log(edge)))
            drawn += [scale, float(rng.uniform(-0.5, 1.5)) * edge]
        return *drawn, self.strength(rng)

    def strength(self, rng: Generator) -> float:
        """How strongly the blob acts."""
        raise NotImplementedError

    def compute(self, channels: Tensor, values: list[tuple[float, ...]]) -> Tensor:
        for channel, drawn in zip(channels, values, strict=True):
            blob, lowest = torch.ones((), device=channel.device), 1.0
            for axis, edge in enumerate(channel.shape):
                scale, centre = drawn[2 * axis : 2 * axis + 2]
                profile = -0.5 * ((np.arange(edge) - centre) / scale) ** 2
                # extremes of a product over a box are products of the extremes: no step over the whole patch for them
                weights = np.exp(profile - profile.max())
                lowest *= float(weights.min())
                shape = [-1 if d == axis else 1 for d in range(channel.ndim)]
                blob = blob * torch.from_numpy(weights.astype(np.float32)).to(channel.device).view(shape)
            blob = (blob - lowest).div_(max(1 - lowest, _TINY))
            self.act(channel, blob, drawn[-1])
        return channels

    def act(self, channel: Tensor, blob: Tensor, strength: float) -> None:
        """Change one channel in place."""
        raise NotImplementedError


class BrightnessGradientAdditiveTransform(_BlobTransform):
    """Adds such a Gaussian, times -5 to -1 or 1 to 5."""

    def strength(self, rng: Generator) -> float:
        return float(rng.uniform(-5, -1) if rng.uniform() < 0.5 else rng.uniform(1, 5))

    def act(self, channel: Tensor, blob: Tensor, strength: float) -> None:
        channel.add_(blob, alpha=strength)


class LocalGammaTransform(_BlobTransform):
    """Raises intensities, scaled to 0..1, to a power; blended with the original by such a Gaussian."""

    def strength(self, rng: Generator) -> float:
        return float(rng.uniform(0.01, 0.8) if rng.uniform() < 0.5 else rng.uniform(1.5, 4))

    def act(self, channel: Tensor, blob: Tensor, strength: float) -> None:
        low, span = channel.min(), channel.max() - channel.min()
        scaled = (channel - low) / span.clamp(min=_TINY)
        channel.copy_(torch.lerp(scaled, scaled.pow(strength), blob) * span + low)


class SharpeningTransform(IntensityTransform):
    """Adds the difference of each voxel to its 4 or 6 neighbours; voxels beyond the border equal the outermost ones."""

    def __init__(self, strength: tuple[float, float] = (0.1, 1), p_per_channel: float = 0.5) -> None:
        super().__init__(p_per_channel)
        self.strength = strength

    def draw(self, rng: Generator, shape: SampleShape) -> tuple[float, ...]:
        return (float(rng.uniform(*self.strength)),)

    def compute(self, channels: Tensor, values: list[tuple[float, ...]]) -> Tensor:
        for channel, (strength,) in zip(channels, values, strict=True):
            difference = torch.zeros_like(channel)
            for axis in range(channel.ndim):
                step = channel.diff(dim=axis)
                difference.narrow(axis, 1, channel.shape[axis] - 1).add_(step)
                difference.narrow(axis, 0, channel.shape[axis] - 1).sub_(step)
            channel.add_(difference, alpha=strength)
        return channels


def equal_axes(patch_size: Sequence[int]) -> list[int]:
    """Axes whose length occurs most often in the patch; none if all differ. A tie goes to the shorter."""
    lengths, counts = np.unique(np.asarray(patch_size), return_counts=True)
    axes: list[Any] = np.flatnonzero(np.asarray(patch_size) == lengths[np.argmax(counts)]).tolist()
    return axes if len(axes) > 1 else []
