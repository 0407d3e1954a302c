"""Voxels of each class, stored with a case so that patches can be drawn around them without reading the case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.configuration import SAMPLING_SEED

LabelOrRegion = int | tuple[int, ...]
ClassLocations = dict[LabelOrRegion, NDArray[np.int64] | list[Any]]

MIN_NUM_SAMPLES = 10000
MIN_PERCENT_COVERAGE = 0.01  # of the voxels of a class, as a fraction


class _Drawn(NamedTuple):
    """Voxels of one label that were drawn: ascending ranks among its voxels, and the rows of `locations` they fill."""

    label: int
    ranks: NDArray[np.int64]
    rows: NDArray[np.int64]
    locations: NDArray[np.int64]


def sample_foreground_locations(
    seg: NDArray[Any],
    classes_or_regions: Sequence[LabelOrRegion],
    seed: int = SAMPLING_SEED,
    min_num_samples: int = MIN_NUM_SAMPLES,
    min_percent_coverage: float = MIN_PERCENT_COVERAGE,
) -> ClassLocations:
    """Draw voxels of each class without replacement; the same ones as nnU-Net v2 2.8.1, bit for bit.

    The pool of a class lists its voxels label by label in the order given, each label's in C order; it is never made:
    two sweeps over the slices count labels and then look up the ranks that were drawn. Memory: one slice, and one
    integer per voxel of the largest class for the draw.

    Args:
        seg: (1, x, y, z), negative outside the nonzero mask.
        classes_or_regions: labels, or regions as tuples of labels, in the order of the draws.
        min_num_samples, min_percent_coverage: how many are drawn of a class, if it has as many: the larger number.

    Returns:
        Class -> (n, 4) voxel indices (0, x, y, z), or an empty list for a class without voxels.
    """
    wanted = {label for request in classes_or_regions for label in _labels(request)}
    counts = _count_per_slice(seg[0], wanted)
    random_state = np.random.RandomState(seed)
    result: ClassLocations = {}
    drawn: list[_Drawn] = []
    for request in classes_or_regions:
        total = sum(int(counts[label].sum()) for label in _labels(request))
        if total == 0:
            result[request] = []
            continue
        number = min(total, max(min_num_samples, int(np.ceil(min_percent_coverage * total))))
        ranks = random_state.choice(total, number, replace=False)
        result[request] = locations = np.zeros((number, 4), np.int64)
        drawn.extend(_by_label(_labels(request), counts, ranks, locations))
    _look_up(seg[0], counts, drawn)
    return result


def _labels(request: LabelOrRegion) -> tuple[int, ...]:
    return request if isinstance(request, tuple) else (request,)


def _count_per_slice(seg: NDArray[Any], wanted: set[int]) -> dict[int, NDArray[np.int64]]:
    """Voxels of each wanted label in every slice along the first axis."""
    counts = {label: np.zeros(len(seg), np.int64) for label in wanted}
    lowest, highest = min(wanted, default=0), max(wanted, default=0)
    for index, plane in enumerate(seg):
        low, high = int(plane.min()), int(plane.max())
        if high < lowest or low > highest:
            continue
        histogram = np.bincount((plane if low == 0 else plane.astype(np.int64) - low).ravel())
        for label in wanted:
            if low <= label <= high:
                counts[label][index] = histogram[label - low]
    return counts


def _by_label(
    labels: tuple[int, ...],
    counts: dict[int, NDArray[np.int64]],
    ranks: NDArray[np.int64],
    locations: NDArray[np.int64],
) -> Iterator[_Drawn]:
    """Split ranks within the pool of a request into ranks within its labels."""
    start = 0
    for label in labels:
        stop = start + int(counts[label].sum())
        rows = np.flatnonzero((ranks >= start) & (ranks < stop))
        within = ranks[rows] - start
        order = np.argsort(within)
        yield _Drawn(label, within[order], rows[order], locations)
        start = stop


def _look_up(seg: NDArray[Any], counts: dict[int, NDArray[np.int64]], drawn: list[_Drawn]) -> None:
    """Fill in the voxel indices of what was drawn, slice by slice."""
    ends = {label: np.cumsum(per_slice) for label, per_slice in counts.items()}
    drawn = sorted(drawn, key=lambda part: part.label)
    for index, plane in enumerate(seg):
        for label, parts in groupby(drawn, key=lambda part: part.label):
            count = int(counts[label][index])
            if count == 0:
                continue
            first = int(ends[label][index]) - count
            voxels = np.flatnonzero(plane.ravel() == label)
            for part in parts:
                low, high = np.searchsorted(part.ranks, (first, first + count))
                rows, columns = np.divmod(voxels[part.ranks[low:high] - first], plane.shape[1])
                part.locations[part.rows[low:high], 1:] = np.stack((np.full_like(rows, index), rows, columns), axis=1)
