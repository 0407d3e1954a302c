"""The curves of a training: one value per epoch and key, kept in checkpoints, drawn, and written as JSON lines."""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import time
from collections.abc import Iterator
from typing import Any

from nnunet_lite.exceptions import CheckpointError, StorageError
from nnunet_lite.training.logging.epoch_speed import earlier_speeds
from nnunet_lite.training.logging.external_loggers import enabled_services, job_identifier, start_external_loggers
from nnunet_lite.training.logging.progress_figure import draw_progress
from nnunet_lite.utilities.distributed import rank
from nnunet_lite.utilities.files import PathLike, to_plain, write_text
from nnunet_lite.utilities.logging import logger

EMA_KEEP = 0.9  # part of the moving average that stays in each epoch

KEYS = (
    "mean_fg_dice",
    "ema_fg_dice",
    "dice_per_class_or_region",
    "train_losses",
    "val_losses",
    "lrs",
    "epoch_start_timestamps",
    "epoch_end_timestamps",
)

_FIGURE_SHARE = 0.05  # of the time of training that drawing may take


class LocalLogger:
    """The eight lists that upstream's checkpoints hold; values are stored as plain numbers."""

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose
        self.my_fantastic_logging: dict[str, list[Any]] = {key: [] for key in KEYS}

    def log(self, key: str, value: Any, step: int) -> None:
        """Store the value of an epoch; the newest epoch may be logged again, which replaces its value.

        Raises:
            ValueError: an unknown key, or an epoch before the newest.
        """
        if key not in self.my_fantastic_logging:
            raise ValueError(f"There is no curve {key!r}; there are: {', '.join(KEYS)}")
        values = self.my_fantastic_logging[key]
        if step < len(values) - 1:
            raise ValueError(f"{key} of epoch {step} is already followed by later epochs ({len(values)} values)")
        if step == len(values) - 1:
            values[step] = to_plain(value)
        else:
            values.append(to_plain(value))
        if self.verbose:
            logger.info("logging %s: %s for step %s", key, value, step)

    def get_value(self, key: str, step: int | None = None) -> Any:
        """Value of one epoch, or the whole list."""
        values = self.my_fantastic_logging[key]
        return values if step is None else values[step]

    def get_checkpoint(self) -> dict[str, list[Any]]:
        """What is stored in a checkpoint."""
        return self.my_fantastic_logging

    def load_checkpoint(self, checkpoint: dict[str, list[Any]]) -> None:
        """Take the curves of a checkpoint over, upstream's numpy scalars as plain numbers."""
        if not isinstance(checkpoint, dict) or not all(isinstance(values, list) for values in checkpoint.values()):
            raise CheckpointError("The checkpoint's 'logging' holds no curves; it cannot be continued")
        loaded = {key: [_plain(value) for value in values] for key, values in checkpoint.items()}
        self.my_fantastic_logging = {**{key: [] for key in KEYS}, **loaded}

    def complete_epochs(self) -> int:
        """Number of epochs with a value in every list."""
        return min(len(values) for values in self.my_fantastic_logging.values())


