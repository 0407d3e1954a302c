"""Charts: round ticks, values in their places, nothing drawn of what is no number."""

from __future__ import annotations

import math
import re

import pytest

from nnunet_lite.reporting.charts import Curve, Range, histogram, legend, line_chart, range_chart, thinned, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-0.9, 0.3, [-0.75, -0.5, -0.25, 0, 0.25]), (0, 999, [0, 200, 400, 600, 800])],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected
    for width in (1e-9, 0.37, 41, 5e8):
        found = ticks(low, low + width)
        assert 2 <= len(found) <= 7 and all(low - 1e-9 * width <= tick <= low + width * (1 + 1e-9) for tick in found)


def test_ticks_of_nothing() -> None:
    assert ticks(3, 3) == [3] and ticks(math.nan, 1) == [] and ticks(-math.inf, 1) == []


def points(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'<path d="M([^"]*)" class="curve', svg)
    return [[tuple(map(float, point.split())) for point in line.split("L")] for line in lines]  # type: ignore[misc]


def test_a_curve_passes_through_its_values() -> None:
    svg = line_chart([Curve("<b>", [0, 1, 2], [1.0, math.nan, 0.0])], "Loss", "epoch", "loss", (0, 1))
    [line] = points(svg)
    assert len(line) == 2 and line[0][0] < line[1][0] and line[0][1] < line[1][1]  # higher values are further up
    assert "&lt;b&gt;" in svg and "<b>" not in svg
    assert [int(tick) for tick in re.findall(r'middle">(\d+)</text>', svg)] == [0, 1, 2]  # no half epochs


def test_long_curves_are_averaged() -> None:
    x, y = thinned(range(1000), [float(value % 2) for value in range(1000)], 100)
    assert len(x) == 100 and y == [0.5] * 100 and x[0] == 4.5
    assert len(line_chart([Curve("a", range(10**5), [1.0] * 10**5)], "t", "x", "y")) < 10_000


def test_a_single_epoch_is_visible() -> None:
    chart = line_chart([Curve("a", [0], [0.5], 1), Curve("b", [0], [0.7], 1, "dashed")], "t", "x", "y", (0, 1))
    dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="3.5" class="(.*?)">', chart)
    assert [style for *_, style in dots] == ["dot s1", "dot s1 dashed"]
    assert dots[0][0] == dots[1][0] == "54.0" and float(dots[0][1]) > float(dots[1][1])
    labels = re.findall(r">(-?[\d.]+)</text>", chart.split('class="grid"')[0] + chart)
    assert {"0", "1"} <= set(labels) and "-1" not in labels


def test_one_wild_value_does_not_flatten_the_rest() -> None:
    values = [1e6, *[1 - k / 100 for k in range(60)]]
    [line] = points(line_chart([Curve("a", range(61), values)], "t", "x", "y"))
    heights = [y for _, y in line]
    assert max(heights[1:]) - min(heights[1:]) > 80 and min(heights) >= 12


def test_nothing_to_draw() -> None:
    assert "no values" in line_chart([Curve("a", [0, 1], [math.nan] * 2)], "t", "x", "y")
    assert "no values" in histogram([math.nan], "t", "x") and "no values" in range_chart([], "t", "x")


@pytest.mark.parametrize("values", [[3, 3, 4, 9], [0.5, 0.25, 0.9], [7], [1.0] * 40, [1e-3, 5e4], list(range(31, 44))])
def test_every_value_is_in_a_bar(values: list[float]) -> None:
    svg = histogram(values, "Shape", "voxels")
    bars = re.findall(r"<title>(\S+) to (\S+): (\d+)</title>", svg)
    assert sum(int(count) for _, _, count in bars) == len(values)
    assert float(bars[0][0]) <= min(values) and float(bars[-1][1]) >= max(values) * 0.999


def test_ranges() -> None:
    svg = range_chart([Range("x" * 90, 0.2, 0.5, 0.9), Range("bad", math.nan, 0, 1)], "Dice", "Dice", (0, 1))
    assert svg.count("<rect") == 1 and "0.2 to 0.9" in svg and "bad" not in svg
    assert f'end">{"x" * 25}…</text>' in svg


def test_the_legend_says_what_lines_mean() -> None:
    text = legend(["fold 0", "fold 1"], (("dashed", "validation"),))
    assert re.findall(r"</svg>([^<]*)</li>", text) == ["fold 0", "fold 1", "validation"]
    assert 'class="curve plain dashed"' in text and 'class="curve s1"' in text
