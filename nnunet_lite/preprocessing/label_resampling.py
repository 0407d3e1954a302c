"""Resizing of label maps: the label with the largest interpolated weight wins.

Only voxels whose interpolation neighbourhood holds more than one label need arithmetic; there the weights of equal
labels among the two, four or eight neighbours are added up. Everywhere else the nearest label is copied. So the cost
does not depend on the number of labels, and no indicator volume is ever made.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.preprocessing.interpolation import AxisMap, InterpolationPlan

# nearest: the nearest label if it is among the winners, else the smallest (batchgenerators 0.25.5)
# smallest: weights rounded to half precision per mille, the smallest winner (upstream's torch variant)
# majority: a weight above one half, else 0 (its memory-efficient variant)
TieRule = Literal["nearest", "smallest", "majority"]


class _Corners(NamedTuple):
    """Neighbours of every output position along one axis: one (index selection) or two, with their weights."""

    nearest: NDArray[np.int64]
    neighbours: tuple[NDArray[np.int64], ...]
    weights: tuple[NDArray[np.float64], ...]


def resample_label_map(labels: NDArray[Any], plan: InterpolationPlan, rule: TieRule, out: NDArray[Any]) -> None:
    """Write the resized label map (x, y, z) into `out`, slice by slice.

    Splines of an order above 1 and interpolation across a separate axis are rare in plans; they take the general path,
    one weight volume per label.
    """
    interpolated = [axis for axis in plan.axes if axis.mode == "spline"]
    across = None if plan.separate_axis is None else plan.axes[plan.separate_axis]
    if any(axis.order > 1 for axis in interpolated) or across in interpolated:
        _resample_by_indicators(labels, plan, out)
        return
    leading = plan.separate_axis or 0
    source, target = np.moveaxis(labels, leading, 0), np.moveaxis(out, leading, 0)
    first, rows, columns = (_corners(plan.axes[axis]) for axis in (leading, *(a for a in range(3) if a != leading)))
    last = -1
    for index in range(len(target)):
        if len(first.neighbours) == 1 and index > 0 and first.nearest[index] == last:
            target[index] = target[index - 1]
            continue
        last = first.nearest[index]
        planes = [source[neighbour[index]] for neighbour in first.neighbours]
        weights = [float(weight[index]) for weight in first.weights]
        _resample_slice(planes, weights, source[last], rows, columns, rule, target[index])


def _corners(axis: AxisMap) -> _Corners:
    if axis.mode == "spline":
        taps = axis.taps
        return _Corners(axis.index, (taps.lower, taps.upper), (1 - taps.fraction, taps.fraction))
    return _Corners(axis.index, (axis.index,), (np.ones(axis.size_out),))


def _resample_slice(
    planes: list[NDArray[Any]],
    plane_weights: list[float],
    nearest_plane: NDArray[Any],
    rows: _Corners,
    columns: _Corners,
    rule: TieRule,
    out: NDArray[Any],
) -> None:
    """One output slice from the one or two input slices around it."""
    out[...] = nearest_plane[rows.nearest][:, columns.nearest]
    mixed_rows, mixed_columns = np.nonzero(_mixed(planes, rows, columns))
    if mixed_rows.size == 0:
        return
    labels, weights = [], []
    for (plane, w), (r, wr), (c, wc) in product(
        zip(planes, plane_weights, strict=True),
        zip(rows.neighbours, rows.weights, strict=True),
        zip(columns.neighbours, columns.weights, strict=True),
    ):
        labels.append(plane[r[mixed_rows], c[mixed_columns]])
        weights.append(w * wr[mixed_rows] * wc[mixed_columns])
    out[mixed_rows, mixed_columns] = _winners(np.stack(labels), np.stack(weights), out[mixed_rows, mixed_columns], rule)


def _mixed(planes: list[NDArray[Any]], rows: _Corners, columns: _Corners) -> NDArray[np.bool_]:
    """Where the neighbourhood of an output position holds more than one label; decided on the input grid first."""
    reference = planes[0]
    height, width = reference.shape
    mixed = np.zeros(reference.shape, np.bool_)
    for plane, down, right in product(planes, range(len(rows.neighbours)), range(len(columns.neighbours))):
        mixed[: height - down, : width - right] |= plane[down:, right:] != reference[: height - down, : width - right]
    result: NDArray[np.bool_] = mixed[rows.neighbours[0]][:, columns.neighbours[0]]
    return result


def _winners(labels: NDArray[Any], weights: NDArray[np.float64], nearest: NDArray[Any], rule: TieRule) -> NDArray[Any]:
    """The winning label of every voxel from its neighbours' labels and weights, both (neighbours, voxels)."""
    totals = np.zeros_like(weights)
    for label, total in zip(labels, totals, strict=True):
        for other, weight in zip(labels, weights, strict=True):
            total += weight * (other == label)
    if rule == "majority":
        best = totals.argmax(axis=0)[None]
        winner = np.take_along_axis(labels, best, 0)[0]
        majority: NDArray[Any] = winner * (np.take_along_axis(totals, best, 0)[0] > 0.5)
        return majority
    if rule == "smallest":
        totals = (totals * 1000).astype(np.float16).astype(np.float64)
    is_best = totals == totals.max(axis=0)
    smallest: NDArray[Any] = np.where(is_best, labels, labels.max()).min(axis=0)
    if rule == "smallest":
        return smallest
    result: NDArray[Any] = np.where((is_best & (labels == nearest)).any(axis=0), nearest, smallest)
    return result


def _resample_by_indicators(labels: NDArray[Any], plan: InterpolationPlan, out: NDArray[Any]) -> None:
    """Label by label with the full operators, within slices first and then across them (any spline order)."""
    values = np.unique(labels)
    separate = plan.separate_axis
    in_plane = [axis for axis in range(3) if axis != separate and plan.axes[axis].mode != "identity"]
    stages = [in_plane] if separate is None or plan.axes[separate].mode == "identity" else [in_plane, [separate]]
    current = labels
    for axes in stages:
        shape = tuple(plan.axes[a].size_out if a in axes else n for a, n in enumerate(current.shape))
        best = np.full(shape, -np.inf)
        result = np.full(shape, values[0], labels.dtype)
        nearest = current
        for axis in axes:
            nearest = nearest.take(plan.axes[axis].index, axis=axis)
        for value in values:
            weight = (current == value).astype(np.float64)
            for axis in axes:
                weight = np.moveaxis(np.tensordot(_operator(plan.axes[axis]), weight, (1, axis)), 0, axis)
            np.clip(weight, 0, 1, out=weight)
            wins = (weight > best) | ((weight == best) & (nearest == value))
            result[wins] = value
            np.maximum(best, weight, out=best)
        current = result
    out[...] = current


def _operator(axis: AxisMap) -> NDArray[np.float64]:
    return axis.operator if axis.mode == "spline" else np.eye(axis.size_in)[axis.index]
