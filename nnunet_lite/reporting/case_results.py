"""What cross-validation says of every case, which cases are worst, which are in the middle."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_lite.evaluation.metrics import LabelOrRegion
from nnunet_lite.evaluation.summary import load_summary_json
from nnunet_lite.models.model_names import Fold


class CaseResult(NamedTuple):
    """One validated case."""

    name: str
    fold: Fold | None  # None: put together from several
    dice: dict[LabelOrRegion, float]
    prediction: Path

    @property
    def mean(self) -> float:
        """Mean Dice of the classes that occur in reference or prediction; NaN for none."""
        values = [value for value in self.dice.values() if not math.isnan(value)]
        return sum(values) / len(values) if values else math.nan


class Results(NamedTuple):
    """All cases of a model or ensemble."""

    name: str
    classes: list[LabelOrRegion]
    cases: list[CaseResult]
    faults: list[str]

    def mean_of(self, entry: LabelOrRegion) -> float:
        """Mean Dice of a class over the cases where it occurs."""
        values = [case.dice[entry] for case in self.cases if not math.isnan(case.dice.get(entry, math.nan))]
        return sum(values) / len(values) if values else math.nan

    @property
    def mean(self) -> float:
        """Mean of the classes' means, classes that never occur passed over."""
        values = [value for entry in self.classes if not math.isnan(value := self.mean_of(entry))]
        return sum(values) / len(values) if values else math.nan


def read_results(name: str, summaries: Iterable[tuple[Fold | None, Path]], file_ending: str) -> Results:
    """Read the summaries of one or several folders of predictions.

    Args:
        name: of the model or ensemble.
        summaries: fold and summary.json; one that is damaged is named in `faults`.
        file_ending: of the predictions.
    """
    cases: list[CaseResult] = []
    classes: dict[LabelOrRegion, None] = {}
    faults = []
    for fold, file in summaries:
        try:
            found = [_case(entry, fold, file, file_ending) for entry in load_summary_json(file)["metric_per_case"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            faults.append(f"{file} is no summary of an evaluation ({type(error).__name__}: {error})")
            continue
        cases += found
        for case in found:
            classes.update(dict.fromkeys(case.dice))
    return Results(name, sorted(classes, key=_order), cases, faults)


def _case(entry: Mapping[str, Any], fold: Fold | None, summary: Path, file_ending: str) -> CaseResult:
    """The prediction is looked for beside its summary, wherever that was written: folders move."""
    file = str(entry["prediction_file"]).replace("\\", "/").rsplit("/", 1)[-1]
    dice = {label: float(values["Dice"]) for label, values in entry["metrics"].items() if label != 0}
    return CaseResult(file.removesuffix(file_ending), fold, dice, summary.parent / file)


def _order(entry: LabelOrRegion) -> tuple[int, ...]:
    return entry if isinstance(entry, tuple) else (entry,)


def sorted_by_dice(cases: Sequence[CaseResult]) -> list[CaseResult]:
    """Worst first; cases without any foreground, which have no Dice, come last."""
    return sorted(cases, key=lambda case: (math.isnan(case.mean), case.mean, case.name))


def worst_and_median(cases: Sequence[CaseResult], worst: int, median: int) -> tuple[list[CaseResult], list[CaseResult]]:
    """The cases around the median, and the worst of those below them; of very few cases all are called worst."""
    ordered = [case for case in sorted_by_dice(cases) if not math.isnan(case.mean)]
    if len(ordered) <= 2 * median:  # a middle of half of them and more would say nothing
        return ordered[:worst], []
    start = (len(ordered) - median + 1) // 2
    return ordered[: min(worst, start)], ordered[start : start + median]
