"""A tiny model with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nnunet_lite.models.checkpoint import save_checkpoint
from nnunet_lite.models.trainer_network import network_of_trainer
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.files import save_json

LINEAR = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
DATASET_JSON: dict[str, Any] = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "a": 1, "b": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


def tiny_plans() -> dict[str, Any]:
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [4, 8],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * 2,
            "strides": [[1, 1, 1], [2, 2, 2]],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    fullres = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 8, 8],
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "architecture": architecture,
        "batch_dice": False,
        **{f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg", "probabilities")},
        "resampling_fn_data_kwargs": {**LINEAR, "order": 3},
        "resampling_fn_seg_kwargs": {**LINEAR, "is_seg": True},
        "resampling_fn_probabilities_kwargs": LINEAR,
    }
    cascade = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    return {
        "dataset_name": "Dataset001_X",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
        "experiment_planner_used": "ExperimentPlanner",
        "configurations": {"3d_fullres": fullres, "3d_lowres": fullres, "3d_cascade_fullres": cascade},
    }


def write_model(
    folder: Path, configuration: str = "3d_fullres", folds: tuple[Any, ...] = (0, 1), trainer: str = "nnUNetTrainer"
) -> Path:
    plans, manager = tiny_plans(), PlansManager(tiny_plans())
    save_json(plans, folder / "plans.json", sort_keys=False)
    save_json(DATASET_JSON, folder / "dataset.json", sort_keys=False)
    for seed, fold in enumerate(folds):
        torch.manual_seed(seed)
        network, _ = network_of_trainer(
            "nnUNetTrainer", manager, manager.get_configuration(configuration), DATASET_JSON
        )
        save_checkpoint(
            {
                "network_weights": network.state_dict(),
                "trainer_name": trainer,
                "init_args": {"configuration": configuration},
                "inference_allowed_mirroring_axes": (0, 1, 2),
            },
            folder / f"fold_{fold}" / "checkpoint_final.pth",
        )
    return folder
