"""Boxes, cropping and padding of numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BoundingBox = list[list[int]]  # per axis [first, one past the last]


def bounding_box(mask: NDArray[np.bool_]) -> BoundingBox | None:
    """Tight half-open box around the True voxels of an n-dimensional mask, or None if there are none.

    Each axis is reduced once and the mask shrinks on the way: about two passes over the voxels in all.
    """
    box: BoundingBox = []
    while True:
        hits = np.flatnonzero(mask.any(axis=tuple(range(1, mask.ndim))))
        if hits.size == 0:
            return None
        low, high = int(hits[0]), int(hits[-1]) + 1
        box.append([low, high])
        if mask.ndim == 1:
            return box
        mask = np.asarray(mask[low:high].any(axis=0))


def slices(box: Sequence[Sequence[int]]) -> tuple[slice, ...]:
    """A box as an index; use `(slice(None), *slices(box))` for arrays with a channel axis."""
    return tuple(slice(int(low), int(high)) for low, high in box)


def box_shape(box: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Edge lengths of a box."""
    return tuple(int(high) - int(low) for low, high in box)


def _within(box: Sequence[Sequence[int]]) -> tuple[slice, ...]:
    return (slice(None), *slices(box))


def crop_and_pad(array: Any, starts: Sequence[int], size: Sequence[int], fill: float) -> NDArray[Any]:
    """A copy of `array[:, starts : starts + size]`, with `fill` wherever that lies outside.

    Args:
        array: (c, *spatial), a numpy array or anything that slices to one (a blosc2 array reads only what is needed).
        starts: first index per spatial axis; may be negative.
        size: edge length per spatial axis.
        fill: value of voxels outside.
    """
    spatial = tuple(array.shape[1:])
    source = [(max(0, s), min(n, s + e)) for s, e, n in zip(starts, size, spatial, strict=True)]
    if all(low == s and high == s + e for (low, high), s, e in zip(source, starts, size, strict=True)):
        return _read(array, source)
    result = np.full((array.shape[0], *size), fill, dtype=array.dtype)
    if all(high > low for low, high in source):
        target = [(low - s, high - s) for (low, high), s in zip(source, starts, strict=True)]
        result[_within(target)] = _read(array, source)
    return result


def _read(array: Any, box: Sequence[Sequence[int]]) -> NDArray[Any]:
    """A copy of `array[:, box]`; by the quickest way into a blosc2 array, whose indexing first looks what it is given.

    Of a patch of a few thousand voxels that look takes longer than decompressing it.
    """
    read = getattr(array, "get_slice_numpy", None)
    if read is None:
        return np.array(array[_within(box)])
    result = np.empty((array.shape[0], *box_shape(box)), array.dtype)
    first, last = [0, *(low for low, _ in box)], [array.shape[0], *(high for _, high in box)]
    read(result, (first, last))
    return result
