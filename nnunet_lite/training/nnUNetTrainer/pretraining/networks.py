"""Networks of nnssl checkpoints, which name them shortly (ResEncL, PrimusM) or as plans do."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from nnunet_lite.exceptions import PlansError
from nnunet_lite.models.network import build_network
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.dataset_json import short
from nnunet_lite.training.nnUNetTrainer.variants.primus import build_primus, primus_class, require_whole_tokens

_UNETS = "dynamic_network_architectures.architectures.unet"
_EXPLICIT = tuple(f"Primus{version}{x}" for version in ("", "V2", "V3") for x in ("", "X"))  # useless without numbers
_OF_THE_DATASET = ("input_channels", "output_channels", "num_classes", "input_shape", "deep_supervision")
_STAGES = 6

# The network of nnssl's residual encoder checkpoints, which bring no arguments along.
_RESENC_L: dict[str, Any] = {
    "n_stages": _STAGES,
    "features_per_stage": [32, 64, 128, 256, 320, 320],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[3, 3, 3]] * _STAGES,
    "strides": [[1, 1, 1], *[[2, 2, 2]] * (_STAGES - 1)],
    "n_blocks_per_stage": [1, 3, 4, 6, 6, 6],
    "n_conv_per_stage_decoder": [1] * (_STAGES - 1),
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
_RESENC_IMPORTS = ["conv_op", "norm_op", "dropout_op", "nonlin"]
_RESENC_NAMES = ("ResEncL", "NoSkipResEncL")  # what was pretrained without skips is fine-tuned with them


def build_adapted_network(
    configuration: ConfigurationManager,
    num_input_channels: int,
    num_output_channels: int,
    enable_deep_supervision: bool = False,
) -> nn.Module:
    """The network that a configuration names, whatever of nnssl's spellings it uses.

    Raises:
        PlansError: a network that is not known, arguments that it does not take, or a patch that does not fit it.
        ExtensionError: a transformer, and timm is missing.
    """
    name = configuration.network_arch_class_name
    arguments, imports = _arguments(configuration)
    bare = name.rpartition(".")[2]
    if bare.startswith("Primus"):
        if arguments or bare in _EXPLICIT:
            return _explicit_primus(bare, arguments, configuration, num_input_channels, num_output_channels)
        return build_primus(bare, configuration, num_input_channels, num_output_channels)
    if bare in _RESENC_NAMES:
        name = f"{_UNETS}.ResidualEncoderUNet"
        if not arguments:
            arguments, imports = _RESENC_L, _RESENC_IMPORTS
    elif bare == name:
        name = f"{_UNETS}.{bare}"
    architecture = {"network_class_name": name, "arch_kwargs": arguments, "_kw_requires_import": imports}
    complete = {**configuration.configuration, "architecture": architecture}
    ConfigurationManager(complete, configuration.name).require_poolable_patch()
    return build_network(name, arguments, imports, num_input_channels, num_output_channels, enable_deep_supervision)


def _arguments(configuration: ConfigurationManager) -> tuple[dict[str, Any], list[str]]:
    """arch_kwargs and which of them are names of classes; checkpoints may leave both out."""
    architecture = configuration.configuration["architecture"]
    kwargs = configuration.network_arch_init_kwargs if architecture.get("arch_kwargs") else {}
    imports = configuration.network_arch_init_kwargs_req_import if architecture.get("_kw_requires_import") else []
    return {key: value for key, value in kwargs.items() if key not in _OF_THE_DATASET}, list(imports)


def _explicit_primus(
    name: str,
    arguments: Mapping[str, Any],
    configuration: ConfigurationManager,
    num_input_channels: int,
    num_output_channels: int,
) -> nn.Module:
    """A transformer from its own numbers (depth, heads, features, token size); the patch is the dataset's.

    Classes that know their size by name take the heads as `output_channels`, the others as `num_classes`.
    """
    token = arguments.get("patch_embed_size")
    if not isinstance(token, (list, tuple)) or not all(isinstance(size, int) and size > 0 for size in token):
        raise PlansError(f"The plans' {name} has patch_embed_size {short(token)}, expected three whole numbers")
    require_whole_tokens(configuration, tuple(token))
    network_class = primus_class(name)
    heads = "num_classes" if "num_classes" in inspect.signature(network_class).parameters else "output_channels"
    try:
        network: nn.Module = network_class(
            input_channels=num_input_channels,
            input_shape=tuple(configuration.patch_size),
            **{**arguments, heads: num_output_channels, "patch_embed_size": tuple(token)},
        )
    except Exception as error:  # of whatever kind a wrong number provokes
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PlansError(f"{name} cannot be built from the plans' arch_kwargs: {reason}") from error
    return network
