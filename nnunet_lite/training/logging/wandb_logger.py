"""Logging to Weights & Biases (spec 02, section 11)."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from nnunet_lite.configuration import wandb_mode, wandb_project
from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.utilities.files import PathLike

_REFUSALS = ("UsageError", "AuthenticationError")  # the user's business; others are the network's


class WandbLogger:
    """One run per training, below `wandb` in the fold's folder; a continued training goes on with its run.

    Nothing that lies there is ever deleted. Epochs that the run already has are not sent again.
    """

    def __init__(self, output_folder: PathLike, resume: bool, first_step: int) -> None:
        wandb = import_module("wandb")
        refusals = tuple(getattr(wandb.errors, name) for name in _REFUSALS if hasattr(wandb.errors, name))
        try:
            self._run: Any = wandb.init(
                dir=str(output_folder),
                project=wandb_project(),
                mode=wandb_mode(),
                id=earlier_run(output_folder) if resume else None,
                resume="allow" if resume else "never",
            )
        except (*refusals, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ArgumentError(
                f"W&B cannot be used with nnUNet_wandb_mode={wandb_mode()}: {reason} (run `wandb login`, set "
                "nnUNet_wandb_mode=offline, or unset nnUNet_wandb_enabled)"
            ) from error
        self._first_step = int(self._run.step) if resume else 0

    def update_config(self, config: dict[str, Any]) -> None:
        """Add to the run's configuration."""
        self._run.config.update(config, allow_val_change=True)

    def log(self, key: str, value: Any, step: int) -> None:
        """Send the value of an epoch, unless the run has that epoch."""
        if step >= self._first_step:
            self._run.log({key: value}, step=step)
        self._run.summary["current_epoch"] = step

    def log_summary(self, key: str, value: Any) -> None:
        """Set a result of the whole training."""
        self._run.summary[key] = value

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


def earlier_run(output_folder: PathLike) -> str | None:
    """Id of the latest run in a fold's folder: the file run-ID.wandb in wandb/latest-run."""
    files = sorted(Path(output_folder, "wandb", "latest-run").glob("run-*.wandb"))
    return files[0].stem.removeprefix("run-") if files else None
