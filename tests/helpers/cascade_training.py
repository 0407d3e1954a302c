"""The tiny preprocessed dataset with a cascade: 3d_lowres at half the resolution, 3d_cascade_fullres on top of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from helpers import tiny_training

from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_lite.training.run_training import get_trainer_from_args

LOWRES, CASCADE = "3d_lowres", "3d_cascade_fullres"
NEXT_STAGES = [CASCADE, "3d_cascade_other"]
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
LABELS_AND_IGNORE = {"background": 0, "one": 1, "two": 2, "ignore": 3}
REGIONS_AND_IGNORE = {**REGIONS, "ignore": 3}


def write_dataset(preprocessed: Path, labels: dict[str, Any] | None = None, several: bool = False) -> Path:
    """Write the dataset with two folds; with `several`, two next stages. Returns its folder.

    Where an ignore label is among the labels, the first four slices are marked with it.
    """
    folder = tiny_training.write_dataset(preprocessed, labels)
    if labels is not None and "ignore" in labels:
        _ignore_slices(folder, labels["ignore"])
    source, target = folder / "nnUNetPlans_3d", folder / "nnUNetPlans_3d_lowres"
    target.mkdir()
    for case in tiny_training.CASES:
        data, seg, _, properties = nnUNetDatasetBlosc2(source).load_case(case)
        halves = (slice(None), *[slice(None, None, 2)] * 3)
        seg = seg[:][halves]
        content = {**properties, "class_locations": _places(seg)}
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


def _places(seg: np.ndarray) -> dict[Any, np.ndarray]:
    """Voxels of each class, and of all that is annotated."""
    places: dict[Any, np.ndarray] = {label: np.argwhere(seg == label) for label in (1, 2)}
    return {**places, (-1, 0, 1, 2): np.argwhere(seg < 3)}


def _ignore_slices(folder: Path, ignore: int) -> None:
    for case in tiny_training.CASES:
        reference = folder / "gt_segmentations" / f"{case}.nii.gz"
        image = sitk.ReadImage(str(reference))
        image[:, :, :4] = ignore
        sitk.WriteImage(image, str(reference))
        for axes in (2, 3):
            target = folder / f"nnUNetPlans_{axes}d"
            data, seg, _, properties = nnUNetDatasetBlosc2(target).load_case(case)
            data, seg = data[:], seg[:]
            seg[:, :4] = ignore
            nnUNetDatasetBlosc2.save_case(
                data, seg, {**properties, "class_locations": _places(seg)}, str(target / case)
            )


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
