"""Rotation, zoom and centre crop: the matrix is drawn first, then only the box it reaches is read and resampled."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import ceil, cos, floor, prod, sin
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.training.data_augmentation.transforms import Batch, Box, Params, SampleShape, Source, Transform

_PAD_LABEL = -1
_MARGIN = 1e-3  # voxels; more than single precision loses at any patch size
_SLAB_ON_CPU, _SLAB_ON_DEVICE = 2**16, 2**22  # voxels worked on at once: in cache on a CPU, in few kernels on a GPU
_FEW = 2048  # voxels for which the number of steps matters more than their size
_MIXED = torch.iinfo(torch.int16).min  # marks cells whose corners do not all have one label


class SpatialTransform(Transform):
    """Rotates and zooms about the patch centre, or else crops the centre; makes patches of the final size.

    Args:
        patch_size: final size per axis.
        p_rotation: probability of rotating.
        rotation: angle range in radians, the same for all axes.
        p_scaling: probability of zooming.
        scaling: range of the isotropic factor; above 1 shrinks the content.
        dummy_2d: leave the first of three axes alone and treat all slices alike.
        mode_seg: "bilinear" (the label with the largest interpolated share) or "nearest".
        mode_image: "bilinear" or "nearest".
        p_rot_per_axis: probability of each axis to be rotated about, when rotating.
        synchronize_scaling: one factor for all axes.
    """

    def __init__(
        self,
        patch_size: Sequence[int],
        *,
        p_rotation: float = 0.2,
        rotation: tuple[float, float] = (0.0, 0.0),
        p_scaling: float = 0.2,
        scaling: tuple[float, float] = (0.7, 1.4),
        dummy_2d: bool = False,
        mode_seg: str = "bilinear",
        mode_image: str = "bilinear",
        p_rot_per_axis: float = 1,
        synchronize_scaling: bool = True,
    ) -> None:
        for name, mode in (("mode_seg", mode_seg), ("mode_image", mode_image)):
            if mode not in ("bilinear", "nearest"):
                raise ArgumentError(f"{name}={mode!r}: expected 'bilinear' or 'nearest'")
        self.patch_size = tuple(int(edge) for edge in patch_size)
        self.p_rotation = p_rotation
        self.rotation = rotation
        self.p_scaling = p_scaling
        self.scaling = scaling
        self.dummy_2d = dummy_2d
        self.mode_seg = mode_seg
        self.mode_image = mode_image
        self.p_rot_per_axis = p_rot_per_axis
        self.synchronize_scaling = synchronize_scaling

    def make_params(self, rng: Generator, shape: SampleShape) -> Params:
        """The matrix from offsets in the final patch to offsets in the source, or None for a pure crop.

        Draws in upstream's order: the third decision (elastic deformation, never used there) and the one about equal
        factors on all axes have no effect.
        """
        rotate, zoom, _ = (rng.uniform() for _ in range(3))
        axes = len(self.patch_size) - self.dummy_2d
        angles, scale = [0.0] * axes, np.ones(axes)
        if rotate < self.p_rotation:
            angles = [float(rng.uniform(*self.rotation)) for _ in range(axes)]
            if self.p_rot_per_axis < 1:
                angles = [angle if rng.uniform() < self.p_rot_per_axis else 0.0 for angle in angles]
        if zoom < self.p_scaling:
            rng.uniform()
            scale *= rng.uniform(*self.scaling, size=1 if self.synchronize_scaling else axes)
        if rotate >= self.p_rotation and zoom >= self.p_scaling:
            return None
        return rotation_matrix(angles) * scale

    def output_shape(self, shape: SampleShape) -> SampleShape:
        return shape._replace(spatial=self.patch_size)

    def source_box(self, params: Params, patch_size: tuple[int, ...]) -> Box:
        """What has to be read: the centre, or the bounding box of the sampled positions, within the enlarged patch."""
        if params is None:
            wanted = _centre_crop(patch_size, self.patch_size)
        else:
            wanted = [(0, edge) for edge in self.patch_size[: self.dummy_2d]]
            first = int(self.dummy_2d)
            half = np.abs(params) @ ((np.array(self.patch_size[first:]) - 1) / 2)
            for edge, reach in zip(patch_size[first:], half, strict=True):
                centre = (edge - 1) / 2
                wanted.append((floor(centre - reach - _MARGIN), ceil(centre + reach + _MARGIN) + 1))
        clipped = [(max(0, low), min(edge, high)) for (low, high), edge in zip(wanted, patch_size, strict=True)]
        return Box(tuple(low for low, _ in clipped), tuple(high - low for low, high in clipped))

    def apply(self, batch: Batch, params: Sequence[Params]) -> Batch:
        size = tuple(batch.image.shape[2:])
        pairs = zip(batch.image, batch.labels(), strict=True)
        return self.apply_to_sources([Source(i, s, (0,) * len(size), size) for i, s in pairs], params)

    def apply_to_sources(self, sources: Sequence[Source], params: Sequence[Params]) -> Batch:
        samples = [self._one(source, matrix) for source, matrix in zip(sources, params, strict=True)]
        if len(samples) == 1:
            return Batch(samples[0][0][None], samples[0][1][None])
        return Batch(torch.stack([image for image, _ in samples]), torch.stack([labels for _, labels in samples]))

    def _one(self, source: Source, matrix: NDArray[np.float64] | None) -> tuple[Tensor, Tensor]:
        if matrix is None:
            return self._crop(source)
        image, labels = source.image, source.segmentation
        first = int(self.dummy_2d)
        sampling = _Sampling(
            matrix,
            [(edge - 1) / 2 for edge in source.patch_size[first:]],
            source.start[first:],
            tuple(image.shape[1 + first :]),
            self.patch_size[first:],
        )
        planes = image.flatten(0, first), labels.flatten(0, first)
        new_image, new_labels = resample(planes[0], planes[1], sampling, self.mode_seg, self.mode_image)
        return (
            new_image.view(image.shape[0], *self.patch_size),
            new_labels.view(labels.shape[0], *self.patch_size),
        )

    def _crop(self, source: Source) -> tuple[Tensor, Tensor]:
        box = _centre_crop(source.patch_size, self.patch_size)
        pads: list[int] = []
        inside: list[slice] = [slice(None)]
        for (low, high), start, size in zip(box, source.start, source.image.shape[1:], strict=True):
            inside.append(slice(max(0, low - start), min(size, high - start)))
            pads = [max(0, start - low), max(0, high - start - size), *pads]
        image, labels = source.image[tuple(inside)], source.segmentation[tuple(inside)]
        if any(pads):
            pad = torch.nn.functional.pad
            return pad(image, pads, value=0), pad(labels, pads, value=_PAD_LABEL)
        return image, labels


def _centre_crop(patch_size: Sequence[int], final: Sequence[int]) -> list[tuple[int, int]]:
    starts = [edge // 2 - wanted // 2 for edge, wanted in zip(patch_size, final, strict=True)]
    return [(start, start + wanted) for start, wanted in zip(starts, final, strict=True)]


def rotation_matrix(angles: Sequence[float]) -> NDArray[np.float64]:
    """Right-handed rotation: Rz Ry Rx of three angles (first axis is x), or by the last angle in the plane.

    Upstream draws two angles for a plane and uses the second.
    """
    if len(angles) == 2:
        c, s = cos(angles[1]), sin(angles[1])
        return np.array([[c, -s], [s, c]])
    (cx, sx), (cy, sy), (cz, sz) = ((cos(angle), sin(angle)) for angle in angles)
    around_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    around_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    around_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(around_z @ around_y @ around_x)


class _Sampling(NamedTuple):
    """Where each output voxel is taken from: position = centre + matrix @ offset from the output's centre (voxels).

    Positions count in the enlarged patch, of which the source holds a box, so that the box has no influence on them.
    """

    matrix: NDArray[np.float64]
    centre: list[float]
    source_start: tuple[int, ...]
    source_size: tuple[int, ...]
    output_size: tuple[int, ...]


class _Positions(NamedTuple):
    """Where a slab of output voxels lies in the padded source: flat index of the lower corner, and per axis the
    fraction towards the next voxel and the lower corner's index (in the enlarged patch, counted from -2)."""

    base: Tensor
    fractions: list[Tensor]
    lower: list[Tensor]

    def of(self, chosen: Tensor) -> _Positions:
        """Those of a few voxels only."""
        return _Positions(*(_select(part, chosen) for part in self))

    def nearest(self, strides: list[int]) -> Tensor:
        """Flat index of the nearest voxel; halfway between two it is the even one, as torch rounds."""
        index = self.base.clone()
        for fraction, lower, stride in zip(self.fractions, self.lower, strides, strict=True):
            index += ((fraction > 0.5) | ((fraction == 0.5) & (lower % 2 == 1))) * stride
        return index


