"""Networks under the names that nnssl's checkpoints use."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import nnssl

from nnunet_lite.exceptions import PlansError
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.training.nnUNetTrainer.pretraining.networks import build_adapted_network


def configuration(name: str, arguments: Any, imports: Any = None, patch: Any = None) -> ConfigurationManager:
    architecture = {"network_class_name": name, "arch_kwargs": arguments, "_kw_requires_import": imports}
    return ConfigurationManager({"patch_size": patch or [32, 32, 32], "architecture": architecture}, "3d_fullres")


@pytest.mark.parametrize(("name", "nothing"), [("ResEncL", {}), ("NoSkipResEncL", None)])
def test_the_large_residual_encoder_needs_no_arguments(name: str, nothing: Any) -> None:
    """As nnU-Net's preset L plans it for cubic patches."""
    with torch.device("meta"):
        network: Any = build_adapted_network(configuration(name, nothing, patch=[160, 160, 160]), 1, 3)
    assert [len(stage.blocks) for stage in network.encoder.stages] == [1, 3, 4, 6, 6, 6]
    assert network.encoder.output_channels == [32, 64, 128, 256, 320, 320]
    assert network.encoder.strides == [[1, 1, 1], *[[2, 2, 2]] * 5]
    assert not network.decoder.deep_supervision


@pytest.mark.parametrize("name", ["ResEncL", "ResidualEncoderUNet", f"{nnssl.UNETS}.ResidualEncoderUNet"])
def test_arguments_of_the_checkpoint(name: str) -> None:
    """Numbers that belong to the pretraining's dataset are this dataset's own."""
    arguments = {**nnssl.unet_arguments(), "input_channels": 1, "num_classes": 1, "deep_supervision": True}
    network: Any = build_adapted_network(configuration(name, arguments, nnssl.IMPORTS), 2, 3)
    assert [stage.blocks[0].conv1.conv.out_channels for stage in network.encoder.stages] == [4, 8, 8]
    assert network(torch.zeros(1, 2, 16, 16, 16)).shape == (1, 3, 16, 16, 16)


def test_what_is_refused() -> None:
    with pytest.raises(PlansError, match="'dynamic_network_architectures.architectures.unet.Strange'.*not one of"):
        build_adapted_network(configuration("Strange", {}), 1, 2)
    with pytest.raises(PlansError, match=r"must be divisible by \[4, 4, 4\]"):
        build_adapted_network(configuration("ResEncL", nnssl.unet_arguments(), nnssl.IMPORTS, [18, 16, 16]), 1, 2)
