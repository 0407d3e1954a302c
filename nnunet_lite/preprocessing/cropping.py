"""The nonzero region of an image: where it lies, and cropping to it."""

from __future__ import annotations

from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from nnunet_lite.utilities.arrays import BoundingBox, bounding_box, slices


def nonzero_bounding_box(data: NDArray[Any]) -> BoundingBox:
    """Tight half-open box [[low, high], ...] around all voxels that are not 0 in some channel.

    NaN counts as nonzero; an image of zeros only gives the whole image (nnU-Net v2 2.8.1 behaviour).

    Args:
        data: (c, x, y, z), before normalization.
    """
    return bounding_box(_any_channel_nonzero(data)) or [[0, n] for n in data.shape[1:]]


def create_nonzero_mask(data: NDArray[Any]) -> NDArray[np.bool_]:
    """Mask (x, y, z) of voxels not 0 in some channel of (c, x, y, z), with its holes filled (6-connectivity)."""
    mask = _any_channel_nonzero(data)
    box = bounding_box(mask)
    if box is not None:
        _fill_holes(mask[slices(box)])
    return mask


def crop_to_nonzero(
    data: NDArray[Any], seg: NDArray[Any] | None = None, nonzero_label: int = -1
) -> tuple[NDArray[Any], NDArray[Any], BoundingBox]:
    """Crop an image and its segmentation to the nonzero region and mark what lies outside of it.

    Neither argument is changed. The box is found before holes are filled: filling cannot enlarge it.

    Args:
        data: (c, x, y, z).
        seg: (1, x, y, z) or None.
        nonzero_label: written where the segmentation is 0 and the image is 0 in all channels (outside any hole).

    Returns:
        data cropped (a view); seg cropped (a copy; without seg an int8 map of 0 inside and nonzero_label outside);
        the box.
    """
    mask = _any_channel_nonzero(data)
    box = bounding_box(mask) or [[0, n] for n in data.shape[1:]]
    mask = mask[slices(box)]
    _fill_holes(mask)
    crop = (slice(None), *slices(box))
    shape = (1, *mask.shape)
    marked: NDArray[Any] = np.zeros(shape, np.int8) if seg is None else _as_signed_copy(seg[crop])
    if not mask.all():
        outside = np.logical_not(mask, out=mask)[None]
        if seg is not None:
            outside &= marked == 0
        marked[outside] = nonzero_label
    return data[crop], marked, box


def _any_channel_nonzero(data: NDArray[Any]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = data[0] != 0
    for channel in data[1:]:
        mask |= channel != 0
    return mask


def _fill_holes(mask: NDArray[np.bool_]) -> None:
    """Fill, in place, background that is not connected to a face of a mask which is tight within its volume.

    Equals filling in the full volume, since all around the box is background there.
    """
    if min(mask.shape) < 3 or mask.all():
        return
    if all(mask.take(end, axis=axis).all() for axis in range(mask.ndim) for end in (0, -1)):
        mask[...] = True  # nothing reaches a face, as in most CT images
        return
    components = cc3d.connected_components(np.ascontiguousarray(~mask), connectivity=6)
    is_hole = np.ones(int(components.max()) + 1, dtype=np.bool_)
    is_hole[0] = False
    for axis in range(mask.ndim):
        for end in (0, -1):
            is_hole[np.unique(components.take(end, axis=axis))] = False
    if is_hole.any():
        np.logical_or(mask, is_hole[components], out=mask)


def _as_signed_copy(seg: NDArray[Any]) -> NDArray[Any]:
    """A C-ordered copy that can hold -1: unsigned labels become int16 (int32 above 32767), others keep their type."""
    if seg.dtype.kind not in "ub":
        return np.array(seg, order="C")
    wide = seg.dtype.itemsize > 1 and seg.size > 0 and int(seg.max()) > np.iinfo(np.int16).max
    return seg.astype(np.int32 if wide else np.int16)
