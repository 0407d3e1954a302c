"""What only shows when the cases of a dataset are compared: copies, outliers, labels that never occur."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunet_lite.experiment_planning.case_examination import CaseReport
from nnunet_lite.imageio.base_reader_writer import rounded
from nnunet_lite.plans.faults import Fault

_LISTED = 10  # names in one finding
_FAR = 8.0  # factor to the median; a wrong unit is 10 or 1000, slice thicknesses of one study differ less than this


def compare_cases(reports: Mapping[str, CaseReport], labels: Mapping[str, int | list[int]]) -> Iterator[Fault]:
    """Findings about cases in comparison with one another.

    Args:
        reports: of every case that was examined.
        labels: of dataset.json, as far as they are usable.
    """
    yield from _copies(reports)
    grids = {name: report for name, report in reports.items() if report.shape and min(report.spacing) > 0}
    yield from _mixed_dimensions(grids)
    for is_flat in (False, True):
        group = {name: report for name, report in grids.items() if (report.shape[0] == 1) == is_flat}
        outliers = list(_far_from_median("spacing-outlier", "spacing", {n: r.spacing for n, r in group.items()}))
        yield from outliers
        named = {outlier.case for outlier in outliers}  # whose extents cannot be right either
        extents = {n: [e * s for e, s in zip(r.shape, r.spacing, strict=True)] for n, r in group.items()}
        extents = {name: extent for name, extent in extents.items() if name not in named}
        yield from _far_from_median("size-outlier", "extent (shape times spacing)", extents)
    counted = [report.label_counts for report in reports.values() if report.label_counts is not None]
    if counted:
        yield from _never(labels, counted)


def voxels_per_label(reports: Mapping[str, CaseReport]) -> dict[int, tuple[int, int]]:
    """Label -> voxels and cases it occurs in, over all cases."""
    voxels, cases = Counter[int](), Counter[int]()
    for report in reports.values():
        voxels.update(report.label_counts or {})
        cases.update(list(report.label_counts or {}))
    return {label: (voxels[label], cases[label]) for label in sorted(voxels)}


def _copies(reports: Mapping[str, CaseReport]) -> Iterator[Fault]:
    places: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name, report in reports.items():
        for file, digest in report.digests.items():
            places[digest].setdefault(file, name)
    for copies in places.values():
        if len(copies) > 1:
            (file, name), *_ = copies.items()
            others = list(copies)[1:]
            more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
            found = f"the same voxels as {', '.join(Path(other).name for other in others[:_LISTED])}{more}"
            yield Fault("image-duplicate", found, "", name, file, details={"copies": others})


def _mixed_dimensions(grids: Mapping[str, CaseReport]) -> Iterator[Fault]:
    flat = [name for name, report in grids.items() if report.shape[0] == 1]
    if 0 < len(flat) < len(grids):
        rare = flat if 2 * len(flat) <= len(grids) else [name for name in grids if name not in set(flat)]
        kind = "2D" if rare is flat else "3D"
        for name in rare:
            found = f"a {kind} image of shape {list(grids[name].shape)}"
            yield Fault("dimension-mixture", found, f"{'3D' if kind == '2D' else '2D'} as most cases", name)


def _far_from_median(kind: str, what: str, values: Mapping[str, Sequence[float]]) -> Iterator[Fault]:
    if len(values) < 3:
        return
    median = np.median(np.array(list(values.values()), dtype=float), axis=0)
    for name, numbers in values.items():
        ratio = np.array(numbers) / median
        if max(ratio.max(), 1 / ratio.min()) > _FAR:
            found = f"{what} {rounded(round(n, 3) for n in numbers)}"
            yield Fault(kind, found, f"about {rounded(round(n, 3) for n in median.tolist())}, the median", name)


def _never(labels: Mapping[str, int | list[int]], counted: Sequence[Mapping[int, int]]) -> Iterator[Fault]:
    seen = {label for counts in counted for label in counts}
    missing = {
        name: value
        for name, value in labels.items()
        if name != "background" and not seen & set(value if isinstance(value, list) else [value])
    }
    if missing:
        named = [f"{name} ({value})" for name, value in missing.items()]
        more = f" and {len(named) - _LISTED} more" if len(named) > _LISTED else ""
        found = f"{len(missing)} of {len(labels)} labels: {', '.join(named[:_LISTED])}{more}"
        yield Fault("label-never", found, file="dataset.json", details={"labels": missing})
