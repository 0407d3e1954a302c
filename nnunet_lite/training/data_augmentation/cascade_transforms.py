"""The previous stage's segmentation as input of a cascade: one-hot channels and their deliberate corruption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

import cc3d
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from nnunet_lite.training.data_augmentation.transforms import Batch, Params, SampleShape, Transform
from nnunet_lite.utilities.arrays import bounding_box, slices

_OPERATORS = ("dilation", "erosion", "closing", "opening")


class MoveSegAsOneHotToDataTransform(Transform):
    """Appends one image channel per label of a segmentation channel and removes that channel from the segmentation.

    Args:
        source_channel_idx: segmentation channel that holds the previous stage.
        all_labels: labels in the order of the new channels.
        remove_channel_from_source: whether the segmentation channel goes away.
    """

    def __init__(
        self, source_channel_idx: int, all_labels: Sequence[int], remove_channel_from_source: bool = True
    ) -> None:
        self.source_channel_idx = source_channel_idx
        self.all_labels = list(all_labels)
        self.remove_channel_from_source = remove_channel_from_source

    def output_shape(self, shape: SampleShape) -> SampleShape:
        return shape._replace(channels=shape.channels + len(self.all_labels))

    def apply(self, batch: Batch, params: Sequence[Params]) -> Batch:
        labels = batch.labels()
        previous = labels[:, self.source_channel_idx]
        one_hot = torch.stack([previous == label for label in self.all_labels], 1).to(batch.image.dtype)
        if self.remove_channel_from_source:
            kept = [channel for channel in range(labels.shape[1]) if channel != self.source_channel_idx]
            labels = labels[:, kept]
        return Batch(torch.cat([batch.image, one_hot], 1), labels)


class _Operation(NamedTuple):
    channel: int
    operator: str
    radius: float


class ApplyRandomBinaryOperatorTransform(Transform):
    """Dilates, erodes, closes or opens one-hot channels by a disk or ball of random radius (spec 02, 4.6).

    Voxels that a channel gains are cleared in the other channels; voxels it loses become background.

    Args:
        channel_idx: image channels that hold the one-hot encoding.
        strel_size: range of the radius in voxels.
        p_per_label: probability of each channel to be changed.
    """

    def __init__(
        self, channel_idx: Sequence[int], strel_size: tuple[float, float] = (1, 8), p_per_label: float = 0.5
    ) -> None:
        self.channel_idx = list(channel_idx)
        self.strel_size = strel_size
        self.p_per_label = p_per_label

    def make_params(self, rng: Generator, shape: SampleShape) -> Params:
        order = [self.channel_idx[i] for i in rng.permutation(len(self.channel_idx))]
        return [
            _Operation(channel, _OPERATORS[rng.integers(len(_OPERATORS))], float(rng.uniform(*self.strel_size)))
            for channel in order
            if rng.uniform() < self.p_per_label
        ] or None

    def apply(self, batch: Batch, params: Sequence[Params]) -> Batch:
        for image, operations in zip(batch.image, params, strict=True):
            for channel, operator, radius in operations or ():
                before = image[channel] > 0
                element = torch.from_numpy(structuring_element(radius, image.ndim - 1)).to(image.device)
                after = _within_box(_OPERATIONS[operator], before, element)
                gained = after & ~before
                for other in self.channel_idx:
                    image[other].masked_fill_(gained, 0)
                image[channel] = after.to(image.dtype)
        return batch


def _within_box(operation: Callable[[Tensor, Tensor], Tensor], mask: Tensor, element: Tensor) -> Tensor:
    """An operation on as much of a mask as it can change; the rest is and stays background."""
    box = bounding_box(mask.cpu().numpy())
    result = torch.zeros_like(mask)
    if box is not None:
        reach = 2 * max(element.shape)  # closing and opening act twice
        inner = slices([(max(0, low - reach), high + reach) for low, high in box])
        result[inner] = operation(mask[inner], element)
    return result


def structuring_element(radius: float, axes: int) -> NDArray[np.bool_]:
    """Disk or ball of a float radius, with scikit-image's choice of points (even sizes occur, as upstream's do)."""
    if axes == 2:
        points = np.arange(-radius, radius + 1)
    else:
        points = np.linspace(-radius, radius, int(2 * radius + 1))
    squares = np.square(np.meshgrid(*[points] * axes, indexing="ij")).sum(0)
    return np.asarray(squares <= radius * radius)


def _dilate(mask: Tensor, element: Tensor) -> Tensor:
    """Correlation with the element by Fourier transform, outside counted as background.

    Elements of even size shift the result by half a voxel towards lower indices, as upstream's do. Disks of most radii
    lie off their centre, so that correlation and convolution differ.
    """
    element = element.flip(tuple(range(element.ndim)))
    size = [n + k - 1 for n, k in zip(mask.shape, element.shape, strict=True)]
    spectrum = torch.fft.rfftn(mask.float(), size) * torch.fft.rfftn(element.float(), size)
    counts: Tensor = torch.fft.irfftn(spectrum, size)
    inner = tuple(slice(k // 2, k // 2 + n) for n, k in zip(mask.shape, element.shape, strict=True))
    return torch.gt(counts[inner], 0.5)


def _erode(mask: Tensor, element: Tensor) -> Tensor:
    return ~_dilate(~mask, element)


def _close(mask: Tensor, element: Tensor) -> Tensor:
    return _erode(_dilate(mask, element), element)


def _open(mask: Tensor, element: Tensor) -> Tensor:
    return _dilate(_erode(mask, element), element)


_OPERATIONS = {"dilation": _dilate, "erosion": _erode, "closing": _close, "opening": _open}


class RemoveRandomConnectedComponentFromOneHotEncodingTransform(Transform):
    """Empties one small connected component of each chosen one-hot channel, picked with equal chances.

    Args:
        channel_idx: image channels that hold the one-hot encoding.
        dont_do_if_covers_more_than_x_percent: share of the patch from which a component is too large to go.
        p_per_label: probability of each channel to be changed.
    """

    def __init__(
        self,
        channel_idx: Sequence[int],
        dont_do_if_covers_more_than_x_percent: float = 0.15,
        p_per_label: float = 0.5,
    ) -> None:
        self.channel_idx = list(channel_idx)
        self.dont_do_if_covers_more_than_x_percent = dont_do_if_covers_more_than_x_percent
        self.p_per_label = p_per_label

    def make_params(self, rng: Generator, shape: SampleShape) -> Params:
        """Per chosen channel a number in 0..1 that picks among its components, whose count is not known yet."""
        drawn = [(channel, float(rng.uniform())) for channel in self.channel_idx if rng.uniform() < self.p_per_label]
        return drawn or None

    def apply(self, batch: Batch, params: Sequence[Params]) -> Batch:
        for image, drawn in zip(batch.image, params, strict=True):
            limit = prod(image.shape[1:]) * self.dont_do_if_covers_more_than_x_percent
            for channel, pick in drawn or ():
                components = _components((image[channel] > 0).cpu().numpy())
                small = np.flatnonzero(np.bincount(components.ravel())[1:] < limit) + 1
                if small.size:
                    gone = components == small[int(pick * small.size)]
                    image[channel].masked_fill_(torch.from_numpy(gone).to(image.device), 0)
        return batch


def _components(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Connected components (diagonal neighbours connect) numbered from 1."""
    numbered = cc3d.connected_components(mask, connectivity=26 if mask.ndim == 3 else 8)
    return np.asarray(numbered, dtype=np.uint32)
