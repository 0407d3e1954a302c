"""progress.png: losses and pseudo Dice, duration of the epochs, learning rate."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nnunet_lite.utilities.files import PathLike, atomic_path
from nnunet_lite.utilities.logging import logger

_SIZE = (16, 22)  # inches
_DPI = 100
_STYLE = {"font.size": 18, "lines.linewidth": 2.5, "axes.grid": True, "grid.alpha": 0.3, "legend.frameon": False}
_FEW = 20  # epochs up to which each is marked; a single one would be an invisible line


def draw_progress(curves: dict[str, list[Any]], epochs: int, folder: PathLike) -> None:
    """Draw `epochs` values of each curve into folder/progress.png (atomically, without a global backend).

    Without matplotlib there is none; it is imported here, when the first epoch has ended.
    """
    if not _matplotlib_is_here():
        return
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasAgg(figure)
        losses, durations, rates = figure.subplots(3, 1)
        dice = losses.twinx()
        dice.grid(False)
        starts, ends = curves["epoch_start_timestamps"][:epochs], curves["epoch_end_timestamps"][:epochs]
        seconds = [end - start for start, end in zip(starts, ends, strict=True)]
        panels = (
            (losses, curves["train_losses"], "b", "-", "loss_tr"),
            (losses, curves["val_losses"], "r", "-", "loss_val"),
            (dice, curves["mean_fg_dice"], "g", ":", "pseudo dice"),
            (dice, curves["ema_fg_dice"], "g", "-", "pseudo dice (mov. avg.)"),
            (durations, seconds, "b", "-", "epoch duration"),
            (rates, curves["lrs"], "b", "-", "learning rate"),
        )
        marker = "o" if epochs <= _FEW else ""
        lines = [
            axes.plot(range(epochs), values[:epochs], color=color, linestyle=style, label=label, marker=marker)[0]
            for axes, values, color, style, label in panels
        ]
        losses.legend(handles=lines[:4], ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))  # above the curves
        dice.set_ylabel("pseudo dice")
        durations.set_ylim(0, 1.1 * max([1e-3, *seconds]))
        for axes, label in ((losses, "loss"), (durations, "epoch duration [s]"), (rates, "learning rate")):
            axes.set(xlabel="epoch", ylabel=label)
            axes.xaxis.get_major_locator().set_params(integer=True)
        with atomic_path(Path(folder) / "progress.png") as temporary:
            figure.savefig(temporary, dpi=_DPI, format="png")


@cache
def _matplotlib_is_here() -> bool:
    if find_spec("matplotlib") is None:
        logger.warning("No progress.png is drawn, because matplotlib is not installed; metrics.jsonl has the numbers")
        return False
    return True
