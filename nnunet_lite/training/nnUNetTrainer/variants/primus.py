"""Primus, the transformer family (spec 02, 8.2): other networks, AdamW, and a learning rate that rises first.

The networks come with dynamic_network_architectures but need timm, and timm needs torchvision; both are imported only
when such a network is built.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import nn

from nnunet_lite.exceptions import ExtensionError, PlansError
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import CUDA
from nnunet_lite.training.nnUNetTrainer.variants.warmup import nnUNetTrainer_warmup

_MODULE = "dynamic_network_architectures.architectures.primus"
_TOKEN = (8, 8, 8)  # voxels
_DROP_PATH, _LAYER_SCALE = 0.2, 0.1


def primus_class(name: str) -> Any:
    """A network class of the Primus family, for example PrimusM.

    Raises:
        ExtensionError: timm or torchvision is missing or broken, or this release has no such network.
    """
    try:
        module = import_module(_MODULE)
    except Exception as error:  # a torchvision of another torch raises RuntimeError
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ExtensionError(
            f"{name} needs the packages timm and torchvision, which cannot be imported here ({reason}); "
            "install timm and the torchvision that belongs to your torch (https://pytorch.org/get-started)"
        ) from error
    if not hasattr(module, name):
        raise ExtensionError(f"This release of dynamic-network-architectures has no {name}; update it")
    return getattr(module, name)


def require_whole_tokens(configuration: ConfigurationManager, token: tuple[int, ...] = _TOKEN) -> None:
    """Check that a patch consists of whole tokens. Raises PlansError, for 2D patches too."""
    patch = configuration.patch_size
    if len(patch) != len(token):
        raise PlansError(
            f"Primus is a network for 3D patches; configuration {configuration.name} has patch_size {list(patch)}: "
            "choose a 3D configuration"
        )
    if any(edge % size for edge, size in zip(patch, token, strict=True)):
        nearest = [max(1, round(edge / size)) * size for edge, size in zip(patch, token, strict=True)]
        raise PlansError(
            f"Primus needs a patch_size divisible by {list(token)}; configuration {configuration.name} has "
            f"{list(patch)}, the nearest that fits is {nearest}: change it in the plans"
        )


def build_primus(
    name: str, configuration: ConfigurationManager, num_input_channels: int, num_output_channels: int
) -> nn.Module:
    """A network of the family with the published settings: drop path 0.2, layer scale 0.1, scaled inner attention.

    Args:
        name: Primus, PrimusV2 or PrimusV3, followed by the size S, B, M or L.

    Raises:
        PlansError: the patch does not fit.
        ExtensionError: timm is missing.
    """
    require_whole_tokens(configuration)
    network: nn.Module = primus_class(name)(
        num_input_channels,
        num_output_channels,
        _TOKEN,
        tuple(configuration.patch_size),
        drop_path_rate=_DROP_PATH,
        scale_attn_inner=True,
        init_values=_LAYER_SCALE,
    )
    return network


def primus_optimizer(trainer: Any) -> torch.optim.Optimizer:
    """AdamW with betas 0.9 and 0.98; fused where the device has it."""
    return torch.optim.AdamW(
        trainer.network.parameters(),
        lr=trainer.initial_lr,
        weight_decay=trainer.weight_decay,
        betas=(0.9, 0.98),
        amsgrad=False,
        fused=True if trainer.device.type == "cuda" else None,
    )


class AbstractPrimus(nnUNetTrainer_warmup):
    """What the trainers of the family have in common; `network_name` says which network."""

    network_name: str = ""
    initial_lr = 3e-4
    weight_decay = 5e-2
    gradient_clip_norm = 1.0
    enable_deep_supervision = False
    changes: dict[str, Any] = {}  # entries of the configuration that are set whatever is planned

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = CUDA,
    ) -> None:
        super().__init__(with_changes(plans, configuration, self.changes), configuration, fold, dataset_json, device)

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = False,
    ) -> nn.Module:
        """The transformer called `network_name`; the planned network plays no role, nor does deep supervision.

        Raises:
            PlansError, ExtensionError: see `build_primus`; or this class is abstract.
        """
        if not cls.network_name:
            raise ExtensionError(f"{cls.__name__} is abstract: use nnUNet_Primus_M_Trainer or another of the family")
        return build_primus(cls.network_name, configuration_manager, num_input_channels, num_output_channels)

    def make_optimizer(self) -> Any:
        """AdamW."""
        return primus_optimizer(self)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """These networks have one output."""


def with_changes(plans: dict[str, Any], configuration: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Plans in which entries of one configuration are set; the given ones stay as they are."""
    if not changes or configuration not in plans.get("configurations", {}):
        return plans  # an unknown configuration is the base class's complaint
    changed = {**plans["configurations"][configuration], **changes}
    return {**plans, "configurations": {**plans["configurations"], configuration: changed}}


