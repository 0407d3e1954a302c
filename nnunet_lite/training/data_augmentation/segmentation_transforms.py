"""Mirroring and what makes training targets of label maps: masking, label removal, regions, deep supervision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.random import Generator
from torch import Tensor

from nnunet_lite.training.data_augmentation.intensity_transforms import nearest_exact
from nnunet_lite.training.data_augmentation.transforms import Batch, Params, SampleShape, Transform


class MirrorTransform(Transform):
    """Flips each allowed spatial axis with probability one half."""

    def __init__(self, allowed_axes: Sequence[int]) -> None:
        self.allowed_axes = tuple(allowed_axes)

    def make_params(self, rng: Generator, shape: SampleShape) -> Params:
        return [axis for axis in self.allowed_axes if rng.uniform() < 0.5] or None

    def apply(self, batch: Batch, params: Sequence[Params]) -> Batch:
        image, labels = batch.image, batch.labels()
        if len(params) == 1:
            axes = [axis + 2 for axis in params[0] or ()]
            return Batch(image.flip(axes), labels.flip(axes)) if axes else batch
        for b, axes in enumerate(params):
            if axes:
                image[b] = image[b].flip([axis + 1 for axis in axes])
                labels[b] = labels[b].flip([axis + 1 for axis in axes])
        return batch


class MaskImageTransform(Transform):
    """Sets image channels to zero where segmentation channel 0 is negative, which is outside the nonzero mask."""

    def __init__(self, apply_to_channels: Sequence[int], set_outside_to: float = 0) -> None:
        self.apply_to_channels = list(apply_to_channels)
        self.set_outside_to = set_outside_to

    def apply(self, batch: Batch, params: Sequence[Params]) -> Batch:
        outside = batch.labels()[:, 0] < 0
        for channel in self.apply_to_channels:
            batch.image[:, channel].masked_fill_(outside, self.set_outside_to)
        return batch


class RemoveLabelTransform(Transform):
    """Replaces one label by another in all segmentation channels."""

    def __init__(self, label_value: int, set_to: int) -> None:
        self.label_value = label_value
        self.set_to = set_to

    def apply(self, batch: Batch, params: Sequence[Params]) -> Batch:
        labels = batch.labels()
        return batch._replace(segmentation=labels.masked_fill_(labels == self.label_value, self.set_to))


class ConvertSegmentationToRegionsTransform(Transform):
    """Turns segmentation channel 0 into one boolean channel per region, and one for the ignore label if there is one.

    Args:
        regions: each a label or several labels, in the order of the network's output channels.
        ignore_label: label whose channel comes last, or None.
    """

    def __init__(self, regions: Sequence[int | Sequence[int]], ignore_label: int | None = None) -> None:
        self.regions: list[tuple[int, ...]] = [(r,) if isinstance(r, int) else tuple(r) for r in regions]
        if ignore_label is not None:
            self.regions.append((ignore_label,))

    def apply(self, batch: Batch, params: Sequence[Params]) -> Batch:
        labels = batch.labels()[:, 0]
        return batch._replace(segmentation=torch.stack([_is_any_of(labels, region) for region in self.regions], 1))


def _is_any_of(labels: Tensor, wanted: Sequence[int]) -> Tensor:
    result = labels == wanted[0]
    for label in wanted[1:]:
        result |= labels == label
    return result


class DownsampleSegForDSTransform(Transform):
    """Makes the list of targets for deep supervision: nearest neighbour at every scale, the first usually untouched.

    Args:
        ds_scales: per output, the size of each axis relative to the patch (or one number for all axes).
    """

    def __init__(self, ds_scales: Sequence[Sequence[float] | float]) -> None:
        self.ds_scales = list(ds_scales)

    def apply(self, batch: Batch, params: Sequence[Params]) -> Batch:
        labels = batch.labels()
        return batch._replace(segmentation=[self._downsample(labels, scale) for scale in self.ds_scales])

    @staticmethod
    def _downsample(labels: Tensor, scale: Sequence[float] | float) -> Tensor:
        factors = scale if isinstance(scale, Sequence) else (scale,) * (labels.ndim - 2)
        for axis, factor in enumerate(factors, 2):
            size = labels.shape[axis]
            if round(size * factor) != size:
                labels = labels.index_select(axis, nearest_exact(size, round(size * factor), labels.device))
        return labels
