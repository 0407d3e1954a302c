"""Every environment switch besides the folders, and every shared constant; each read when it is used."""

from __future__ import annotations

import os

from nnunet_lite.control_groups import cpu_quota
from nnunet_lite.exceptions import ArgumentError

ANISO_THRESHOLD = 3  # an axis whose spacing (or patch edge) ratio exceeds this is treated on its own
SPLITS_SEED = 12345  # of the 5-fold split; part of the file format in practice: everybody compares folds by it
SAMPLING_SEED = 1234  # of stored foreground locations
# Sums over tiles above this are not held for the whole image but band by band, and reduced to labels on the way; below,
# reducing in the background costs less. 512 MiB: 25 classes of 215 x 215 x 215 voxels, 2 of 11000 x 11000 pixels.
BANDED_PREDICTION_BYTES = 2**29

_TRUE = ("true", "1", "t")
_FALSE = ("false", "0", "f", "")


def cpu_count() -> int:
    """CPU cores this process may really use: affinity, quota of a container or job, SLURM; the smallest counts."""
    try:
        counts = [len(os.sched_getaffinity(0))]
    except AttributeError:  # only Linux has it
        counts = [os.cpu_count() or 1]
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdecimal() and int(slurm) > 0:
        counts.append(int(slurm))
    quota = cpu_quota()
    if quota is not None:
        counts.append(quota)
    return max(1, min(counts))


def num_compute_threads() -> int:
    """Threads of one computation on the CPU: the usable cores, or fewer if OMP_NUM_THREADS says so."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(int(wanted), cpu_count()) if wanted.isdecimal() and int(wanted) > 0 else cpu_count()


def _integer(variable: str, default: int, minimum: int) -> int:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = minimum - 1
    if value < minimum:
        raise ArgumentError(f"{variable}={text!r}: expected a whole number of at least {minimum}; correct or unset it")
    return value


def num_processes_default() -> int:
    """Processes for case-wise work where no flag says otherwise (nnUNet_def_n_proc, else 8)."""
    return _integer("nnUNet_def_n_proc", 8, 1)


def usable_processes(wanted: int | None) -> int:
    """Processes for case-wise work: those wanted (None: `num_processes_default`), never more than the usable cores.

    0 means that everything happens in this process. Raises ArgumentError below.
    """
    if wanted is not None and wanted < 0:
        raise ArgumentError(f"{wanted} processes: expected 0 (everything in one process) or more")
    return min(num_processes_default() if wanted is None else wanted, cpu_count())


def num_processes_data_augmentation() -> int:
    """Data augmentation workers of one training (nnUNet_n_proc_DA, else 12), never more than the usable cores."""
    return min(_integer("nnUNet_n_proc_DA", 12, 0), cpu_count())


def augmentation_device_requested(default: str) -> str:
    """Where training batches are augmented: auto, cpu (in the workers) or gpu (nnUNet_DA_device, else the trainer's).

    Raises ArgumentError for anything else.
    """
    text = os.environ.get("nnUNet_DA_device", "").strip()
    name, value = ("nnUNet_DA_device", text) if text else ("augmentation_device", default)
    if value.lower() not in ("auto", "cpu", "gpu"):
        raise ArgumentError(f"{name}={value!r}: expected auto, cpu (in the workers) or gpu")
    return value.lower()


def num_processes_prediction(variable: str) -> int:
    """Default of -npp (variable nnUNet_npp) and -nps (nnUNet_nps) of the predict commands, else 3."""
    return _integer(variable, 3, 0)


def compile_requested(default: bool) -> bool:
    """Whether torch.compile is wanted (nnUNet_compile: true/1/t in any case; anything else is no)."""
    text = os.environ.get("nnUNet_compile")
    return default if text is None else text.strip().lower() in _TRUE


def channels_last_requested(default: bool) -> bool:
    """Whether predictions on a GPU lay channels innermost in memory (nnUNet_channels_last); CPUs choose themselves."""
    return switch("nnUNet_channels_last", default)


def foreign_architectures_allowed() -> bool:
    """Opt-in to plans that name network classes outside the allow-list (nnUNet_allow_foreign_architectures)."""
    return switch("nnUNet_allow_foreign_architectures", False)


def wandb_enabled() -> bool:
    """Log to W&B (nnUNet_wandb_enabled: 1/True/true or 0/False/false, no other spelling, as upstream)."""
    text = os.environ.get("nnUNet_wandb_enabled", "0")
    if text not in ("1", "True", "true", "0", "False", "false"):
        raise ArgumentError(f"nnUNet_wandb_enabled={text!r}: expected 1, True, true, 0, False or false")
    return text in ("1", "True", "true")


def wandb_project() -> str:
    """Project of W&B that runs belong to (nnUNet_wandb_project, else nnunet)."""
    return os.environ.get("nnUNet_wandb_project") or "nnunet"


def wandb_mode() -> str:
    """How W&B sends its runs (nnUNet_wandb_mode: online, offline, disabled; else online)."""
    return os.environ.get("nnUNet_wandb_mode") or "online"


def tensorboard_enabled() -> bool:
    """Write event files for TensorBoard (nnUNet_tensorboard_enabled)."""
    return switch("nnUNet_tensorboard_enabled", False)


def mlflow_enabled() -> bool:
    """Log to MLflow (nnUNet_mlflow_enabled)."""
    return switch("nnUNet_mlflow_enabled", False)


def mlflow_tracking_uri() -> str | None:
    """MLflow server or store (nnUNet_mlflow_tracking_uri); None: below nnUNet_results."""
    return os.environ.get("nnUNet_mlflow_tracking_uri") or None


def mlflow_experiment() -> str:
    """Experiment of MLflow that runs belong to (nnUNet_mlflow_experiment, else nnunet)."""
    return os.environ.get("nnUNet_mlflow_experiment") or "nnunet"


def switch(variable: str, default: bool) -> bool:
    """A yes/no environment variable. Raises ArgumentError for anything but true/1/t/false/0/f."""
    text = os.environ.get(variable)
    if text is None:
        return default
    if text.strip().lower() not in _TRUE + _FALSE:
        raise ArgumentError(f"{variable}={text!r}: expected true or false")
    return text.strip().lower() in _TRUE


def __getattr__(name: str) -> int:
    """Upstream's constant `default_num_processes`, which users' code imports as a number."""
    if name == "default_num_processes":
        return num_processes_default()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