class MetaLogger:
    """What the trainer logs to: the local curves, and any further loggers in `loggers`.

    A further logger has update_config(dict), log(key, value, step) and log_summary(key, value); it gets the classes of
    a list as key/class_1, key/class_2 ... One that fails is left out from then on, with a warning: no training ends
    because of it. Those that the environment asks for are started by `connect`, on rank 0.

    Raises:
        ArgumentError: the environment asks for a service that cannot be used here.
    """

    def __init__(self, output_folder: PathLike, resume: bool, verbose: bool = False) -> None:
        enabled_services()
        self.output_folder = output_folder
        self.resume = resume
        self.local_logger = LocalLogger(verbose)
        self.loggers: list[Any] = []
        self._config: dict[str, Any] = job_identifier()
        self._connected = False
        self._speed: dict[int, dict[str, float]] = {}
        self._figure_cost = 0.0
        self._figure_time = -math.inf

    @property
    def my_fantastic_logging(self) -> dict[str, list[Any]]:
        """The lists, under upstream's name."""
        return self.local_logger.my_fantastic_logging

    def update_config(self, config: dict[str, Any]) -> None:
        """Tell further loggers about plans, hyperparameters and the like, now or when they are started."""
        self._config.update(config)
        self._tell("update_config", config)

    def connect(self) -> None:
        """Start the services that the environment asks for, once; a continued training goes on with its runs.

        Raises:
            ArgumentError: a service refuses its settings.
        """
        if self._connected or rank() != 0:
            return
        self._connected = True
        epochs = self.local_logger.complete_epochs()
        started = start_external_loggers(self.output_folder, self.resume and epochs > 0, epochs)
        if started:
            atexit.register(self.close)
        self.loggers += started
        self._tell("update_config", self._config, loggers=started)

    def close(self) -> None:
        """End the runs of further loggers."""
        self._tell("close", loggers=[other for other in self.loggers if hasattr(other, "close")])
        self.loggers = [other for other in self.loggers if not hasattr(other, "close")]
        self._connected = False

    def _tell(self, method: str, *arguments: Any, loggers: list[Any] | None = None) -> None:
        """Call a method of further loggers; one that fails is asked no more."""
        for other in list(self.loggers if loggers is None else loggers):
            try:
                getattr(other, method)(*arguments)
            except Exception as error:  # of whatever kind a service or a user's logger raises
                self.loggers = [remaining for remaining in self.loggers if remaining is not other]
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                logger.warning("%s failed and is left out from now on: %s", type(other).__name__, reason)

    def log(self, key: str, value: Any, step: int) -> None:
        """Log the value of an epoch; mean_fg_dice brings its moving average along."""
        self.local_logger.log(key, value, step)
        if isinstance(value, (list, tuple)):
            for number, item in enumerate(value, 1):
                self._tell("log", f"{key}/class_{number}", item, step)
        else:
            self._tell("log", key, value, step)
        if key == "mean_fg_dice":
            self.log("ema_fg_dice", self._moving_average(float(value), step), step)

    def _moving_average(self, value: float, step: int) -> float:
        """0.9 old + 0.1 new; an epoch without foreground (NaN) leaves the average as it was."""
        before = self.local_logger.get_value("ema_fg_dice")[:step]
        last = float(before[-1]) if before else float("nan")
        if math.isnan(last):
            return value
        return last if math.isnan(value) else EMA_KEEP * last + (1 - EMA_KEEP) * value

    def log_summary(self, key: str, value: Any) -> None:
        """Log a result of the whole training to further loggers."""
        self._tell("log_summary", key, value)

    def get_value(self, key: str, step: int | None = None) -> Any:
        """Value of one epoch, or the whole list."""
        return self.local_logger.get_value(key, step)

    def plot_progress_png(self, output_folder: PathLike, force: bool = True) -> None:
        """Draw progress.png; without `force` only as often as keeps drawing below 5 % of the time."""
        start = time.monotonic()
        if not force and (start - self._figure_time) * _FIGURE_SHARE < self._figure_cost:
            return
        with _only_a_warning():
            draw_progress(self.my_fantastic_logging, self.local_logger.complete_epochs(), output_folder)
        self._figure_time = time.monotonic()
        self._figure_cost = self._figure_time - start

    def log_speed(self, values: dict[str, float], step: int) -> None:
        """Log how fast an epoch was: for metrics.jsonl and further loggers, not part of upstream's curves."""
        self._speed[step] = values
        for key, value in values.items():
            self._tell("log", key, value, step)

    def write_metrics(self, path: PathLike) -> None:
        """Write all complete epochs as JSON lines: epoch, losses, Dice, learning rate, seconds, speed."""
        curves = self.my_fantastic_logging
        lines = []
        speeds = {**earlier_speeds(path), **self._speed}
        for epoch in range(self.local_logger.complete_epochs()):
            row = {key: curves[key][epoch] for key in KEYS if not key.startswith("epoch_")}
            seconds = curves["epoch_end_timestamps"][epoch] - curves["epoch_start_timestamps"][epoch]
            lines.append(json.dumps({"epoch": epoch, **row, "seconds": round(seconds, 3), **speeds.get(epoch, {})}))
        with _only_a_warning():
            write_text("".join(f"{line}\n" for line in lines), path)

    def get_checkpoint(self) -> dict[str, list[Any]]:
        """What is stored in a checkpoint."""
        return self.local_logger.get_checkpoint()

    def load_checkpoint(self, checkpoint: dict[str, list[Any]]) -> None:
        """Take the curves of a checkpoint over; further loggers go on with its runs."""
        self.local_logger.load_checkpoint(checkpoint)
        self.resume = True


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else to_plain(value)


@contextlib.contextmanager
def _only_a_warning() -> Iterator[None]:
    """For files that a training can do without."""
    try:
        yield
    except StorageError as error:
        logger.warning("%s; the training goes on", error)
