"""Interpolation along one axis as a small matrix, and the plan that says what happens along each axis of a volume.

Resizing with splines is linear and separable: it equals one matrix per axis, which is found exactly by resizing an
identity. Images, label maps and logits all follow the plan made here, so preprocessing and export cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from nnunet_lite.configuration import ANISO_THRESHOLD
from nnunet_lite.preprocessing.long_axes import DENSE_ELEMENTS, local_operator

Mode = Literal["identity", "nearest", "spline"]


class LinearTaps(NamedTuple):
    """Linear interpolation of one axis: out[i] = (1 - fraction[i]) * in[lower[i]] + fraction[i] * in[upper[i]]."""

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    fraction: NDArray[np.float64]


class OperatorBlock(NamedTuple):
    """Rows [out_start, out_stop) of an axis operator, restricted to the inputs that matter to them."""

    out_start: int
    out_stop: int
    in_start: int
    in_stop: int
    matrix: NDArray[np.float32]  # (out_stop - out_start, in_stop - in_start)


@dataclass(frozen=True)
class AxisMap:
    """What happens along one axis: nothing, index selection, or a spline of the given order."""

    mode: Mode
    size_in: int
    size_out: int
    order: int

    @property
    def ratio(self) -> float:
        """Output size over input size."""
        return self.size_out / self.size_in

    @property
    def index(self) -> NDArray[np.int64]:
        """Source index of every output position (of the nearest sample where the mode is spline), (size_out,)."""
        return nearest_index(self.size_in, self.size_out)

    @property
    def taps(self) -> LinearTaps:
        """Linear interpolation along this axis; the spline of order 1."""
        return linear_taps(self.size_in, self.size_out)

    @property
    def operator(self) -> NDArray[np.float64]:
        """The whole matrix (size_out, size_in) of a spline axis."""
        return axis_operator(self.size_in, self.size_out, self.order)

    @property
    def blocks(self) -> tuple[OperatorBlock, ...]:
        """The operator in float32, cut into row blocks without the columns that are zero."""
        return operator_blocks(self.size_in, self.size_out, self.order)


@dataclass(frozen=True)
class InterpolationPlan:
    """How a volume is resized: one map per axis, and the axis treated apart because its slices are thick (or None).

    `keeps_type`: whether values in half precision are rounded to it afterwards, or stay float32.
    """

    axes: tuple[AxisMap, AxisMap, AxisMap]
    separate_axis: int | None
    keeps_type: bool = True

    @property
    def is_identity(self) -> bool:
        """Whether the volume keeps its shape, in which case it is not touched at all."""
        return all(axis.mode == "identity" for axis in self.axes)


def interpolation_plan(
    shape_in: Sequence[int],
    shape_out: Sequence[int],
    current_spacing: Sequence[float],
    new_spacing: Sequence[float],
    order: int,
    order_z: int = 0,
    force_separate_z: bool | None = None,
    separate_z_anisotropy_threshold: float = ANISO_THRESHOLD,
) -> InterpolationPlan:
    """Decide per axis how a volume of `shape_in` becomes one of `shape_out` (nnU-Net v2 2.8.1 behaviour).

    Args:
        shape_in, shape_out: three sizes each.
        current_spacing, new_spacing: mm per axis, they only decide whether an axis is treated apart.
        order: spline order within slices or of the whole volume; 0 selects the nearest sample.
        order_z: spline order along the axis treated apart.
        force_separate_z: None decides by the spacings, see `determine_do_sep_z_and_axis`.
    """
    _, separate_axis = determine_do_sep_z_and_axis(
        force_separate_z, current_spacing, new_spacing, separate_z_anisotropy_threshold
    )
    first, second, third = (
        _axis_map(int(n_in), int(n_out), order_z if axis == separate_axis else order)
        for axis, (n_in, n_out) in enumerate(zip(shape_in, shape_out, strict=True))
    )
    return InterpolationPlan((first, second, third), separate_axis)


def _axis_map(size_in: int, size_out: int, order: int) -> AxisMap:
    mode: Mode = "identity" if size_in == size_out else "nearest" if order == 0 else "spline"
    return AxisMap(mode, size_in, size_out, order)


def compute_new_shape(
    old_shape: Sequence[int], old_spacing: Sequence[float], new_spacing: Sequence[float]
) -> tuple[int, ...]:
    """Voxels per axis after a change of spacing, rounded half to even, at least 1 (nnU-Net v2 2.8.1 behaviour)."""
    return tuple(
        max(1, int(round(float(old) / float(new) * int(size))))
        for size, old, new in zip(old_shape, old_spacing, new_spacing, strict=True)
    )


def determine_do_sep_z_and_axis(
    force_separate_z: bool | None,
    current_spacing: Sequence[float],
    new_spacing: Sequence[float],
    separate_z_anisotropy_threshold: float = ANISO_THRESHOLD,
) -> tuple[bool, int | None]:
    """Whether one axis has slices so thick that it is resampled apart from the others, and which one.

    The ratio of the largest to the smallest spacing must exceed the threshold, in the current spacing or else in the
    new one; two axes sharing the largest spacing mean no separation (nnU-Net v2 2.8.1 behaviour).
    """
    if force_separate_z is False:
        return False, None
    deciding = None
    if force_separate_z or _is_anisotropic(current_spacing, separate_z_anisotropy_threshold):
        deciding = current_spacing
    elif _is_anisotropic(new_spacing, separate_z_anisotropy_threshold):
        deciding = new_spacing
    if deciding is None:
        return False, None
    largest = [axis for axis, spacing in enumerate(deciding) if spacing == max(deciding)]
    return (True, largest[0]) if len(largest) == 1 else (False, None)


def _is_anisotropic(spacing: Sequence[float], threshold: float) -> bool:
    return bool(max(spacing) / min(spacing) > threshold)


@lru_cache(maxsize=64)
def nearest_index(size_in: int, size_out: int) -> NDArray[np.int64]:
    """Source index of every output position when the nearest sample is taken, (size_out,)."""
    position = (np.arange(size_out) + 0.5) * (size_in / size_out)
    return _frozen(np.clip(np.floor(position - 0.5 + 0.5), 0, size_in - 1).astype(np.int64))


@lru_cache(maxsize=64)
def linear_taps(size_in: int, size_out: int) -> LinearTaps:
    """Neighbours and weight of linear interpolation with half-pixel centres and replicated edges."""
    position = np.clip((np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5, 0, size_in - 1)
    lower = np.floor(position).astype(np.int64)
    upper = np.minimum(lower + 1, size_in - 1)
    return LinearTaps(_frozen(lower), _frozen(upper), _frozen(position - lower))


@lru_cache(maxsize=16)
def axis_operator(size_in: int, size_out: int, order: int) -> NDArray[np.float64]:
    """Matrix (size_out, size_in) that resizes one axis with a spline of the given order (0 to 5), edges replicated.

    Equals scikit-image's resize (mode edge, no anti-aliasing, no clipping) and scipy's map_coordinates (mode nearest).
    """
    identity = np.eye(size_in)
    if order == 0:
        return _frozen(identity[nearest_index(size_in, size_out)])
    if order == 1:
        taps = linear_taps(size_in, size_out)
        weight = taps.fraction[:, None]
        return _frozen((1 - weight) * identity[taps.lower] + weight * identity[taps.upper])
    if size_in == 1:
        return _frozen(np.ones((size_out, 1)))
    resized = scipy.ndimage.zoom(identity, (size_out / size_in, 1), order=order, mode="nearest", grid_mode=True)
    return _frozen(resized)


@lru_cache(maxsize=16)
def operator_blocks(size_in: int, size_out: int, order: int) -> tuple[OperatorBlock, ...]:
    """An axis operator in float32 as row blocks; columns whose weights vanish in float32 are left out.

    A cubic spline's weights fall by a factor of 3.7 per sample, so a row has some 30 that count: three to ten times
    less work than the full matrix for the axes of medical images, in products that are still large enough to be fast.
    """
    whole = axis_operator(size_in, size_out, order) if size_in * size_out <= DENSE_ELEMENTS else None
    rows = 32 if order == 1 else 64
    blocks = []
    for start in range(0, size_out, rows):
        stop = min(start + rows, size_out)
        offset, operator = (
            local_operator(size_in, size_out, order, start, stop) if whole is None else (0, whole[start:stop])
        )
        operator = np.where(np.abs(operator) > 1e-9, operator, 0)  # what is left would slow products down as denormals
        used = np.flatnonzero(operator.any(axis=0))
        first, last = int(used[0]), int(used[-1]) + 1
        matrix = np.ascontiguousarray(operator[:, first:last], dtype=np.float32)
        blocks.append(OperatorBlock(start, stop, offset + first, offset + last, _frozen(matrix)))
    return tuple(blocks)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Cached arrays are shared, so nobody may write into them."""
    array.setflags(write=False)
    return array
