"""A preprocessed dataset of random images with ellipsoids, and plans of a U-Net for any patch size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_lite.experiment_planning.network_topology import determine_topology
from nnunet_lite.preprocessing.blosc2_layout import comp_blosc2_params
from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2

NAME = "Dataset999_Synthetic"
LARGER = 1.4  # edge of an image, of the patch's


def write_dataset(
    preprocessed: Path,
    patch_size: Sequence[int],
    batch_size: int,
    channels: int,
    classes: int,
    cases: int,
    features: int,
) -> str:
    """Write `cases` cases, plans and dataset.json; returns the name of the configuration."""
    configuration = f"{len(patch_size)}d" if len(patch_size) == 2 else "3d_fullres"
    folder = preprocessed / NAME
    data = folder / f"nnUNetPlans_{configuration}"
    data.mkdir(parents=True)
    edges = [int(edge * LARGER) for edge in patch_size]
    shape = tuple(edges) if len(edges) == 3 else (16, *edges)
    layout_patch = list(patch_size) if len(patch_size) == 3 else [1, *patch_size]
    for number in range(cases):
        rng = np.random.default_rng(number)
        labels = _ellipsoids(shape, classes, rng)
        image = rng.standard_normal((channels, *shape), dtype=np.float32) + labels
        properties = {"class_locations": {label: _locations(labels, label, rng) for label in range(1, classes)}}
        blocks, chunks = comp_blosc2_params(image.shape, layout_patch, 4)
        blocks_seg, chunks_seg = comp_blosc2_params((1, *shape), layout_patch, 2)
        nnUNetDatasetBlosc2.save_case(
            image, labels[None], properties, str(data / f"case_{number}"), chunks, blocks, chunks_seg, blocks_seg
        )
    names = {f"class {label}": label for label in range(1, classes)}
    dataset_json = {
        "channel_names": {str(channel): "MR" for channel in range(channels)},
        "labels": {"background": 0, **names},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    plans = _plans(configuration, patch_size, batch_size, channels, features)
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    return configuration


def _ellipsoids(shape: tuple[int, ...], classes: int, rng: np.random.Generator) -> Any:
    labels = np.zeros(shape, np.int16)
    grid = np.ogrid[tuple(slice(0, edge) for edge in shape)]
    for label in range(1, classes):
        centre = [rng.uniform(0.2, 0.8) * edge for edge in shape]
        radius = [max(2.0, rng.uniform(0.05, 0.2) * edge) for edge in shape]
        inside = sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radius, strict=True)) < 1
        labels[inside] = label
    return labels


def _locations(labels: Any, label: int, rng: np.random.Generator) -> Any:
    voxels = np.argwhere(labels[None] == label)
    return voxels if len(voxels) <= 10000 else voxels[rng.choice(len(voxels), 10000, replace=False)]


def _plans(
    configuration: str, patch_size: Sequence[int], batch_size: int, channels: int, features: int
) -> dict[str, Any]:
    dim = len(patch_size)
    topology = determine_topology([1.0] * dim, patch_size)
    stages, most = topology.n_stages, 10 * features if dim == 3 else 16 * features
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": NAME,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [int(edge * LARGER) for edge in ([16] * (3 - dim) + list(patch_size))],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(channel): {} for channel in range(channels)},
        "configurations": {
            configuration: {
                "data_identifier": f"nnUNetPlans_{configuration}",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": batch_size,
                "patch_size": list(patch_size),
                "median_image_size_in_voxels": [edge * LARGER for edge in patch_size],
                "spacing": [1.0] * dim,
                "normalization_schemes": ["ZScoreNormalization"] * channels,
                "use_mask_for_norm": [False] * channels,
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": resampling,
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": {
                        "n_stages": stages,
                        "features_per_stage": [min(features * 2**stage, most) for stage in range(stages)],
                        "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
                        "kernel_sizes": [list(kernel) for kernel in topology.kernel_sizes],
                        "strides": [list(stride) for stride in topology.strides],
                        "n_conv_per_stage": [2] * stages,
                        "n_conv_per_stage_decoder": [2] * (stages - 1),
                        "conv_bias": True,
                        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
                        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
                "batch_dice": dim == 2,
            }
        },
    }
