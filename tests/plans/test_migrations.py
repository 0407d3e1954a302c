"""Plans of older releases are read."""

from __future__ import annotations

from typing import Any

import pytest

from nnunet_lite.exceptions import PlansError
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.plans_manager import PlansManager

OLD: dict[str, Any] = {
    "patch_size": [20, 320, 256],
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 32,
    "unet_max_num_features": 320,
    "n_conv_per_stage_encoder": [2, 2, 2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2, 2, 2],
    "num_pool_per_axis": [2, 4, 4],
    "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]],
    "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
    "batch_size": 2,
}


def test_single_keys_become_an_architecture() -> None:
    before = {**OLD}
    manager = ConfigurationManager(OLD)
    assert before == OLD
    assert manager.network_arch_class_name == "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    assert manager.network_arch_init_kwargs == {
        "n_stages": 5,
        "features_per_stage": [32, 64, 128, 256, 320],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": OLD["conv_kernel_sizes"],
        "strides": OLD["pool_op_kernel_sizes"],
        "n_conv_per_stage": [2, 2, 2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2, 2, 2],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    assert set(manager.configuration) == {"patch_size", "batch_size", "architecture"}
    assert manager.pool_op_kernel_sizes == OLD["pool_op_kernel_sizes"]


def test_old_residual_encoder_in_2d_through_inheritance() -> None:
    plans = {
        "configurations": {
            "2d": {**OLD, "patch_size": [64, 64]},
            "mine": {"inherits_from": "2d", "UNet_class_name": "ResidualEncoderUNet"},
        }
    }
    manager = PlansManager(plans).get_configuration("mine")
    assert manager.network_arch_class_name.endswith("unet.ResidualEncoderUNet")
    assert manager.network_arch_init_kwargs["n_blocks_per_stage"] == [2, 2, 2, 2, 2]
    assert manager.network_arch_init_kwargs["conv_op"] == "torch.nn.modules.conv.Conv2d"
    assert "n_conv_per_stage" not in manager.network_arch_init_kwargs


def test_other_old_networks_are_refused() -> None:
    with pytest.raises(PlansError, match="'SwinUNETR'"):
        ConfigurationManager({**OLD, "UNet_class_name": "SwinUNETR"})
    with pytest.raises(PlansError, match="lack conv_kernel_sizes"):
        ConfigurationManager({key: value for key, value in OLD.items() if key != "conv_kernel_sizes"})


def test_intensities_by_modality() -> None:
    plans = {"configurations": {}, "foreground_intensity_properties_by_modality": {"0": {"mean": 1.0}}}
    assert PlansManager(plans).foreground_intensity_properties_per_channel == {"0": {"mean": 1.0}}
