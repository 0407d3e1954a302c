"""What a training leaves beside its weights: copies of the documents, and debug.json."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nnunet_lite.utilities.files import copy_file, save_json
from nnunet_lite.utilities.wording import counted
from nnunet_lite.version import __version__

_DATALOADERS = ("dataloader_train", "dataloader_val")
_LOADER_NAMES = ("loader", "generator", "data_loader")  # ours, and those of batchgenerators' augmenters
_PLAIN = (str, int, float, bool, list, tuple, dict, set, torch.dtype, type(None))
_LOADER_PARTS = ("num_workers", "num_processes", "transform", "device")


_cudnn_version: Callable[[], int | None] = torch.backends.cudnn.version  # untyped in torch


def debug_information(trainer: Any) -> dict[str, str]:
    """Attributes of a trainer (its own and its class's), its loaders and the machine."""
    names = {name for name in dir(type(trainer)) if not name.startswith("_")} | set(vars(trainer))
    values: dict[str, Any] = {}
    for name in sorted(names):
        value = getattr(trainer, name)
        if name.startswith("_") and not isinstance(value, _PLAIN):  # machinery of ours
            continue
        if not name.startswith("__") and (not callable(value) or name == "loss"):
            values[name] = value
    values["network"] = type(trainer.network).__name__
    for name in _DATALOADERS:
        iterator = getattr(trainer, name)
        loader = next((getattr(iterator, part) for part in _LOADER_NAMES if hasattr(iterator, part)), None)
        found = {f"{name}.{part}": getattr(iterator, part, None) for part in _LOADER_PARTS}
        found |= {f"{name}.generator": loader, f"{name}.generator.transforms": getattr(loader, "transforms", None)}
        values |= {key: value for key, value in found.items() if value is not None}
    on_cuda = trainer.device.type == "cuda"
    values |= {
        "hostname": platform.node(),
        "torch_version": torch.__version__,
        "nnunet_lite_version": __version__,
        "cudnn_version": _cudnn_version() if on_cuda else None,
    }
    if on_cuda:
        values["gpu_name"] = torch.cuda.get_device_name(trainer.device)
    return {name: str(value) for name, value in values.items()}


def introduction(trainer: Any) -> list[str]:
    """What is trained and where the results go, for the head of the log."""
    precision = str(trainer._autocast_type or torch.float32).removeprefix("torch.")
    what = f"{trainer.plans_manager.dataset_name}, {trainer.configuration_name}, fold {trainer.fold}"
    how = f"{type(trainer).__name__} with {trainer.plans_manager.plans_name}, {counted(trainer.num_epochs, 'epoch')}"
    where = f"{trainer.device.type} in {precision}, batches of {trainer.batch_size}, seed {trainer.seed}"
    return [f"{what}: {how}, {where}", f"Results: {trainer.output_folder}"]


def hyperparameters(trainer: Any) -> dict[str, Any]:
    """What a training differs in from another of the same plans; that which all ranks have in common."""
    names = ("initial_lr", "weight_decay", "oversample_foreground_percent", "probabilistic_oversampling")
    lengths = ("num_iterations_per_epoch", "num_val_iterations_per_epoch", "num_epochs")
    others = ("enable_deep_supervision", "batch_size", "precision", "seed", "deterministic", "previous_stage_trainer")
    values = {name: getattr(trainer, name) for name in names + lengths + others}
    if trainer.batch_share is not None and trainer._oversampling_of_all is not None:
        values["batch_size"] = trainer.batch_share.whole
        values["oversample_foreground_percent"] = trainer._oversampling_of_all
    return values


def save_documents(trainer: Any) -> None:
    """plans.json, dataset.json and, where there is one, the fingerprint: what prediction needs, above the folds."""
    base = Path(trainer.output_folder_base)
    save_json(trainer.plans_manager.plans, base / "plans.json", sort_keys=False)
    save_json(trainer.dataset_json, base / "dataset.json", sort_keys=False)
    fingerprint = Path(trainer.preprocessed_dataset_folder_base, "dataset_fingerprint.json")
    if fingerprint.is_file():
        copy_file(fingerprint, base / fingerprint.name)
