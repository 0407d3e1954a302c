"""What the fingerprint says of a dataset's images: shapes, spacings, intensities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from nnunet_lite.plans.fingerprint import DatasetFingerprint
from nnunet_lite.reporting.charts import Range, histogram, range_chart
from nnunet_lite.reporting.markup import Markup, element, joined, number, table

_MOST_CHANNELS = 24
_AXES = ("axis 0 (slices)", "axis 1 (rows)", "axis 2 (columns)")
_STATISTICS = (
    ("min", "minimum"),
    ("percentile_00_5", "0.5 %"),
    ("mean", "mean"),
    ("std", "standard deviation"),
    ("median", "median"),
    ("percentile_99_5", "99.5 %"),
    ("max", "maximum"),
)


def fingerprint_section(fingerprint: DatasetFingerprint, channel_names: Sequence[str]) -> Markup:
    """Histograms and tables; the first axis of 2D images, which has no meaning, is left out."""
    shapes, spacings = fingerprint.shapes_after_crop, fingerprint.spacings
    axes = [axis for axis in range(3) if axis > 0 or any(shape[0] != 1 for shape in shapes)]
    charts = [_histogram([shape[axis] for shape in shapes], "Shape", axis, "voxels") for axis in axes]
    charts += [_histogram([spacing[axis] for spacing in spacings], "Spacing", axis, "mm") for axis in axes]
    kept = fingerprint.median_relative_size_after_cropping
    rows = [_row(f"shape, {_AXES[axis]}", [shape[axis] for shape in shapes], "voxels") for axis in axes]
    rows += [_row(f"spacing, {_AXES[axis]}", [spacing[axis] for spacing in spacings], "mm") for axis in axes]
    return joined(
        element(
            "p",
            f"{len(shapes)} training cases. Shapes are those after cropping to what is not zero, which kept "
            f"{100 * kept:.1f} % of the voxels (median over cases).",
        ),
        element("div", *charts, class_="charts"),
        table(["", "smallest", "median", "largest", "unit"], rows, "Shapes and spacings"),
        _intensities(fingerprint.intensity_properties, channel_names),
    )


def _histogram(values: Sequence[float], what: str, axis: int, unit: str) -> Markup:
    return histogram(values, f"{what}, {_AXES[axis]}", unit)


def _row(name: str, values: Sequence[float], unit: str) -> list[Any]:
    return [name, number(min(values)), number(median(values)), number(max(values)), unit]


def _intensities(properties: dict[str, dict[str, float]], channel_names: Sequence[str]) -> Markup:
    channels = sorted(properties, key=lambda key: (len(key), key))
    rows, charts = [], []
    for index, key in enumerate(channels[:_MOST_CHANNELS]):
        name = f"{key}: {channel_names[index]}" if index < len(channel_names) else key
        values = {entry: properties[key].get(entry, math.nan) for entry, _ in _STATISTICS}
        rows.append([name, *[number(values[entry]) for entry, _ in _STATISTICS]])
        one = Range(name, values["percentile_00_5"], values["median"], values["percentile_99_5"])
        charts.append(range_chart([one], f"Foreground intensities, channel {name}", "0.5 % to 99.5 %, median marked"))
    rest = len(channels) - _MOST_CHANNELS
    header = ["channel", *[word for _, word in _STATISTICS]]
    return joined(
        element("div", *charts, class_="charts"),
        table(header, rows, "Intensities of foreground voxels"),
        element("p", f"{rest} further channels are not shown.", class_="note") if rest > 0 else None,
    )
