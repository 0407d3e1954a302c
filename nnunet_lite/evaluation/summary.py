"""summary.json: the metrics of all cases, their means, and the class keys it is written with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_lite.evaluation.additional_metrics import ADDITIONAL
from nnunet_lite.evaluation.metrics import LabelOrRegion
from nnunet_lite.utilities.files import PathLike, load_json, save_json

_KEYED_BY_CLASS = ("mean", "number_of_cases", "nsd_tolerance_mm", "lesions_of_all_cases")
_KEYED_BY_METRIC = ("foreground_mean", "number_of_classes")


def label_or_region_to_key(label_or_region: LabelOrRegion) -> str:
    """Key of a class in the file: `1`, or `(1, 2)` for a region."""
    return str(label_or_region)


def key_to_label_or_region(key: str) -> LabelOrRegion:
    """The class behind a key of the file."""
    try:
        return int(key)
    except ValueError:
        return tuple(int(member) for member in key.strip("()").split(",") if member.strip())


def plain_label_or_region(label_or_region: Any) -> LabelOrRegion:
    """A class in plain Python integers, since numpy's would show in the file's keys."""
    if isinstance(label_or_region, (list, tuple, np.ndarray)):
        return tuple(int(member) for member in label_or_region)
    return int(label_or_region)


def names_of_classes(labels: Mapping[str, Any]) -> dict[LabelOrRegion, str]:
    """Class -> name, by `labels` of dataset.json; of several names of one class the first.

    A region is a tuple; that of one label is found as the label, too, which it is where no region has more.
    """
    names: dict[LabelOrRegion, str] = {}
    classes = [(name, plain_label_or_region(entry)) for name, entry in labels.items()]
    for name, entry in classes:
        names.setdefault(entry, name)
    for name, entry in classes:
        if isinstance(entry, tuple) and len(entry) == 1:
            names.setdefault(entry[0], name)
    return names


def summarize(metric_per_case: Sequence[dict[str, Any]], classes: Sequence[LabelOrRegion]) -> dict[str, Any]:
    """Means over cases and over foreground classes (nnU-Net v2 2.8.1 behaviour, spec 03, 7.3).

    The mean of a class passes over cases where it is NaN; the foreground mean does not pass over classes that are NaN.

    Returns:
        metric_per_case, mean (class -> metric), foreground_mean (metric).
    """
    names = list(metric_per_case[0]["metrics"][classes[0]]) if metric_per_case and classes else []
    mean = {
        entry: {name: _mean_of_numbers([case["metrics"][entry][name] for case in metric_per_case]) for name in names}
        for entry in classes
    }
    foreground = [values for entry, values in mean.items() if entry != 0]
    return {
        "metric_per_case": list(metric_per_case),
        "mean": mean,
        "foreground_mean": {
            name: float(np.mean([values[name] for values in foreground])) if foreground else math.nan for name in names
        },
    }


def _mean_of_numbers(values: Sequence[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return float(np.mean(numbers)) if numbers else math.nan


def save_summary_json(results: dict[str, Any], output_file: PathLike) -> None:
    """Write results as summary.json (sorted keys, indent 4, NaN as a bare token)."""
    written = _with_keys(results, label_or_region_to_key)
    if ADDITIONAL in results:
        written[ADDITIONAL] = _with_keys(results[ADDITIONAL], label_or_region_to_key)
    save_json(written, output_file)


def load_summary_json(filename: PathLike) -> dict[str, Any]:
    """Read a summary.json, class keys turned back into labels and regions."""
    loaded: dict[str, Any] = load_json(filename)
    results = {**loaded, **_with_keys(loaded, key_to_label_or_region)}
    if ADDITIONAL in loaded:
        results[ADDITIONAL] = _with_keys(loaded[ADDITIONAL], key_to_label_or_region)
    return results


def _with_keys(results: dict[str, Any], changed: Callable[[Any], Any]) -> dict[str, Any]:
    """Results whose classes are named otherwise, wherever they are keys."""

    def by_class(values: dict[Any, Any]) -> dict[Any, Any]:
        return {changed(entry): value for entry, value in values.items()}

    cases = [{**case, "metrics": by_class(case["metrics"])} for case in results["metric_per_case"]]
    others = {name: by_class(results[name]) for name in _KEYED_BY_CLASS if name in results}
    more = {name: results[name] for name in _KEYED_BY_METRIC if name in results}
    return {**others, **more, "metric_per_case": cases}