def _select(part: Any, chosen: Tensor) -> Any:
    if isinstance(part, list):
        return [one.index_select(0, chosen) for one in part]
    return part.index_select(0, chosen)


def resample(
    image: Tensor, labels: Tensor, sampling: _Sampling, mode_seg: str, mode_image: str
) -> tuple[Tensor, Tensor]:
    """Sample an image (C, *source) linearly and label maps (S, *source) by the largest interpolated share.

    With "nearest" the value or label of the nearest voxel is taken. Outside the source lies 0 for images, and for
    label maps the label -1, which takes part in the contest. The cost does not depend on the number of labels: only
    cells with more than one label at their corners are interpolated.
    """
    padded = tuple(size + 4 for size in sampling.source_size)
    strides = [prod(padded[axis + 1 :]) for axis in range(len(padded))]
    pads = [2, 2] * len(padded)
    images = torch.nn.functional.pad(image, pads, value=0).flatten(1)
    maps = torch.nn.functional.pad(labels.to(torch.int16), pads, value=_PAD_LABEL).flatten(1)
    cells = [_label_cells(one, strides) for one in maps]
    new_image = image.new_empty((image.shape[0], prod(sampling.output_size)))
    new_labels = maps.new_empty((labels.shape[0], prod(sampling.output_size)))
    plane = prod(sampling.output_size[1:])
    rows = max(1, (_SLAB_ON_CPU if image.device.type == "cpu" else _SLAB_ON_DEVICE) // plane)
    for first in range(0, sampling.output_size[0], rows):
        last = min(first + rows, sampling.output_size[0])
        where = _positions(sampling, strides, first, last, image.device)
        span = slice(first * plane, last * plane)
        for channel, values in enumerate(images):
            if mode_image == "nearest":
                new_image[channel, span] = values.index_select(0, where.nearest(strides))
            else:
                new_image[channel, span] = _interpolate(values, where, strides)
        for channel, values in enumerate(maps):
            if mode_seg == "nearest":
                new_labels[channel, span] = values.index_select(0, where.nearest(strides))
            else:
                new_labels[channel, span] = _largest_share(values, cells[channel], where, strides)
    return new_image, new_labels.to(labels.dtype)


def _positions(sampling: _Sampling, strides: list[int], first: int, last: int, device: torch.device) -> _Positions:
    """Positions of the output rows `first` to `last`, in the source padded by two voxels on every side."""
    axes = len(sampling.output_size)
    offsets = []
    for axis, size in enumerate(sampling.output_size):
        start, stop = (first, last) if axis == 0 else (0, size)
        values = torch.arange(start, stop, dtype=torch.float32, device=device).sub_((size - 1) / 2)
        offsets.append(values.view([-1 if d == axis else 1 for d in range(axes)]))
    base = None
    fractions, lowers = [], []
    for axis, row in enumerate(sampling.matrix):
        position = offsets[0] * float(row[0]) + (sampling.centre[axis] + 2)  # not negative: truncating is rounding down
        for other in range(1, axes):
            position = position + offsets[other] * float(row[other])
        start = sampling.source_start[axis]
        position = position.flatten().clamp_(start, start + sampling.source_size[axis] + 2.999)
        lower = position.int()
        fractions.append(position.frac_())
        lowers.append(lower)
        base = (lower - start) * strides[axis] if base is None else base.add_(lower - start, alpha=strides[axis])
    assert base is not None
    return _Positions(base, fractions, lowers)


def _corners(values: Tensor, index: Tensor, strides: list[int]) -> list[Tensor]:
    """Values at the 4 or 8 corners of the cells, the last axis running fastest."""
    span = values.numel() - sum(strides)
    offsets = [sum(corner) for corner in product(*[(0, stride) for stride in strides])]
    return [values.narrow(0, offset, span).index_select(0, index) for offset in offsets]


def _interpolate(values: Tensor, where: _Positions, strides: list[int]) -> Tensor:
    corners = _corners(values, where.base, strides)
    for fraction in reversed(where.fractions):
        corners = [low.lerp_(high, fraction) for low, high in zip(corners[::2], corners[1::2], strict=True)]
    return corners[0]


def _label_cells(labels: Tensor, strides: list[int]) -> Tensor:
    """For every cell between voxel centres its only label, or a mark if its corners differ."""
    low, high = labels, labels
    for stride in strides:
        low, high = torch.minimum(low[:-stride], low[stride:]), torch.maximum(high[:-stride], high[stride:])
    return torch.where(low == high, low, _MIXED)


def _largest_share(labels: Tensor, cells: Tensor, where: _Positions, strides: list[int]) -> Tensor:
    """The label with the largest linear weight; ties go to the nearest voxel's label if tied, else to the smallest.

    Shares are compared as upstream compares them: times 1000, in half precision.
    """
    result = cells.index_select(0, where.base)
    mixed = (result == _MIXED).nonzero().squeeze(1)
    if mixed.numel() > 0:
        result.index_copy_(0, mixed, _contest(labels, where.of(mixed), strides))
    return result


def _contest(labels: Tensor, where: _Positions, strides: list[int]) -> Tensor:
    """`_largest_share` where corners differ. Mostly two labels meet, for which less work does, in more steps."""
    corners = torch.stack(_corners(labels, where.base, strides))
    weights = _corner_weights(where.fractions)
    if corners.shape[1] < _FEW:
        return _contest_of_several(corners, weights, labels.index_select(0, where.nearest(strides)))
    low, high = corners.amin(0), corners.amax(0)
    is_low, is_high = corners == low, corners == high
    low_share = (is_low * weights).sum(0).mul_(1000).half()
    high_share = (is_high * weights).sum(0).mul_(1000).half()
    result = torch.where(high_share > low_share, high, low)
    tied = (high_share == low_share).nonzero().squeeze(1)
    if tied.numel() > 0:
        result.index_copy_(0, tied, labels.index_select(0, where.of(tied).nearest(strides)))
    several = (is_low | is_high).all(0).logical_not_().nonzero().squeeze(1)
    if several.numel() > 0:
        nearest = labels.index_select(0, where.of(several).nearest(strides))
        winner = _contest_of_several(corners.index_select(1, several), weights.index_select(1, several), nearest)
        result.index_copy_(0, several, winner)
    return result


def _contest_of_several(corners: Tensor, weights: Tensor, nearest: Tensor) -> Tensor:
    """The same for any number of labels; corners and weights (4 or 8, N)."""
    same = corners[:, None] == corners[None]
    shares = (same * weights).sum(1).mul_(1000).half()
    best = shares.amax(0)
    smallest = torch.where(shares == best, corners, torch.iinfo(torch.int16).max).amin(0)
    nearest_is_tied = ((corners == nearest) & (shares == best)).any(0)
    return torch.where(nearest_is_tied, nearest, smallest)


def _corner_weights(fractions: list[Tensor]) -> Tensor:
    """Linear weights (4 or 8, N) of the corners, the last axis running fastest."""
    weights = [torch.ones_like(fractions[0])]
    for fraction in fractions:
        weights = [weight * side for weight in weights for side in (1 - fraction, fraction)]
    return torch.stack(weights)
