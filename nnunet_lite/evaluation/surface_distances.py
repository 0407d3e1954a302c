"""Distances between the surfaces of two masks: HD95, average distance, surface Dice; arrays only.

The surface is made of small elements, one at each corner between 2 x 2 x 2 voxels (2 x 2 pixels) that are not all of
one kind. Each weighs its area (length in 2D), so that thick slices do not distort what is averaged. This is the
definition of Nikolov et al., "Deep learning to achieve clinically applicable segmentation of head and neck anatomy",
2018. Distances are those to the nearest element of the other surface.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes, mesh_surface_area

_SLAB = 2**22  # corners looked at together
_ROUNDING = 1 + 1e-6  # steps of 0.1 mm do not add up exactly
_NEAR = 10  # times the smallest spacing: what the search tree finds in no time
_MAP_VOXELS_PER_SEARCH = (
    400  # of a distance map, made in the time of one distant search (measured, within a factor of 2)
)


class Surface(NamedTuple):
    """Elements of a mask's surface, in ascending order of their corner."""

    corners: NDArray[np.intp]  # flat index in the grid of corners, one longer per axis than the mask
    areas: NDArray[np.float64]  # mm2, mm in 2D


def surface_metrics(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing: Sequence[float], tolerance: float
) -> dict[str, float]:
    """HD95, average symmetric surface distance and normalized surface Dice of two masks.

    Args:
        reference, prediction: masks of the same shape, two or three axes; beyond their edge lies background.
        spacing: mm, in the order of their axes.
        tolerance: mm; surface at most this far from the other counts as agreeing.

    Returns:
        hd95 (mm), assd (mm), nsd (0 to 1). All NaN if both masks are empty; if one is, the distances are NaN and
        nsd is 0.
    """
    first, second = surface_of(reference, spacing), surface_of(prediction, spacing)
    empty = [surface.corners.size == 0 for surface in (first, second)]
    if any(empty):
        return {"hd95": math.nan, "assd": math.nan, "nsd": math.nan if all(empty) else 0.0}
    grid = [edge + 1 for edge in reference.shape]
    to_prediction, to_reference = distances_between(first, second, grid, spacing, tolerance)
    directed = ((to_prediction, first.areas), (to_reference, second.areas))
    whole = sum(float(areas.sum()) for _, areas in directed)
    return {
        "hd95": max(_percentile(distances, areas, 0.95) for distances, areas in directed),
        "assd": sum(float(distances @ areas) for distances, areas in directed) / whole,
        "nsd": sum(float(areas[distances <= tolerance * _ROUNDING].sum()) for distances, areas in directed) / whole,
    }


