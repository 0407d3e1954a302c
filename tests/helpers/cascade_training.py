"""The tiny preprocessed dataset with a cascade: 3d_lowres at half the resolution, 3d_cascade_fullres on top of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from helpers import tiny_training

from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_lite.training.run_training import get_trainer_from_args

LOWRES, CASCADE = "3d_lowres", "3d_cascade_fullres"
NEXT_STAGES = [CASCADE, "3d_cascade_other"]
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def write_dataset(preprocessed: Path, labels: dict[str, Any] | None = None, several: bool = False) -> Path:
    """Write the dataset with two folds; with `several`, two next stages. Returns its folder."""
    folder = tiny_training.write_dataset(preprocessed, labels)
    source, target = folder / "nnUNetPlans_3d", folder / "nnUNetPlans_3d_lowres"
    target.mkdir()
    for case in tiny_training.CASES:
        data, seg, _, properties = nnUNetDatasetBlosc2(source).load_case(case)
        halves = (slice(None), *[slice(None, None, 2)] * 3)
        seg = seg[:][halves]
        places = {label: [[0, *place] for place in zip(*(seg[0] == label).nonzero(), strict=True)] for label in (1, 2)}
        content = {**properties, "class_locations": {k: torch.tensor(v).numpy() for k, v in places.items()}}
        nnUNetDatasetBlosc2.save_case(data[:][halves], seg, content, str(target / case))
    plans = tiny_training.plans()
    configurations = plans["configurations"]
    lowres = tiny_training.plans()["configurations"]["3d_fullres"]
    configurations[LOWRES] = {
        **lowres,
        "data_identifier": target.name,
        "spacing": [2.0] * 3,
        "patch_size": [4, 8, 8],
        "next_stage": NEXT_STAGES if several else CASCADE,
    }
    for name in NEXT_STAGES[: 1 + several]:
        configurations[name] = {"inherits_from": "3d_fullres", "previous_stage": LOWRES}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    first, second = list(tiny_training.CASES[:3]), list(tiny_training.CASES[3:])
    splits = [{"train": first, "val": second}, {"train": second, "val": first}]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    if labels is not None and any(isinstance(value, list) for value in labels.values()):
        document = tiny_training.dataset_json(labels, regions_class_order=[1, 2])
        (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def make(configuration: str, fold: int | str, name: str = "nnUNetTrainer", **flags: Any) -> nnUNetTrainer:
    """A trainer of one iteration."""
    trainer = get_trainer_from_args(tiny_training.NAME, configuration, fold, name, device=torch.device("cpu"))
    trainer.override(epochs=1, iterations=1, **{"seed": 1, "precision": "float32", **flags})
    return trainer


def train(configuration: str, fold: int | str, name: str = "nnUNetTrainer", **flags: Any) -> nnUNetTrainer:
    """Train one iteration and validate."""
    trainer = make(configuration, fold, name, **flags)
    trainer.run_training()
    trainer.perform_actual_validation()
    return trainer
