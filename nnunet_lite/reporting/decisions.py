"""What find_best_configuration has decided: the best model or ensemble, and its postprocessing."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_lite.exceptions import nnUNetError
from nnunet_lite.model_selection.accumulate_cv_results import merged_folder
from nnunet_lite.model_selection.inference_information import read_inference_information
from nnunet_lite.models.model_names import folds_tuple_to_string
from nnunet_lite.postprocessing.postprocessing_file import load_postprocessing
from nnunet_lite.reporting.markup import Markup, element, joined, score, table

_MOST_RESULTS = 200
_LONGEST = 8000  # characters of the instructions


class Decisions(NamedTuple):
    """inference_information.json, as far as it can be read."""

    scores: dict[str, float]  # model or ensemble -> mean Dice
    best: str
    members: tuple[str, ...]  # folder names of models
    folds: tuple[int | str, ...]
    folder: Path  # of the best one's predictions of the whole cross-validation
    before: float  # mean Dice without postprocessing
    after: float
    steps: list[Any] | None  # labels or regions of which the largest component is kept; None: not known
    instructions: str


def read_decisions(results: Path) -> Decisions | None:
    """The decisions of a dataset's folder of results, or None if there are none that can be read."""
    information = read_inference_information(results)
    if information is None or not information.chosen:
        return None
    members = tuple(information.chosen)
    try:
        content, best = information.content, information.content["best_model_or_ensemble"]
        folds = tuple(fold if isinstance(fold, int) else str(fold) for fold in content["folds"])
        scores = {str(name): float(value) for name, value in content["all_results"].items()}
        before, after = float(best["result_on_crossval_pre_pp"]), float(best["result_on_crossval_post_pp"])
        if any("/" in str(fold) or "\\" in str(fold) for fold in folds):
            return None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    if len(members) == 1:
        name, folder = members[0], merged_folder(results / members[0], folds)
    else:
        name = "___".join(("ensemble", *members, folds_tuple_to_string(folds)))
        folder = results / "ensembles" / name
    return Decisions(scores, name, members, folds, folder, before, after, _steps(folder), _instructions(results))


def _steps(folder: Path) -> list[Any] | None:
    for name in ("postprocessing.json", "postprocessing.pkl"):
        if os.path.isfile(folder / name):  # False for a name that is too long, too
            try:
                return [step["labels_or_regions"] for step in load_postprocessing(folder / name)]
            except (nnUNetError, OSError):
                continue
    return None


def _instructions(results: Path) -> str:
    try:
        text = (results / "inference_instructions.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n..."


def decisions_section(decisions: Decisions, names: dict[Any, str]) -> Markup:
    """Scores of all candidates, the best, its postprocessing, how to predict with it."""
    ranked = sorted(decisions.scores.items(), key=lambda item: (math.isnan(item[1]), -item[1]))[:_MOST_RESULTS]
    rows: list[list[Any]] = [
        [joined(name, element("strong", " (best)")) if name == decisions.best else name, score(value)]
        for name, value in ranked
    ]
    kind = "An ensemble" if len(decisions.members) > 1 else "A single model"
    return joined(
        element("p", f"{kind} was chosen: ", element("strong", " and ".join(decisions.members)), "."),
        table(["model or ensemble", "mean Dice"], rows, "Cross-validation of all candidates"),
        element("h3", "Postprocessing"),
        _postprocessing(decisions, names),
        element("h3", "Predict with it") if decisions.instructions else None,
        element("pre", decisions.instructions, tabindex="0") if decisions.instructions else None,
    )


def _postprocessing(decisions: Decisions, names: dict[Any, str]) -> Markup:
    change = f"Mean Dice {score(decisions.before)} before, {score(decisions.after)} after."
    if decisions.steps is None:
        return element("p", f"{change} The file that says what is done is missing, or cannot be read.")
    if not decisions.steps:
        return element("p", f"None: removing small components helps no class. {change}")
    steps = [element("li", f"Keep only the largest component of {_words(step, names)}.") for step in decisions.steps]
    return joined(element("ol", *steps), element("p", change))


def _words(step: Any, names: dict[Any, str]) -> str:
    """A label, a region, or several of them taken together."""
    key = _hashable(step)
    if key in names:
        return names[key]
    if not isinstance(key, tuple):
        return f"label {key}"
    members = [_words(member, names) for member in key]
    if len(members) == 1:
        return members[0]
    return f"{', '.join(members[:-1])} and {members[-1]} taken together"


def _hashable(step: Any) -> Any:
    """Lists as tuples, those within lists as well."""
    return tuple(_hashable(entry) for entry in step) if isinstance(step, (list, tuple)) else step
