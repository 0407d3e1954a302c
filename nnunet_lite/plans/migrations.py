"""Older forms of plans files, one function per form; each returns a new dict in today's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_lite.exceptions import PlansError
from nnunet_lite.plans.checked_values import numbers, whole_number
from nnunet_lite.utilities.logging import logger

UNET_MODULE = "dynamic_network_architectures.architectures.unet"
KWARGS_REQUIRING_IMPORT = ("conv_op", "norm_op", "dropout_op", "nonlin")

_LEGACY_NETWORK_KEYS = (
    "UNet_class_name",
    "UNet_base_num_features",
    "n_conv_per_stage_encoder",
    "n_conv_per_stage_decoder",
    "num_pool_per_axis",
    "pool_op_kernel_sizes",
    "conv_kernel_sizes",
    "unet_max_num_features",
)
_BLOCKS_KEY = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}


def convolution_modules(dimension: int) -> dict[str, Any]:
    """The architecture arguments that all networks planned by nnU-Net share, for 2 or 3 dimensions."""
    return {
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def migrate_plans(plans: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the top level of a plans file to today's form; configurations are migrated once they are resolved."""
    return intensity_properties_by_modality(plans)


def migrate_configuration(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Bring one configuration (inheritance resolved) to today's form."""
    return architecture_as_single_keys(configuration)


def intensity_properties_by_modality(plans: Mapping[str, Any]) -> dict[str, Any]:
    """`foreground_intensity_properties_by_modality` is now called `..._per_channel`; the old key is kept."""
    migrated = dict(plans)
    if "foreground_intensity_properties_by_modality" in migrated:
        migrated.setdefault(
            "foreground_intensity_properties_per_channel", migrated["foreground_intensity_properties_by_modality"]
        )
    return migrated


def architecture_as_single_keys(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The first v2 releases described the network by single keys (UNet_class_name ...); now it is one `architecture`.

    Raises:
        PlansError: the class is neither PlainConvUNet nor ResidualEncoderUNet, or one of the keys is missing.
    """
    migrated = dict(configuration)
    if "architecture" in migrated or "UNet_class_name" not in migrated:
        return migrated
    class_name = migrated["UNet_class_name"]
    if not isinstance(class_name, str) or class_name not in _BLOCKS_KEY:
        raise PlansError(
            f"These plans name the network {class_name!r}; plans of that age know {' and '.join(_BLOCKS_KEY)}. "
            "Plan the dataset again: nnUNetv2_plan_experiment"
        )
    missing = [key for key in (*_LEGACY_NETWORK_KEYS, "patch_size") if key not in migrated]
    missing = [key for key in missing if key != "num_pool_per_axis"]
    if missing:
        raise PlansError(f"These old plans lack {', '.join(missing)}; plan the dataset again: nnUNetv2_plan_experiment")
    logger.warning("These plans come from an early nnU-Net v2 release; their network description is converted")
    dimension = len(numbers(migrated["patch_size"], "patch_size of these old plans", whole=True))
    if not isinstance(migrated["n_conv_per_stage_encoder"], list):
        raise PlansError("n_conv_per_stage_encoder of these old plans is no list; plan the dataset again")
    stages = len(migrated["n_conv_per_stage_encoder"])
    base, maximum = (
        whole_number(migrated[key], f"{key} of these old plans")
        for key in ("UNet_base_num_features", "unet_max_num_features")
    )
    migrated["architecture"] = {
        "network_class_name": f"{UNET_MODULE}.{class_name}",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [min(base * 2**stage, maximum) for stage in range(stages)],
            "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
            "kernel_sizes": migrated["conv_kernel_sizes"],
            "strides": migrated["pool_op_kernel_sizes"],
            _BLOCKS_KEY[class_name]: migrated["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": migrated["n_conv_per_stage_decoder"],
            **convolution_modules(dimension),
        },
        "_kw_requires_import": list(KWARGS_REQUIRING_IMPORT),
    }
    return {key: value for key, value in migrated.items() if key not in _LEGACY_NETWORK_KEYS}
