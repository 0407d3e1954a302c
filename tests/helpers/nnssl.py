"""Checkpoints as nnssl writes them, of tiny networks, in the format of spec 02, 9.4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

UNETS = "dynamic_network_architectures.architectures.unet"
IMPORTS = ["conv_op", "norm_op", "dropout_op", "nonlin"]
PATCH = [8, 16, 16]


def unet_arguments(kind: str = "ResidualEncoderUNet", stages: int = 3, kernel: int = 3) -> dict[str, Any]:
    """Arguments of a tiny 3D U-Net, as they stand in a checkpoint."""
    blocks = "n_blocks_per_stage" if kind == "ResidualEncoderUNet" else "n_conv_per_stage"
    return {
        "n_stages": stages,
        "features_per_stage": [4, 8, 8, 8][:stages],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[kernel, 3, 3], *[[3, 3, 3]] * (stages - 1)],
        "strides": [[1, 1, 1], *[[2, 2, 2]] * (stages - 1)],
        blocks: [1] * stages,
        "n_conv_per_stage_decoder": [1] * (stages - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def write_checkpoint(
    path: Path,
    network: nn.Module,
    name: str,
    arguments: dict[str, Any] | None,
    channels: int = 1,
    patch: list[int] | None = None,
    recommended: list[int] | None = None,
) -> Path:
    """Save a network's weights with the adaptation plan that belongs to it."""
    plan = {
        "pretrain_plan": {
            "configurations": {"onemmiso": {"spacing": [1.0, 1.0, 1.0], "patch_size": patch or [16, 16, 16]}}
        },
        "architecture_plans": {
            "arch_class_name": name,
            "arch_kwargs": arguments,
            "arch_kwargs_requiring_import": IMPORTS if arguments and "conv_op" in arguments else None,
        },
        "key_to_encoder": network.key_to_encoder,
        "key_to_stem": network.key_to_stem,
        "keys_to_in_proj": list(network.keys_to_in_proj),
        "key_to_lpe": getattr(network, "key_to_lpe", None),
        "pretrain_num_input_channels": channels,
        "recommended_downstream_patchsize": recommended or PATCH,
    }
    weights = {f"module.{key}": value for key, value in network.state_dict().items()}  # trained on several GPUs
    citations = [{"type": "Pretraining Method", "name": "MAE", "bibtex_citations": ["@article{a paper}"]}]
    torch.save({"network_weights": weights, "nnssl_adaptation_plan": plan, "citations": citations}, path)
    return path