def surface_of(mask: NDArray[np.bool_], spacing: Sequence[float]) -> Surface:
    """The surface of a mask of two or three axes; `spacing` in mm, in the order of its axes."""
    areas = element_areas(tuple(float(step) for step in spacing))
    plane = math.prod(edge + 1 for edge in mask.shape[1:])
    rows = max(1, _SLAB // plane)
    corners, codes = [], []
    for first in range(0, mask.shape[0] + 1, rows):
        found = _corner_codes(mask, first, min(first + rows, mask.shape[0] + 1)).ravel()
        here = np.flatnonzero((found != 0) & (found != len(areas) - 1))
        corners.append(here + first * plane)
        codes.append(found[here])
    return Surface(np.concatenate(corners), areas[np.concatenate(codes)])


def _corner_codes(mask: NDArray[np.bool_], first: int, last: int) -> NDArray[np.uint8]:
    """Which of its voxels are set, one bit each, for the corners of rows `first` to `last` - 1 along the first axis.

    Corner i lies between voxels i - 1 and i; the last axis has the lowest bit.
    """
    low, high = max(first - 1, 0), min(last, mask.shape[0])
    codes = np.zeros((last - first + 1, *(edge + 2 for edge in mask.shape[1:])), np.uint8)
    inside = (slice(low - first + 1, high - first + 1), *[slice(1, -1)] * (mask.ndim - 1))
    codes[inside] = mask[low:high]
    for bit, axis in enumerate(reversed(range(mask.ndim))):
        before = [slice(None)] * mask.ndim
        behind = [slice(None)] * mask.ndim
        before[axis], behind[axis] = slice(None, -1), slice(1, None)
        codes = codes[tuple(before)] | (codes[tuple(behind)] << 2**bit)
    return codes


@functools.lru_cache(maxsize=64)
def element_areas(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Area (3D, mm2) or length (2D, mm) of the surface within the cell around a corner, by the code of its voxels.

    Where marching cubes may join the parts of a cell in two ways, the smaller area counts; so a mask and its
    complement have the same surface.
    """
    if len(spacing) == 2:
        across = math.hypot(*spacing) / 2
        up, along = spacing  # mask (2, 2): bits 0 and 1 are its first row
        lengths = [0, across, across, along, across, up, 2 * across, across]
        return np.array([*lengths, *reversed(lengths)])
    areas = np.zeros(256)
    for code in range(1, 255):
        cell = np.array([code >> bit & 1 for bit in range(8)], np.float32).reshape(2, 2, 2)
        vertices, faces, _, _ = marching_cubes(cell, 0.5, spacing=spacing, method="lorensen")
        areas[code] = mesh_surface_area(vertices, faces)
    return np.minimum(areas, areas[::-1])


def distances_between(
    first: Surface, second: Surface, grid: Sequence[int], spacing: Sequence[float], near: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance in mm of every element of each surface to the nearest of the other; neither may be empty.

    Args:
        grid: number of corners per axis.
        spacing: mm, in the order of the axes.
        near: mm; up to here distances are searched for in double precision, whatever it takes.
    """
    near = max(near, _NEAR * min(spacing))
    return _nearest(first, second, grid, spacing, near), _nearest(second, first, grid, spacing, near)


def _nearest(
    surface: Surface, other: Surface, grid: Sequence[int], spacing: Sequence[float], near: float
) -> NDArray[np.float64]:
    """Distances from one surface to the other.

    A corner that both have needs no search. A search tree finds what is near in no time; the further away, the more it
    has to look at, so of many distant elements a distance map of the whole box is the quicker way.
    """
    place = np.minimum(np.searchsorted(other.corners, surface.corners), other.corners.size - 1)
    distances = np.where(other.corners[place] == surface.corners, 0.0, math.inf)
    searched = np.flatnonzero(distances)
    if searched.size == 0:
        return distances
    tree = cKDTree(_positions(other.corners, grid, spacing), balanced_tree=False, compact_nodes=False)
    points = _positions(surface.corners[searched], grid, spacing)
    distances[searched] = tree.query(points, distance_upper_bound=near)[0]
    distant = np.flatnonzero(np.isinf(distances))
    if distant.size * _MAP_VOXELS_PER_SEARCH < math.prod(grid):
        distances[distant] = tree.query(_positions(surface.corners[distant], grid, spacing))[0]
    else:
        distances[distant] = _distance_map(other, grid, spacing).ravel()[surface.corners[distant]]
    return distances


def _positions(corners: NDArray[np.intp], grid: Sequence[int], spacing: Sequence[float]) -> NDArray[np.float64]:
    indices = np.unravel_index(corners, tuple(grid))
    return np.stack([index * step for index, step in zip(indices, spacing, strict=True)], axis=1)


def _distance_map(surface: Surface, grid: Sequence[int], spacing: Sequence[float]) -> NDArray[np.float32]:
    """Distance in mm from every corner of the grid to the surface (exact up to single precision)."""
    marked = np.zeros(tuple(grid), np.uint8)
    marked.reshape(-1)[surface.corners] = 1
    image = SimpleITK.GetImageFromArray(marked)
    image.SetSpacing([float(step) for step in reversed(spacing)])
    mapped = SimpleITK.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    found: NDArray[np.float32] = SimpleITK.GetArrayFromImage(mapped)
    return found


def _percentile(values: NDArray[np.float64], weights: NDArray[np.float64], part: float) -> float:
    """The smallest value that is not exceeded by `part` of the weight."""
    order = np.argsort(values)
    shares = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(shares, part)), values.size - 1)])
