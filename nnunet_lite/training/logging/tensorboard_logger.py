"""Logging to TensorBoard."""

from __future__ import annotations

import json
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any

from nnunet_lite.utilities.files import PathLike, to_plain

_STARTED, _ENDED = "epoch_start_timestamps", "epoch_end_timestamps"


class TensorBoardLogger:
    """Event files in tensorboard/training_N of the fold's folder, a new N for each training that begins anew.

    A continued training goes on in the last one; what it had logged beyond the epoch it continues from is marked as
    superseded, so that no curve runs twice. Instead of the times of day, which single precision cannot hold, the
    seconds of each epoch are logged.
    """

    def __init__(self, output_folder: PathLike, resume: bool, first_step: int) -> None:
        SummaryWriter = import_module("torch.utils.tensorboard").SummaryWriter
        folder = Path(output_folder, "tensorboard")
        earlier = len(list(folder.glob("training_*")))
        number = earlier if resume and earlier else earlier + 1
        self._writer: Any = SummaryWriter(
            str(folder / f"training_{number}"), purge_step=first_step if resume and earlier else None
        )
        self._step = max(0, first_step - 1)
        self._started = 0.0

    def update_config(self, config: dict[str, Any]) -> None:
        """Write each entry as text."""
        for key, value in config.items():
            text = json.dumps(value, indent=2, default=lambda item: str(to_plain(item)))
            self._writer.add_text(f"config/{key}", f"```\n{text}\n```")
        self._writer.flush()

    def log(self, key: str, value: Any, step: int) -> None:
        """Write the value of an epoch; what is no number is left out."""
        self._step = step
        if key == _STARTED:
            self._started = float(value)
            return
        if key == _ENDED:
            key, value = "epoch_seconds", float(value) - self._started
        number = to_plain(value)
        if isinstance(number, Real):
            self._writer.add_scalar(key, float(number), step)
            self._writer.flush()

    def log_summary(self, key: str, value: Any) -> None:
        """Write a result of the whole training at its last epoch."""
        self.log(key, value, self._step)

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