class nnUNet_Primus_S_Trainer(AbstractPrimus):
    """Depth 12, 6 heads, 396 features per token."""

    network_name = "PrimusS"


class nnUNet_Primus_B_Trainer(AbstractPrimus):
    """Depth 12, 12 heads, 792 features per token."""

    network_name = "PrimusB"


class nnUNet_Primus_M_Trainer(AbstractPrimus):
    """Depth 16, 12 heads, 864 features per token."""

    network_name = "PrimusM"


class nnUNet_Primus_L_Trainer(AbstractPrimus):
    """Depth 24, 16 heads, 1056 features per token."""

    network_name = "PrimusL"


class nnUNet_PrimusV2S_Trainer(AbstractPrimus):
    """Depth 12, 6 heads, 396 features per token; tokens from a residual convolutional stem."""

    network_name = "PrimusV2S"


class nnUNet_PrimusV2B_Trainer(AbstractPrimus):
    """Depth 12, 12 heads, 792 features per token; tokens from a residual convolutional stem."""

    network_name = "PrimusV2B"


class nnUNet_PrimusV2M_Trainer(AbstractPrimus):
    """Depth 16, 12 heads, 864 features per token; tokens from a residual convolutional stem."""

    network_name = "PrimusV2M"


class nnUNet_PrimusV2L_Trainer(AbstractPrimus):
    """Depth 24, 16 heads, 1056 features per token; tokens from a residual convolutional stem."""

    network_name = "PrimusV2L"


class nnUNet_PrimusV3S_Trainer(AbstractPrimus):
    """Depth 12, 6 heads, 396 features per token; tokens from a wide residual stem with skips."""

    network_name = "PrimusV3S"


class nnUNet_PrimusV3B_Trainer(AbstractPrimus):
    """Depth 12, 12 heads, 792 features per token; tokens from a wide residual stem with skips."""

    network_name = "PrimusV3B"


class nnUNet_PrimusV3M_Trainer(AbstractPrimus):
    """Depth 16, 12 heads, 864 features per token; tokens from a wide residual stem with skips."""

    network_name = "PrimusV3M"


class nnUNet_PrimusV3L_Trainer(AbstractPrimus):
    """Depth 24, 16 heads, 1056 features per token; tokens from a wide residual stem with skips."""

    network_name = "PrimusV3L"


class nnUNet_Primus_M_Trainer_BS8(nnUNet_Primus_M_Trainer):
    """Batches of 8."""

    changes = {"batch_size": 8}


class nnUNet_Primus_M_Trainer_BS8_2e4(nnUNet_Primus_M_Trainer_BS8):
    """Learning rate 2e-4."""

    initial_lr = 2e-4


class _Primus_S_96_BS1(nnUNet_Primus_S_Trainer):
    """For debugging: patches of 96, one per batch."""

    changes = {"patch_size": [96] * 3, "batch_size": 1}


class _Primus_B_96_BS1(nnUNet_Primus_B_Trainer):
    """For debugging: patches of 96, one per batch."""

    changes = {"patch_size": [96] * 3, "batch_size": 1}


class _Primus_M_96_BS1(nnUNet_Primus_M_Trainer):
    """For debugging: patches of 96, one per batch."""

    changes = {"patch_size": [96] * 3, "batch_size": 1}


class _Primus_L_48_BS1(nnUNet_Primus_L_Trainer):
    """For debugging: patches of 48, one per batch."""

    changes = {"patch_size": [48] * 3, "batch_size": 1}
