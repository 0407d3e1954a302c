"""Image space (as the reader gives it) to network space (transposed, cropped to nonzero) and back, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.imageio.case_properties import CaseProperties
from nnunet_lite.preprocessing.cropping import crop_to_nonzero, nonzero_bounding_box
from nnunet_lite.utilities.arrays import slices


class NetworkSpaceCase(NamedTuple):
    """A case in network space before resampling."""

    data: NDArray[Any]  # (c, x, y, z), a view of the image that was given
    seg: NDArray[Any] | None  # (1, x, y, z), -1 outside the nonzero mask
    properties: CaseProperties  # those given, and how to go back


def to_network_space(
    data: NDArray[Any],
    seg: NDArray[Any] | None,
    properties: CaseProperties,
    transpose_forward: Sequence[int],
    *,
    mark_outside: bool = True,
) -> NetworkSpaceCase:
    """Transpose the axes and crop to the nonzero region; `to_image_space` is the way back.

    Args:
        data: (c, x, y, z) as read.
        seg: (1, x, y, z) as read, or None.
        properties: not changed.
        transpose_forward: axis of the image that becomes axis i.
        mark_outside: with False and no seg, the mask of the nonzero region is not made.
    """
    axes = [0, *(axis + 1 for axis in transpose_forward)]
    data = data.transpose(axes)
    shape_before = tuple(data.shape[1:])
    if seg is None and not mark_outside:
        box = nonzero_bounding_box(data)
        crop = (slice(None), *slices(box))
        data = data[crop]
    else:
        data, seg, box = crop_to_nonzero(data, None if seg is None else seg.transpose(axes))
    remembered: CaseProperties = {
        **properties,
        "shape_before_cropping": shape_before,
        "bbox_used_for_cropping": box,
        "shape_after_cropping_and_before_resampling": tuple(data.shape[1:]),
    }
    return NetworkSpaceCase(data, seg, remembered)


def to_image_space(
    array: NDArray[Any], properties: CaseProperties, transpose_backward: Sequence[int], fill: float = 0
) -> NDArray[Any]:
    """Undo cropping and transposition of an array at the spacing it had before resampling.

    Args:
        array: (..., x, y, z) in network space, shape_after_cropping_and_before_resampling in its last three axes.
        properties: from `to_network_space`.
        transpose_backward: inverse of transpose_forward.
        fill: value outside the nonzero region.

    Returns:
        (..., x, y, z) as the image that was read.
    """
    leading = array.shape[:-3]
    full = np.full((*leading, *properties["shape_before_cropping"]), fill, array.dtype)
    first = len(leading)
    crop = (*[slice(None)] * first, *slices(properties["bbox_used_for_cropping"]))
    full[crop] = array
    result: NDArray[Any] = full.transpose([*range(first), *(first + axis for axis in transpose_backward)])
    return result


def transposed_spacing(properties: CaseProperties, transpose_forward: Sequence[int]) -> list[float]:
    """The case's own spacing in network axis order (mm)."""
    return [float(properties["spacing"][axis]) for axis in transpose_forward]


def network_spacing(configuration_spacing: Sequence[float | None], own_spacing: Sequence[float]) -> list[float]:
    """Target spacing on three axes: a 2d configuration keeps the case's own distance of slices.

    Args:
        configuration_spacing: of the plans, two or three entries (mm); None keeps the case's own (spec 01, 8.8).
        own_spacing: of the case, transposed (mm).
    """
    three = [None] * (3 - len(configuration_spacing)) + list(configuration_spacing)
    return [float(own if value is None else value) for value, own in zip(three, own_spacing, strict=True)]
