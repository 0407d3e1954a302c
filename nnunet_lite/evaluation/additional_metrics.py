"""Metrics beyond upstream's, computed on request: which ones, and their means over cases and classes.

They stand under a key of their own, so that the rest of summary.json stays as upstream writes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nnunet_lite.evaluation.lesion_counts import detection_rates
from nnunet_lite.evaluation.metrics import LabelOrRegion
from nnunet_lite.exceptions import ArgumentError

ADDITIONAL = "additional_metrics"  # key of summary.json
FAMILIES = ("surface", "volume", "lesion")
DEFAULT_TOLERANCE = 1.0  # mm
ClassMetrics = dict[LabelOrRegion, dict[str, float]]


class Request(NamedTuple):
    """What to compute: families of metrics, and the tolerance of the surface Dice for each class (mm)."""

    families: tuple[str, ...]
    tolerances: tuple[float, ...]


def make_request(
    names: Sequence[str] | None, tolerances: Sequence[float] | None, classes: Sequence[LabelOrRegion]
) -> Request | None:
    """What a user asked for; None if nothing.

    Args:
        names: surface, volume, lesion or all.
        tolerances: mm; one for all classes or one for each, in their order; None: 1 mm.
        classes: the labels and regions that are evaluated.

    Raises:
        ArgumentError: an unknown name, a tolerance that is not above zero, or their number does not fit.
    """
    unknown = [name for name in names or () if name not in (*FAMILIES, "all")]
    if unknown:
        raise ArgumentError(f"--metrics {unknown[0]}: expected one or more of {', '.join(FAMILIES)}, or all")
    families = tuple(name for name in FAMILIES if name in (names or ()) or "all" in (names or ()))
    if tolerances is not None and "surface" not in families:
        raise ArgumentError("--nsd_tolerance belongs to the surface metrics; add --metrics surface")
    given = list(tolerances or [DEFAULT_TOLERANCE])
    wrong = [value for value in given if not (value > 0 and math.isfinite(value))]
    if wrong:
        raise ArgumentError(f"--nsd_tolerance {wrong[0]:g}: expected a number of mm above zero")
    if len(given) not in (1, len(classes)):
        raise ArgumentError(
            f"--nsd_tolerance: {len(given)} numbers; expected one for all classes, or one for each of "
            f"{', '.join(map(str, classes))} in this order"
        )
    if not families:
        return None
    return Request(families, tuple(given if len(given) == len(classes) else given * len(classes)))


def summarize_additional(
    metric_per_case: Sequence[dict[str, Any]], classes: Sequence[LabelOrRegion], request: Request
) -> dict[str, Any]:
    """Means of the additional metrics, each with the number of cases (or classes) it is taken over.

    A mean passes over cases in which a class has no such value, the foreground mean over classes without a mean.

    Args:
        metric_per_case: reference_file, prediction_file and metrics (class -> metric -> value) of every case.

    Returns:
        nsd_tolerance_mm (with surface metrics), metric_per_case, mean and number_of_cases (class -> metric),
        foreground_mean and number_of_classes (metric), lesions_of_all_cases (with lesions, class -> metric).
    """
    names = list(dict.fromkeys(n for case in metric_per_case for values in case["metrics"].values() for n in values))
    mean: ClassMetrics = {}
    counts: ClassMetrics = {}
    for entry in classes:
        columns = {name: [case["metrics"][entry].get(name, math.nan) for case in metric_per_case] for name in names}
        averaged = {name: _mean_and_number(column) for name, column in columns.items()}
        mean[entry] = {name: value for name, (value, _) in averaged.items()}
        counts[entry] = {name: number for name, (_, number) in averaged.items()}
    foreground = [values for entry, values in mean.items() if entry != 0]
    overall = {name: _mean_and_number([values[name] for values in foreground]) for name in names}
    results: dict[str, Any] = {
        "metric_per_case": list(metric_per_case),
        "mean": mean,
        "number_of_cases": counts,
        "foreground_mean": {name: value for name, (value, _) in overall.items()},
        "number_of_classes": {name: number for name, (_, number) in overall.items()},
    }
    if "surface" in request.families:
        results["nsd_tolerance_mm"] = dict(zip(classes, request.tolerances, strict=True))
    if "lesion" in request.families:
        results["lesions_of_all_cases"] = {entry: _all_lesions(metric_per_case, entry) for entry in classes}
    return results


def _mean_and_number(values: Iterable[float]) -> tuple[float, int]:
    numbers = [value for value in values if not math.isnan(value)]
    return (float(np.mean(numbers)), len(numbers)) if numbers else (math.nan, 0)


def _all_lesions(metric_per_case: Sequence[dict[str, Any]], entry: LabelOrRegion) -> dict[str, float]:
    """Lesions of all cases counted together, and the rates of these sums."""
    names = ("lesions_ref", "lesions_pred", "lesions_found", "lesions_missed", "lesions_false")
    sums = {name: int(sum(case["metrics"][entry][name] for case in metric_per_case)) for name in names}
    return {**sums, **detection_rates(sums["lesions_found"], sums["lesions_missed"], sums["lesions_false"])}
