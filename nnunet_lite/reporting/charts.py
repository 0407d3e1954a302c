"""Small charts as inline SVG: curves, histograms, ranges. Colours are classes of the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from nnunet_lite.reporting.markup import Markup, element, number

SERIES_COLOURS = 8  # classes s0 to s7 of the style sheet; they repeat
_MOST_POINTS = 300  # of a curve; longer ones are averaged
_WIDTH, _HEIGHT = 420, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 12, 40  # margins of a chart
_BINS = 16


class Curve(NamedTuple):
    """A line of a chart; `style` is "" or "dashed"."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    series: int = 0  # colour
    style: str = ""


class _Scale(NamedTuple):
    """From values to positions."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two values, at most `most`."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [0.0 if k == 0 else float(f"{k * step:.10g}") for k in range(first, last + 1)]


def thinned(x: Sequence[float], y: Sequence[float], most: int = _MOST_POINTS) -> tuple[list[float], list[float]]:
    """A long curve as means of neighbouring points; NaN is passed over, points without any number are left out."""
    width = max(1, -(-len(x) // most))
    points = []
    for start in range(0, len(x), width):
        values = [value for value in y[start : start + width] if math.isfinite(value)]
        if values:
            places = x[start : start + width]
            points.append((sum(places) / len(places), sum(values) / len(values)))
    return [place for place, _ in points], [value for _, value in points]


def line_chart(
    curves: Sequence[Curve], title: str, x_label: str, y_label: str, y_range: tuple[float, float] | None = None
) -> Markup:
    """Curves over a common axis; points that are no numbers are left out."""
    drawn = [curve._replace(x=x, y=y) for curve in curves for x, y in [thinned(curve.x, curve.y)] if x]
    if not drawn:
        return element("p", f"{title}: no values yet.", class_="note")
    places = [place for curve in drawn for place in curve.x]
    x_axis = _span(places) if min(places) < max(places) else (places[0], places[0] + 1)
    y_axis = y_range or _padded(*_span(_without_outliers([value for curve in drawn for value in curve.y])))
    x = _Scale(*x_axis, _LEFT, _WIDTH - _RIGHT)
    y = _Scale(*y_axis, _HEIGHT - _BOTTOM, _TOP)
    lines = [_line(curve, x, y) for curve in drawn]
    x_ticks = ticks(*x_axis)
    if all(place == round(place) for curve in curves for place in curve.x):
        x_ticks = [tick for tick in x_ticks if tick == round(tick)]
    axes = _axes(x, y, x_ticks, ticks(*y_axis), x_label, y_label)
    return _chart(title, axes, *lines)


def _line(curve: Curve, x: _Scale, y: _Scale) -> Markup:
    """A curve; a point alone, which would have no length, is a dot."""
    bottom, top = max(y.start, y.end), min(y.start, y.end)
    points = [(x.at(place), min(bottom, max(top, y.at(value)))) for place, value in zip(curve.x, curve.y, strict=True)]
    title, style = element("title", curve.name), f"s{curve.series % SERIES_COLOURS} {curve.style}".strip()
    if len(points) == 1:
        across, down = points[0]
        return element("circle", title, cx=f"{across:.1f}", cy=f"{down:.1f}", r="3.5", class_=f"dot {style}")
    line = "M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in points)
    return element("path", title, d=line, class_=f"curve {style}")


def _without_outliers(values: list[float]) -> list[float]:
    """Without the few far beyond the others, such as a loss in a first epoch, which would flatten all the rest."""
    if len(values) < 20:
        return values
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    reach = 1.5 * (high - low)
    return [value for value in values if low - reach <= value <= high + reach]


def histogram(values: Sequence[float], title: str, x_label: str, y_label: str = "cases") -> Markup:
    """How often values occur; few different values get a bar each."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return element("p", f"{title}: no values.", class_="note")
    bars = _bars(values)
    x_axis = (bars[0][0], bars[-1][1])
    highest = max(count for _, _, count in bars)
    x, y = _Scale(*x_axis, _LEFT, _WIDTH - _RIGHT), _Scale(0, highest * 1.05, _HEIGHT - _BOTTOM, _TOP)
    drawn = [
        element(
            "rect",
            element("title", f"{number(low)} to {number(high)}: {count}"),
            x=f"{x.at(low) + 0.5:.1f}",
            y=f"{y.at(count):.1f}",
            width=f"{max(1.0, x.at(high) - x.at(low) - 1):.1f}",
            height=f"{y.start - y.at(count):.1f}",
            class_="bar",
        )
        for low, high, count in bars
        if count
    ]
    x_ticks = [values[0]] if min(values) == max(values) else ticks(*x_axis)
    y_ticks = [tick for tick in ticks(0, highest * 1.05) if tick == round(tick)]
    return _chart(title, _axes(x, y, x_ticks, y_ticks, x_label, y_label), *drawn)


