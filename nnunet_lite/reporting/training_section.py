"""The folds of one model: what state they are in, and their training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from nnunet_lite.model_selection.dataset_status import FoldStatus
from nnunet_lite.models.model_names import Fold
from nnunet_lite.reporting.charts import Curve, legend, line_chart
from nnunet_lite.reporting.markup import Markup, element, joined, number, score, table
from nnunet_lite.reporting.training_curves import Curves
from nnunet_lite.utilities.durations import duration


def training_section(name: str, folds: Sequence[FoldStatus], curves: Mapping[Fold, Curves | None]) -> Markup:
    """A table of the folds, curves of loss and of Dice."""
    rows = [_row(fold, curves.get(fold.fold)) for fold in folds]
    header = [
        "fold",
        "state",
        "epochs",
        "time per epoch",
        "highest Dice of patches",
        "validation Dice",
        "probabilities",
    ]
    known = [(fold.fold, found) for fold in folds for found in [curves.get(fold.fold)] if found is not None]
    if not known:
        charts = element("p", "No log, metrics or checkpoint says how the training went.", class_="note")
    else:
        charts = joined(
            legend(
                [f"fold {fold}" for fold, _ in known],
                (("dashed", "loss of validation"), ("faint", "Dice of each epoch")),
            ),
            element("div", _losses(known), _dice(known), class_="charts"),
        )
    return joined(table(header, rows, f"Folds: {name}"), charts)


def _row(fold: FoldStatus, curves: Curves | None) -> list[object]:
    seconds, best = math.nan, math.nan
    if curves is not None:
        times = [value for value in curves.values["seconds"] if math.isfinite(value)]
        seconds = median(times) if times else math.nan
        best = max((value for value in curves.values["ema_fg_dice"] if math.isfinite(value)), default=math.nan)
    time = number(None) if math.isnan(seconds) else f"{seconds:.2g} s" if seconds < 60 else duration(seconds)
    epochs = fold.epoch if fold.epoch is not None else len(curves.epochs) if curves is not None else number(None)
    probabilities = "" if fold.dice is None else "yes" if fold.probabilities else "no"
    return [fold.fold, fold.state, epochs, time, score(best), score(fold.dice), probabilities]


def _losses(known: Sequence[tuple[Fold, Curves]]) -> Markup:
    curves = []
    for series, (fold, found) in enumerate(known):
        curves.append(Curve(f"fold {fold}, training", found.epochs, found.values["train_losses"], series))
        curves.append(Curve(f"fold {fold}, validation", found.epochs, found.values["val_losses"], series, "dashed"))
    return line_chart(curves, "Loss", "epoch", "loss")


def _dice(known: Sequence[tuple[Fold, Curves]]) -> Markup:
    curves = []
    for series, (fold, found) in enumerate(known):
        curves.append(Curve(f"fold {fold}", found.epochs, found.values["mean_fg_dice"], series, "faint"))
        curves.append(Curve(f"fold {fold}, moving average", found.epochs, found.values["ema_fg_dice"], series))
    return line_chart(curves, "Dice of validation patches and its moving average", "epoch", "Dice", (0.0, 1.0))
