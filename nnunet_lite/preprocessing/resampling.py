"""The resampler of images, label maps and logits; the function names that stand in plans.

Works in numpy: an axis is one banded matrix product (see `interpolation`), 0.06 s for the in-plane cubic resizing of a
volume of 168 x 328 x 320 on one core, so torch and its two seconds of start-up are not needed to preprocess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.configuration import ANISO_THRESHOLD
from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.preprocessing.interpolation import (
    AxisMap,
    InterpolationPlan,
    axis_operator,
    compute_new_shape,
    determine_do_sep_z_and_axis,
    interpolation_plan,
)
from nnunet_lite.preprocessing.label_resampling import TieRule, resample_label_map

__all__ = [
    "axis_operator",
    "compute_new_shape",
    "determine_do_sep_z_and_axis",
    "interpolation_plan",
    "no_resampling_hack",
    "resample_data_or_seg_to_shape",
    "resample_image",
    "resample_torch_fornnunet",
]

_Slice = NDArray[Any]
_LARGE_SLICE = 2**24  # voxels; larger ones (of slides, say) are resized block by block
_ROWS = 64  # of a block where rows are only selected
_ORDER_OF_MODE = {"nearest": 0, "nearest-exact": 0, "linear": 1, "bilinear": 1, "trilinear": 1}


def resample_data_or_seg_to_shape(
    data: Any,
    new_shape: Sequence[int],
    current_spacing: Sequence[float],
    new_spacing: Sequence[float],
    is_seg: bool = False,
    order: int = 3,
    order_z: int = 0,
    force_separate_z: bool | None = False,
    separate_z_anisotropy_threshold: float = ANISO_THRESHOLD,
) -> NDArray[Any]:
    """Resize an image or label map with splines (nnU-Net v2 2.8.1 behaviour, its default in plans).

    Args:
        data: (c, x, y, z), a numpy array or a torch tensor; returned as it is if it has the new shape already.
        new_shape: three sizes.
        current_spacing, new_spacing: mm per axis; they decide whether one axis is treated apart.
        is_seg: labels: the label with the largest interpolated weight wins, the nearest one on exact ties.
        order: spline order within slices, or of the whole volume without a separate axis.
        order_z: along the separate axis; 0 selects slices.
        force_separate_z: None decides by the spacings.

    Returns:
        (c, *new_shape) in the input's type. Cubic overshoot is clipped to the range of the channel, or of each slice
        where an axis is treated apart.
    """
    array = _to_numpy(data)
    plan = interpolation_plan(
        array.shape[1:],
        new_shape,
        current_spacing,
        new_spacing,
        order,
        order_z,
        force_separate_z,
        separate_z_anisotropy_threshold,
    )
    if is_seg:
        return _each_channel(array, plan, lambda volume, out: resample_label_map(volume, plan, "nearest", out))
    return resample_image(array, plan)


def resample_torch_fornnunet(
    data: Any,
    new_shape: Sequence[int],
    current_spacing: Sequence[float],
    new_spacing: Sequence[float],
    is_seg: bool = False,
    num_threads: int = 4,
    device: object = None,
    memefficient_seg_resampling: bool = False,
    force_separate_z: bool | None = None,
    separate_z_anisotropy_threshold: float = ANISO_THRESHOLD,
    mode: str = "linear",
    aniso_axis_mode: str = "nearest-exact",
) -> Any:
    """Linear resizing under the name of upstream's torch variant, for plans that ask for it (spec 01, 7.6b).

    Takes and returns numpy arrays or torch tensors (c, x, y, z); tensors come back on their device. What is resized
    and no label map is float32 afterwards, half precision, too. `num_threads` and `device` are accepted for
    compatibility; the thread count of the process is left alone.

    Raises:
        ArgumentError: a mode other than linear or nearest.
    """
    for name in (mode, aniso_axis_mode):
        if name not in _ORDER_OF_MODE:
            raise ArgumentError(
                f"resample_torch_fornnunet: mode {name!r} is not known; expected one of "
                f"{', '.join(_ORDER_OF_MODE)}; correct resampling_fn_*_kwargs in the plans"
            )
    if tuple(data.shape[1:]) == tuple(int(n) for n in new_shape):
        return data
    array = _to_numpy(data)
    plan = interpolation_plan(
        array.shape[1:],
        new_shape,
        current_spacing,
        new_spacing,
        _ORDER_OF_MODE[mode],
        _ORDER_OF_MODE[aniso_axis_mode],
        force_separate_z,
        separate_z_anisotropy_threshold,
    )
    if is_seg:
        rule: TieRule = "majority" if memefficient_seg_resampling else "smallest"
        array = array.astype(np.int8 if array.max() < 127 else np.int16, copy=False)
        result = _each_channel(array, plan, lambda volume, out: resample_label_map(volume, plan, rule, out))
    else:
        result = resample_image(array.astype(np.float32, copy=False), plan)
    if isinstance(data, np.ndarray):
        return result
    if not is_seg:
        return data.new_empty(0).float().new_tensor(result)
    tensor = data.new_tensor(result)
    return tensor.char() if result.dtype == np.int8 else tensor.short()


def no_resampling_hack(
    data: Any, new_shape: Sequence[int], current_spacing: Sequence[float], new_spacing: Sequence[float]
) -> Any:
    """Return the data as it is, whatever shape is asked for (plans of the noResampling planner)."""
    return data


def resample_image(data: NDArray[Any], plan: InterpolationPlan) -> NDArray[Any]:
    """Resize every channel of (c, x, y, z) as `plan` says; returns `data` itself if the plan changes nothing.

    Computes in float32 (float64 for float64 input); besides input and output it holds a few slices.
    """
    return _each_channel(data, plan, lambda volume, out: _resample_channel(volume, plan, out))


def _each_channel(
    data: NDArray[Any], plan: InterpolationPlan, resize: Callable[[NDArray[Any], NDArray[Any]], None]
) -> NDArray[Any]:
    if plan.is_identity:
        return data
    result: NDArray[Any] = np.empty((data.shape[0], *(axis.size_out for axis in plan.axes)), data.dtype)
    for volume, out in zip(data, result, strict=True):
        resize(volume, out)
    return result


def _to_numpy(data: Any) -> NDArray[Any]:
    """The array itself, or the values of a torch tensor (without importing torch)."""
    array: NDArray[Any] = data if isinstance(data, np.ndarray) else data.detach().cpu().numpy()
    return array


def _resample_channel(volume: NDArray[Any], plan: InterpolationPlan, out: NDArray[Any]) -> None:
    """Write the resized volume (x, y, z) into `out`, slice by slice along the separate axis (else the first)."""
    leading = plan.separate_axis or 0
    across = plan.axes[leading]
    in_plane = tuple(axis for number, axis in enumerate(plan.axes) if number != leading)
    source, target = np.moveaxis(volume, leading, 0), np.moveaxis(out, leading, 0)
    limits = None
    if plan.separate_axis is None and any(axis.mode == "spline" and axis.order > 1 for axis in plan.axes):
        limits = volume.min(), volume.max()
    clip_each = plan.separate_axis is not None

    if across.mode == "identity" and max(source[0].size, target[0].size) > _LARGE_SLICE:
        for plane, result in zip(source, target, strict=True):
            _resize_large_slice(plane, in_plane, result, (plane.min(), plane.max()) if clip_each else limits)
        return

    def resize_slice(plane: _Slice) -> _Slice:
        resized = _resize_slice(_working(plane), in_plane)
        return resized.clip(plane.min(), plane.max()) if clip_each and resized is not plane else resized

    if across.mode != "spline":
        slices = _selected_slices(source, across, resize_slice)
    elif not clip_each and across.ratio <= in_plane[0].ratio * in_plane[1].ratio:
        slices = (resize_slice(plane) for plane in _across_slices(source, across))
    else:
        slices = _across_slices_of(source, across, resize_slice)
    for index, plane in enumerate(slices):
        target[index] = plane if limits is None else plane.clip(*limits)


def _working(array: NDArray[Any]) -> NDArray[Any]:
    """C-ordered float32 (or float64 where the data is)."""
    return np.ascontiguousarray(array, dtype=np.float64 if array.dtype == np.float64 else np.float32)


def _selected_slices(source: NDArray[Any], across: AxisMap, resize: Callable[[_Slice], _Slice]) -> Iterator[_Slice]:
    """The slices that index selection asks for; each is resized once, those not asked for never."""
    resized, last = source[0], -1
    for index in across.index.tolist():
        if index != last:
            resized, last = resize(source[index]), index
        yield resized


def _across_slices(source: NDArray[Any], across: AxisMap) -> Iterator[_Slice]:
    """Interpolated slices along the leading axis, computed block by block."""
    for block in across.blocks:
        slab = _working(source[block.in_start : block.in_stop])
        yield from (block.matrix @ slab.reshape(len(slab), -1)).reshape(-1, *slab.shape[1:])


def _across_slices_of(source: NDArray[Any], across: AxisMap, resize: Callable[[_Slice], _Slice]) -> Iterator[_Slice]:
    """As `_across_slices` of the resized slices; a window of these is kept from one block to the next."""
    window: list[_Slice] = []
    start = 0
    for block in across.blocks:
        del window[: block.in_start - start]
        start = block.in_start
        window.extend(resize(plane) for plane in source[start + len(window) : block.in_stop])
        slab = np.stack(window)
        yield from (block.matrix @ slab.reshape(len(slab), -1)).reshape(-1, *slab.shape[1:])


def _resize_slice(plane: _Slice, maps: Sequence[AxisMap]) -> _Slice:
    """Both axes of a slice, the one that shrinks most (or grows least) first."""
    rows, columns = maps
    if rows.ratio <= columns.ratio:
        return _resize_columns(_resize_rows(plane, rows), columns)
    return _resize_rows(_resize_columns(plane, columns), rows)


def _resize_large_slice(
    plane: _Slice, maps: Sequence[AxisMap], out: NDArray[Any], limits: tuple[Any, Any] | None
) -> None:
    """As `_resize_slice`, block by block of rows into `out`: nothing of the size of the slice is made on the way."""
    rows, columns = maps
    for start in range(0, rows.size_out, _ROWS) if rows.mode != "spline" else ():
        index = np.arange(rows.size_out) if rows.mode == "identity" else rows.index
        resized = _resize_columns(_working(plane[index[start : start + _ROWS]]), columns)
        out[start : start + _ROWS] = resized if limits is None else resized.clip(*limits)
    for block in rows.blocks if rows.mode == "spline" else ():
        resized = _resize_columns(block.matrix @ _working(plane[block.in_start : block.in_stop]), columns)
        out[block.out_start : block.out_stop] = resized if limits is None else resized.clip(*limits)


def _resize_rows(plane: _Slice, axis: AxisMap) -> _Slice:
    if axis.mode != "spline":
        return plane if axis.mode == "identity" else plane[axis.index]
    result: _Slice = np.empty((axis.size_out, plane.shape[1]), plane.dtype)
    for block in axis.blocks:
        np.matmul(block.matrix, plane[block.in_start : block.in_stop], out=result[block.out_start : block.out_stop])
    return result


def _resize_columns(plane: _Slice, axis: AxisMap) -> _Slice:
    if axis.mode != "spline":
        return plane if axis.mode == "identity" else plane[:, axis.index]
    result: _Slice = np.empty((plane.shape[0], axis.size_out), plane.dtype)
    for block in axis.blocks:
        np.matmul(
            plane[:, block.in_start : block.in_stop], block.matrix.T, out=result[:, block.out_start : block.out_stop]
        )
    return result
