"""Tables of a model's cross-validation: per class, and per case in a table that sorts and can be searched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from nnunet_lite.evaluation.metrics import LabelOrRegion
from nnunet_lite.reporting.case_results import CaseResult, Results, sorted_by_dice
from nnunet_lite.reporting.charts import Range, range_chart
from nnunet_lite.reporting.markup import Markup, element, joined, score, table

MOST_CLASS_COLUMNS = 12  # of the table of cases; with more classes it names the worst of each case
_MOST_CHART_ROWS = 40


def results_section(results: Results, names: Mapping[LabelOrRegion, str], most_cases: int) -> Markup:
    """Both tables; at most so many cases, the worst ones."""
    faults = [element("p", fault, class_="warning") for fault in results.faults]
    if not results.cases:
        return joined(*faults, element("p", "No case has been validated.", class_="note"))
    everywhere = [case for case in results.cases if case.fold == "all"]
    warning = "Fold all was validated with the cases it was trained with: its scores say little of new cases."
    return joined(
        *faults,
        element("p", warning, class_="warning") if everywhere else None,
        element(
            "p",
            f"{len(results.cases)} cases, mean foreground Dice ",
            element("strong", score(results.mean)),
            " (mean over cases for each class, then over classes; what occurs in neither reference nor prediction is "
            "left out).",
        ),
        _classes(results, names),
        _cases(results, names, most_cases),
    )


def _classes(results: Results, names: Mapping[LabelOrRegion, str]) -> Markup:
    rows, ranges = [], []
    for entry in results.classes:
        values = sorted(value for case in results.cases if not math.isnan(value := case.dice.get(entry, math.nan)))
        name = str(names.get(entry, entry))
        if not values:
            rows.append([name, _label(entry), *[score(None)] * 3, 0, 0])
            continue
        missed = sum(value == 0 for value in values)
        rows.append([name, _label(entry), score(results.mean_of(entry)), score(median(values)), score(values[0])])
        rows[-1] += [len(values), missed]
        tenth = len(values) // 10
        ranges.append(Range(name, values[tenth], median(values), values[-1 - tenth]))
    header = ["class", "label", "mean Dice", "median Dice", "lowest Dice", "cases", "with Dice 0"]
    chart = range_chart(ranges[:_MOST_CHART_ROWS], f"Dice of each class: {results.name}",
                        "Dice of the middle 80 % of the cases, median marked", (0.0, 1.0))  # fmt: skip
    return joined(
        sortable(header, rows, f"Classes: {results.name}", first_sorted=None),
        element("div", chart, class_="charts"),
    )


def _label(entry: LabelOrRegion) -> str:
    return ", ".join(map(str, entry)) if isinstance(entry, tuple) else str(entry)


def _cases(results: Results, names: Mapping[LabelOrRegion, str], most: int) -> Markup:
    ordered = sorted_by_dice(results.cases)
    shown, left_out = ordered[:most], len(ordered) - most
    columns = results.classes if len(results.classes) <= MOST_CLASS_COLUMNS else []
    header = ["case", "fold", "mean Dice"]
    header += (
        [str(names.get(entry, entry)) for entry in columns] if columns else ["lowest Dice", "of class", "with Dice 0"]
    )
    rows = [_row(case, columns, names) for case in shown]
    note = f"The {left_out} cases with the highest Dice are left out; summary.json has them all."
    return joined(
        sortable(header, rows, f"Cases: {results.name}", first_sorted=2, searchable=True),
        element("p", note, class_="note") if left_out > 0 else None,
    )


def _row(case: CaseResult, columns: Sequence[LabelOrRegion], names: Mapping[LabelOrRegion, str]) -> list[object]:
    fold = "" if case.fold is None else case.fold
    row: list[object] = [case.name, fold, score(case.mean)]
    if columns:
        return [*row, *[score(case.dice.get(entry)) for entry in columns]]
    values = {entry: value for entry, value in case.dice.items() if not math.isnan(value)}
    if not values:
        return [*row, score(None), "", 0]
    worst = min(values, key=lambda entry: values[entry])
    missed = sum(value == 0 for value in values.values())
    return [*row, score(values[worst]), names.get(worst, worst), missed]


def sortable(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    caption: str,
    first_sorted: int | None,
    *,
    searchable: bool = False,
) -> Markup:
    """A table whose columns sort when their heading is pressed, and which can be searched.

    Args:
        first_sorted: the column by which the rows are in ascending order already.
        searchable: put a field above it that hides other rows.
    """
    buttons = [element("button", word, type="button") for word in header]
    content = table(buttons, rows, caption, ascending=first_sorted, class_="sortable")
    if not searchable:
        return element("div", content, class_="results")
    field = element(
        "label",
        "Find ",
        element("input", type="search", placeholder="part of a row", autocomplete="off", spellcheck="false"),
        " ",
        element("output", f"{len(rows)} rows", aria_live="polite"),
        class_="search",
    )
    return element("div", field, content, class_="results")
