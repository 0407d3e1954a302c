"""A preprocessed dataset of a few tiny cases and plans for it, ready to be trained on within seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

NAME = "Dataset777_Tiny"
CASES = tuple(f"case_{i}" for i in range(5))
_SHAPE = (10, 16, 14)


def dataset_json(labels: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """dataset.json of one channel and two classes."""
    return {
        "channel_names": {"0": "MR"},
        "labels": labels or {"background": 0, "one": 1, "two": 2},
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
        **more,
    }


def plans() -> dict[str, Any]:
    """Plans with a 2d and a 3d_fullres configuration of two stages."""
    return {
        "dataset_name": NAME,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": list(_SHAPE),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
        "configurations": {"2d": _configuration(2), "3d_fullres": _configuration(3)},
    }


def _configuration(axes: int) -> dict[str, Any]:
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": f"nnUNetPlans_{axes}d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8] * axes,
        "median_image_size_in_voxels": [float(n) for n in _SHAPE[-axes:]],
        "spacing": [1.0] * axes,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [4, 8, 8],
                "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
                "kernel_sizes": [[3] * axes] * 3,
                "strides": [[1] * axes, [2] * axes, [2] * axes],
                "n_conv_per_stage": [1, 1, 1],
                "n_conv_per_stage_decoder": [1, 1],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": axes == 2,
    }


def write_dataset(preprocessed: Path, labels: dict[str, Any] | None = None) -> Path:
    """Write cases, plans, dataset.json and references; returns the dataset's folder."""
    folder = preprocessed / NAME
    references = folder / "gt_segmentations"
    references.mkdir(parents=True)
    for number, case in enumerate(CASES):
        data, seg = _case(number)
        image = sitk.GetImageFromArray(seg[0].astype(np.uint8))
        sitk.WriteImage(image, str(references / f"{case}.nii.gz"))
        for axes in (2, 3):
            target = folder / f"nnUNetPlans_{axes}d" / case
            target.parent.mkdir(exist_ok=True)
            nnUNetDatasetBlosc2.save_case(data, seg, _properties(seg), str(target))
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans()))
    (folder / "dataset.json").write_text(json.dumps(dataset_json(labels)))
    return folder


def _case(number: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(number)
    seg = np.zeros((1, *_SHAPE), np.int16)
    seg[0, 2:7, 3:9, 3:8] = 1
    seg[0, 3:6, 9:13, 4:10] = 2
    data = seg.astype(np.float32) + rng.normal(0, 0.3, seg.shape).astype(np.float32)
    return data, seg


def _properties(seg: np.ndarray) -> dict[str, Any]:
    return {
        "sitk_stuff": {"spacing": (1.0,) * 3, "origin": (0.0,) * 3, "direction": tuple(np.eye(3).ravel().tolist())},
        "spacing": [1.0, 1.0, 1.0],
        "shape_before_cropping": _SHAPE,
        "bbox_used_for_cropping": [[0, n] for n in _SHAPE],
        "shape_after_cropping_and_before_resampling": _SHAPE,
        "class_locations": {label: np.argwhere(seg == label) for label in (1, 2)},
    }


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of one iteration, in this process."""
    for length in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch"):
        monkeypatch.setattr(nnUNetTrainer, length, 1)
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    threads = torch.get_num_threads()
    monkeypatch.setattr("nnunet_lite.training.run_training.set_num_threads", lambda _: threads)
