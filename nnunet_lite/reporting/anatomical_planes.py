"""Three planes through a case, turned as radiologists look at them, in true proportions.

Patient axes are DICOM's LPS: left, posterior and superior are where coordinates grow. Planes are shown in the
radiological convention: the patient's right on the left of axial and coronal pictures, anterior on the left of sagittal
ones, superior on top.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
_LEAST_SIDE = 0.45  # of the image's side, which a crop keeps at least
_MARGIN = 0.12  # of the image's side, around what is segmented


class Orientation(NamedTuple):
    """How an array becomes one whose axes are (superior, posterior, left)."""

    axes: tuple[int, int, int]  # array axis that runs along superior, posterior, left
    flips: tuple[bool, bool, bool]  # whether it runs against it
    is_anatomical: bool  # else the array is shown as it is stored


class Plane(NamedTuple):
    """One of the three planes."""

    name: str
    axis: int  # of the oriented array, which it cuts
    flip_rows: bool  # superior is where z grows, but belongs on top
    letters: tuple[str, str, str, str]  # of its left, right, upper and lower edge


ANATOMICAL = (
    Plane("axial", 0, False, ("R", "L", "A", "P")),
    Plane("coronal", 1, True, ("R", "L", "S", "I")),
    Plane("sagittal", 2, True, ("A", "P", "S", "I")),
)
STORED = tuple(Plane(f"across axis {axis}", axis, False, ("", "", "", "")) for axis in range(3))
AS_STORED = Orientation((0, 1, 2), (False, False, False), False)


def orientation_of(properties: Mapping[str, Any]) -> Orientation:
    """From what a reader says of a case; images that say nothing of the patient are left as they are stored."""
    directions = _directions(properties)
    if directions is None or not np.isfinite(directions).all():
        return AS_STORED
    strength = np.abs(directions)
    axes, flips = [-1, -1, -1], [False, False, False]
    for _ in range(3):  # the best match first; oblique axes are named after the closest
        row, column = np.unravel_index(int(np.argmax(strength)), strength.shape)
        if strength[row, column] < 1e-6:
            return AS_STORED
        target = 2 - int(row)  # x, y, z of the patient is last, second, first
        axes[target], flips[target] = 2 - int(column), bool(directions[row, column] < 0)
        strength[row, :] = strength[:, column] = -1
    return Orientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]), True)


def _directions(properties: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """Columns: the directions of the image axes (x, y, z) in LPS."""
    nibabel = properties.get("nibabel_stuff")
    if nibabel is not None:
        affine = np.asarray(nibabel.get("reoriented_affine", nibabel.get("original_affine")), np.float64)
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        return np.asarray(_RAS_TO_LPS @ (affine[:3, :3] / np.where(lengths > 0, lengths, 1)))
    direction = properties.get("sitk_stuff", {}).get("direction", ())
    return np.reshape(np.asarray(direction, np.float64), (3, 3)) if len(direction) == 9 else None


def oriented(array: NDArray[Any], orientation: Orientation) -> NDArray[Any]:
    """A view of an array (3 axes) whose axes are (superior, posterior, left)."""
    turned = array.transpose(orientation.axes)
    return np.asarray(turned[tuple(slice(None, None, -1 if flip else 1) for flip in orientation.flips)])


def oriented_spacing(spacing: Sequence[float], orientation: Orientation) -> tuple[float, float, float]:
    """Spacing of the oriented array; what is no length counts as 1."""
    lengths = [float(spacing[axis]) for axis in orientation.axes]
    first, second, third = (length if 0 < length < math.inf else 1.0 for length in lengths)
    return first, second, third


def planes_of(shape: Sequence[int], orientation: Orientation) -> tuple[Plane, ...]:
    """All three planes of an oriented array, or the one that it has."""
    planes = ANATOMICAL if orientation.is_anatomical else STORED
    flat = [axis for axis in range(3) if shape[axis] == 1]
    if flat and orientation.is_anatomical:
        return tuple(plane for plane in planes if plane.axis == flat[0])
    return (Plane("image", flat[0], False, ("", "", "", "")),) if flat else planes


def section(array: NDArray[Any], plane: Plane, index: int) -> NDArray[Any]:
    """The plane (rows, columns) of an oriented array as it is shown."""
    cut = array.take(index, plane.axis)
    return np.asarray(cut[::-1] if plane.flip_rows else cut)


def shown_box(foreground: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The part of a plane (rows, columns) to show: what is segmented with a margin, and not much less than half.

    Args:
        foreground: (rows, columns), whether anything is segmented there, in any slice.
    """
    box = []
    for axis in (0, 1):
        size = foreground.shape[axis]
        found = np.flatnonzero(foreground.any(1 - axis))
        if not found.size:
            box.append(slice(0, size))
            continue
        margin = round(_MARGIN * size)
        low, high = int(found[0]) - margin, int(found[-1]) + 1 + margin
        missing = max(0, round(_LEAST_SIDE * size) - (high - low))
        low, high = low - missing // 2, high + missing - missing // 2
        low, high = max(0, min(low, size - (high - low))), min(size, max(high, high - low))
        box.append(slice(low, high))
    return box[0], box[1]