def _bars(values: Sequence[float]) -> list[tuple[float, float, int]]:
    """(from, to, count)."""
    low, high = min(values), max(values)
    if low == high:
        width = max(abs(low) * 0.1, 1e-6)
        return [
            (low - 3 * width, low - width, 0),
            (low - width, low + width, len(values)),
            (low + width, low + 3 * width, 0),
        ]
    whole = all(value == round(value) for value in values)
    width = (high - low) / _BINS
    if whole:  # bars as wide as whole numbers, in whose middle the number stands
        width, low = max(1.0, math.ceil((high - low + 1) / _BINS)), low - 0.5
    counts = [0] * max(1, math.ceil((high - low) / width))
    for value in values:
        counts[min(len(counts) - 1, int((value - low) / width))] += 1
    return [(low + k * width, low + (k + 1) * width, count) for k, count in enumerate(counts)]


class Range(NamedTuple):
    """Where values lie: percentiles, and a mark in between."""

    name: str
    low: float
    middle: float
    high: float


def range_chart(ranges: Sequence[Range], title: str, x_label: str, span: tuple[float, float] | None = None) -> Markup:
    """A bar from `low` to `high` with a mark at `middle`, one below the other."""
    ranges = [entry for entry in ranges if all(math.isfinite(value) for value in entry[1:])]
    if not ranges:
        return element("p", f"{title}: no values.", class_="note")
    row, top = 26, 8
    bottom = top + row * len(ranges)
    low, high = span or _padded(*_span([value for entry in ranges for value in entry[1:]]))
    longest = max(len(entry.name) for entry in ranges)
    x = _Scale(low, high, min(220, 20 + 7 * min(longest, 26)), _WIDTH - _RIGHT)
    parts = [_grid(x.at(tick), top, bottom, number(tick), bottom + 16) for tick in ticks(low, high)]
    for index, entry in enumerate(ranges):
        y = top + row * index + row / 2
        name = entry.name if len(entry.name) <= 26 else f"{entry.name[:25]}\N{HORIZONTAL ELLIPSIS}"
        words = f"{entry.name}: {number(entry.low)} to {number(entry.high)}, {number(entry.middle)} in the middle"
        left, right = (min(max(x.at(value), x.start), x.end) for value in (entry.low, entry.high))
        parts += [
            element("text", name, x=f"{x.start - 8:.0f}", y=f"{y + 4:.0f}", text_anchor="end"),
            element(
                "rect",
                element("title", words),
                x=f"{left:.1f}",
                y=f"{y - 6:.0f}",
                width=f"{max(1.5, right - left):.1f}",
                height="12",
                class_="bar",
            ),
            element("path", d=f"M{x.at(entry.middle):.1f} {y - 9:.0f}v18", class_="mark"),
        ]
    parts.append(element("text", x_label, x=f"{(x.start + x.end) / 2:.0f}", y=f"{bottom + 34}", text_anchor="middle"))
    return _chart(title, *parts, height=bottom + 42)


def legend(names: Sequence[str], styles: Sequence[tuple[str, str]] = ()) -> Markup:
    """Names of series in the order of their colours, and line styles with what they mean."""
    entries = [element("li", _sample(f"curve s{index % SERIES_COLOURS}"), name) for index, name in enumerate(names)] + [
        element("li", _sample(f"curve plain {style}"), meaning) for style, meaning in styles
    ]
    return element("ul", *entries, class_="legend")


def _sample(style: str) -> Markup:
    line = element("path", d="M1 6h26", class_=style)
    return element("svg", line, viewBox="0 0 28 12", width="28", height="12", aria_hidden="true")


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low < high:
        return low, high
    reach = abs(low) * 0.1 or 1.0
    return low - reach, high + reach


def _padded(low: float, high: float) -> tuple[float, float]:
    reach = 0.04 * (high - low)
    return low - reach, high + reach


def _axes(
    x: _Scale, y: _Scale, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str
) -> Markup:
    bottom = _HEIGHT - _BOTTOM
    parts = [_grid(x.at(tick), _TOP, bottom, number(tick), bottom + 16) for tick in x_ticks]
    for tick in y_ticks:
        place = y.at(tick)
        parts.append(element("path", d=f"M{_LEFT} {place:.1f}H{_WIDTH - _RIGHT}", class_="grid"))
        parts.append(element("text", number(tick), x=_LEFT - 6, y=f"{place + 4:.1f}", text_anchor="end"))
    middle = (_TOP + bottom) / 2
    parts.append(element("text", x_label, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 6, text_anchor="middle"))
    parts.append(
        element("text", y_label, x=0, y=0, text_anchor="middle", transform=f"translate(13 {middle:.0f}) rotate(-90)")
    )
    return element("g", *parts)


def _grid(place: float, top: float, bottom: float, label: str, label_y: float) -> Markup:
    line = element("path", d=f"M{place:.1f} {top}V{bottom}", class_="grid")
    return element("g", line, element("text", label, x=f"{place:.1f}", y=f"{label_y:.0f}", text_anchor="middle"))


def _chart(title: str, *content: Markup, height: float = _HEIGHT) -> Markup:
    drawing = element("svg", *content, viewBox=f"0 0 {_WIDTH} {height:.0f}", role="img", aria_label=title)
    return element("figure", element("figcaption", title), drawing, class_="chart")
