"""Services that a training can log to besides its own files: which are switched on, and how they are started.

Each is a class with update_config(dict), log(key, value, step), log_summary(key, value) and close(), made for a fold's
output folder. A logger of one's own with the first three is appended to `trainer.logger.loggers`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from nnunet_lite.configuration import mlflow_enabled, tensorboard_enabled, wandb_enabled
from nnunet_lite.exceptions import ArgumentError, nnUNetError
from nnunet_lite.utilities.files import PathLike
from nnunet_lite.utilities.logging import logger


class _Service(NamedTuple):
    name: str
    package: str
    switch: str  # environment variable
    home: str  # module and class below this package


_SERVICES = {
    "wandb": _Service("W&B", "wandb", "nnUNet_wandb_enabled", "wandb_logger:WandbLogger"),
    "tensorboard": _Service(
        "TensorBoard", "tensorboard", "nnUNet_tensorboard_enabled", "tensorboard_logger:TensorBoardLogger"
    ),
    "mlflow": _Service("MLflow", "mlflow", "nnUNet_mlflow_enabled", "mlflow_logger:MlflowLogger"),
}


def enabled_services() -> list[str]:
    """Services that the environment switches on; looks for their packages without importing them.

    Raises:
        ArgumentError: a switch that is neither on nor off, or a package that is not installed.
    """
    switches = {"wandb": wandb_enabled, "tensorboard": tensorboard_enabled, "mlflow": mlflow_enabled}
    enabled = [key for key, is_on in switches.items() if is_on()]
    for key in enabled:
        service = _SERVICES[key]
        if not _installed(service.package):
            raise ArgumentError(
                f"{service.switch} asks for logging to {service.name}, but the package {service.package} is not "
                f"installed: pip install nnunet_lite[{key}], or unset {service.switch}"
            )
    return enabled


def start_external_loggers(output_folder: PathLike, resume: bool, first_step: int) -> list[Any]:
    """Start every service that is switched on.

    Args:
        output_folder: of the fold; made if it is not there.
        resume: go on with the run of the training that is continued.
        first_step: epoch that comes next.

    Raises:
        ArgumentError: a service refuses its settings. One that merely cannot be reached is left out with a warning.
    """
    started = []
    for key in enabled_services():
        service = _SERVICES[key]
        module, name = service.home.split(":")
        os.makedirs(output_folder, exist_ok=True)
        try:
            logger_class = getattr(import_module(f"{__package__}.{module}"), name)
            started.append(logger_class(output_folder, resume, first_step))
        except nnUNetError:
            raise
        except Exception as error:  # of whatever kind the service raises
            reason = " ".join(str(error).split())
            logger.warning("Logging to %s is off for this training: %s: %s", service.name, type(error).__name__, reason)
    return started


def job_identifier() -> dict[str, str]:
    """The cluster's number of this job, if it is one: SLURM's before LSF's."""
    number = os.environ.get("SLURM_JOB_ID") or os.environ.get("LSB_JOBID")
    return {"JobID": number} if number else {}


def _installed(package: str) -> bool:
    """Whether a package is there; a mere folder of its name, such as W&B leaves behind, is none."""
    if package in sys.modules:
        return sys.modules[package] is not None
    spec = find_spec(package)
    return spec is not None and spec.origin is not None
