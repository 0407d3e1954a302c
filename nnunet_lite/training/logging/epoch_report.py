"""What is said about an epoch while it runs and when it ends, with a forecast of the end of the training."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from tqdm import tqdm

from nnunet_lite.utilities.distributed import rank
from nnunet_lite.utilities.durations import duration
from nnunet_lite.utilities.logging import logger, stderr_is_terminal

_RECENT = 10  # epochs the forecast is made from
_HEARTBEAT = 60.0  # seconds between signs of life where there is no terminal for a progress bar


def steps_of_epoch(first: int, number: int, what: str) -> Iterator[int]:
    """Count the steps `first` to `number` - 1 of an epoch: a bar on a terminal, else a line a minute."""
    if stderr_is_terminal() and rank() == 0:
        yield from tqdm(range(first, number), what, number, leave=False, unit="it", initial=first)
        return
    start = said = time.monotonic()
    for step in range(first, number):
        now = time.monotonic()
        if now - said > _HEARTBEAT:
            logger.info("%s: %d of %d iterations, %.1f s each", what, step, number, (now - start) / (step - first))
            said = now
        yield step


def epoch_report(curves: Mapping[str, list[Any]], epoch: int, num_epochs: int, now: datetime) -> list[str]:
    """Lines of the log for a finished epoch; words and rounding are upstream's, the forecast is ours."""
    durations = [
        end - start for start, end in zip(curves["epoch_start_timestamps"], curves["epoch_end_timestamps"], strict=True)
    ]
    lines = [
        f"train_loss {round(curves['train_losses'][epoch], 4)}",
        f"val_loss {round(curves['val_losses'][epoch], 4)}",
        f"Pseudo dice {[round(dice, 4) for dice in curves['dice_per_class_or_region'][epoch]]}",
        f"Epoch time: {round(durations[epoch], 2)} s",
    ]
    left = num_epochs - 1 - epoch
    if left > 0:
        seconds = left * median(durations[max(0, epoch + 1 - _RECENT) : epoch + 1])
        finish = now + timedelta(seconds=seconds)
        lines.append(f"{left} epoch{'s' * (left > 1)} left: {duration(seconds)}, done about {finish:%Y-%m-%d %H:%M}")
    return lines
