"""A tiny preprocessed dataset, and trainers of two short epochs on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Folders
from helpers import tiny_training

from nnunet_lite.extensions import find_class
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

Make = Callable[..., nnUNetTrainer]


@pytest.fixture
def make(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A trainer by its name, found as the command finds it."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")

    def build(
        name: str, configuration: str = "3d_fullres", labels: dict[str, Any] | None = None, **changes: Any
    ) -> nnUNetTrainer:
        if not (nnunet_folders.preprocessed / tiny_training.NAME).exists():
            tiny_training.write_dataset(nnunet_folders.preprocessed, labels)
        plans = tiny_training.plans()
        plans["configurations"][configuration].update(changes)
        dataset_json = tiny_training.dataset_json(labels)
        if labels is not None and any(isinstance(value, list) for value in labels.values()):
            dataset_json["regions_class_order"] = list(range(1, len(labels)))
        trainer: nnUNetTrainer = find_class("trainer", name)(plans, configuration, 0, dataset_json, torch.device("cpu"))
        return trainer

    return build
