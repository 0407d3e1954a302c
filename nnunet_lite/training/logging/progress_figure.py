"""progress.png: losses and pseudo Dice, duration of the epochs, learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nnunet_lite.utilities.files import PathLike, atomic_path

_SIZE = (12, 18)  # inches
_DPI = 100


def draw_progress(curves: dict[str, list[Any]], epochs: int, folder: PathLike) -> None:
    """Draw `epochs` values of each curve into folder/progress.png (atomically, without a global backend)."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    losses, durations, rates = figure.subplots(3, 1)
    x = range(epochs)
    loss_lines = [
        *losses.plot(x, curves["train_losses"][:epochs], color="b", label="loss_tr", linewidth=2),
        *losses.plot(x, curves["val_losses"][:epochs], color="r", label="loss_val", linewidth=2),
    ]
    dice = losses.twinx()
    dice_lines = [
        *dice.plot(x, curves["mean_fg_dice"][:epochs], color="g", ls="dotted", label="pseudo dice", linewidth=1.5),
        *dice.plot(x, curves["ema_fg_dice"][:epochs], color="g", label="pseudo dice (mov. avg.)", linewidth=2),
    ]
    losses.set(xlabel="epoch", ylabel="loss")
    dice.set_ylabel("pseudo dice")
    losses.legend(handles=[*loss_lines, *dice_lines], loc="upper left")
    starts, ends = curves["epoch_start_timestamps"][:epochs], curves["epoch_end_timestamps"][:epochs]
    seconds = [end - start for start, end in zip(starts, ends, strict=True)]
    durations.plot(x, seconds, color="b", label="epoch duration", linewidth=2)
    durations.set(xlabel="epoch", ylabel="time [s]")
    durations.set_ylim(bottom=0)
    durations.legend(loc="upper right")
    rates.plot(x, curves["lrs"][:epochs], color="b", label="learning rate", linewidth=2)
    rates.set(xlabel="epoch", ylabel="learning rate")
    rates.legend(loc="upper right")
    for axes in (losses, durations, rates):
        axes.grid(alpha=0.3)
    with atomic_path(Path(folder) / "progress.png") as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")
