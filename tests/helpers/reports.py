"""A dataset with everything a report can show: images, fingerprint, plans, curves, two folds, decisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from conftest import Folders
from helpers.crossvalidations import NAME, documents, make_model, make_references, reference

EVIL = "<script>alert(1)</script>"
LABELS = {"background": 0, EVIL: 1, "two": 2}
_ARCHITECTURE = {
    "network_class_name": "a.b.PlainConvUNet",
    "arch_kwargs": {"n_stages": 3, "features_per_stage": [8, 16, 32], "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
                    "kernel_sizes": [[3, 3, 3]] * 3, "n_conv_per_stage": [2, 2, 2]},
    "_kw_requires_import": [],
}  # fmt: skip
_CONFIGURATION = {
    "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
    "patch_size": [3, 12, 14], "median_image_size_in_voxels": [3.0, 12.0, 14.0], "spacing": [3.0, 2.0, 1.0],
    "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False], "batch_dice": True,
    "architecture": _ARCHITECTURE,
}  # fmt: skip


def report_documents() -> dict[str, Any]:
    """dataset.json and plans.json."""
    content = documents(LABELS)
    content["dataset.json"]["channel_names"] = {"0": f"CT{EVIL}"}
    content["dataset.json"]["numTraining"] = 3
    content["plans.json"].update(transpose_forward=[0, 1, 2], experiment_planner_used=f"Planner{EVIL}")
    content["plans.json"]["configurations"]["3d_fullres"] = _CONFIGURATION
    return content


def fingerprint() -> dict[str, Any]:
    """dataset_fingerprint.json of the three cases."""
    names = ("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std")
    return {
        "spacings": [[3.0, 2.0, 1.0]] * 3,
        "shapes_after_crop": [[3, 12, 14]] * 3,
        "median_relative_size_after_cropping": 0.75,
        "foreground_intensity_properties_per_channel": {"0": dict(zip(names, (9, 5, 4, 1, 2, 8, 1.5), strict=True))},
    }


def make_reported_dataset(folders: Folders, configurations: tuple[str, ...] = ("3d_fullres",)) -> list[Path]:
    """Everything of Dataset041; returns the model folders."""
    content = report_documents()
    make_references(folders.raw, folders.preprocessed, content)
    images = folders.raw / NAME / "imagesTr"
    images.mkdir()
    for number, case in enumerate("abc"):
        voxels = reference(number).astype(np.float32) + np.random.default_rng(number).normal(0, 0.2, (3, 12, 14))
        image = sitk.GetImageFromArray(voxels.astype(np.float32))
        image.SetSpacing((1.0, 2.0, 3.0))
        sitk.WriteImage(image, str(images / f"{case}_0000.nii.gz"))
    for root in (folders.raw, folders.preprocessed):
        (root / NAME / "dataset.json").write_text(json.dumps(content["dataset.json"]))
    (folders.preprocessed / NAME / "dataset_fingerprint.json").write_text(json.dumps(fingerprint()))
    (folders.preprocessed / NAME / "splits_final.json").write_text("[{}, {}]")
    models = []
    for seed, configuration in enumerate(configurations):
        errors = 40 + 20 * seed
        model = make_model(folders.results, folders.raw / NAME / "labelsTr", configuration, errors, content, seed=seed)
        for fold in (0, 1):
            rows = [{"epoch": e, "train_losses": 1 - e / 9, "val_losses": 1 - e / 8, "mean_fg_dice": e / 9,
                     "ema_fg_dice": e / 10, "lrs": 0.01, "seconds": 2.5} for e in range(9)]  # fmt: skip
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (model / f"fold_{fold}" / "metrics.jsonl").write_text(text)
        models.append(model)
    return models
