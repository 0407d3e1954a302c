"""The trainer's hooks around the network: its architecture, its loss, its optimizer."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from nnunet_lite.configuration import compile_requested
from nnunet_lite.models.checkpoint import unwrap
from nnunet_lite.models.network import build_network
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.training.loss import deep_supervision
from nnunet_lite.training.loss.compound_losses import default_loss
from nnunet_lite.training.lr_scheduler.polylr import PolyLRScheduler
from nnunet_lite.training.nnUNetTrainer.training_data import TrainingData
from nnunet_lite.training.precision import training_precision
from nnunet_lite.utilities.device import can_compile


class TrainingModel(TrainingData):
    """Part of nnUNetTrainer; the attributes are filled by its constructor and by `initialize`."""

    initial_lr: float = 1e-2
    weight_decay: float = 3e-5
    momentum: float = 0.99
    num_epochs: int = 1000
    find_unused_parameters: bool | None = None  # of DistributedDataParallel; None: where deep supervision is off

    precision: str = "auto"

    network: Any
    _autocast_type: torch.dtype | None
    num_input_channels: Any

    def _build_network(self) -> nn.Module:
        heads, configuration = self.label_manager.num_segmentation_heads, self.configuration_manager
        tail = (self.num_input_channels, heads, self.enable_deep_supervision)
        build: Callable[..., nn.Module] = self.build_network_architecture
        if "plans_manager" in inspect.signature(build).parameters:
            return build(self.plans_manager, configuration, *tail)
        warnings.warn("build_network_architecture without plans_manager is old", DeprecationWarning, stacklevel=2)
        architecture = (configuration.network_arch_class_name, configuration.network_arch_init_kwargs)
        return build(*architecture, configuration.network_arch_init_kwargs_req_import, *tail)

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """A network without final nonlinearity; prediction calls this too, without deep supervision."""
        configuration_manager.require_poolable_patch()
        return build_network(
            configuration_manager.network_arch_class_name,
            configuration_manager.network_arch_init_kwargs,
            configuration_manager.network_arch_init_kwargs_req_import,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )

    def _choose_precision(self) -> str | None:
        """Set the autocast type; what there is to say about it, if anything."""
        self._autocast_type, remark = training_precision(self.precision, self.device, self.configuration_manager)
        return remark

    def _do_i_compile(self) -> bool:
        """Whether torch.compile is used: on CUDA, where it works, unless nnUNet_compile says no."""
        return self.device.type == "cuda" and os.name != "nt" and compile_requested(True) and can_compile(self.device)

    def _build_loss(self) -> nn.Module:
        """Dice and (binary) cross entropy over all resolutions."""
        batch_dice = self.configuration_manager.batch_dice
        loss = default_loss(self.label_manager, batch_dice, self.is_ddp)
        if self._do_i_compile() and not (self.is_ddp and batch_dice):  # what ranks exchange is no part of a graph
            loss.dc = cast("nn.Module", torch.compile(loss.dc))
        return self._deeply_supervised(loss)

    def _deeply_supervised(self, loss: nn.Module) -> nn.Module:
        """The loss of one resolution over all of them, if deep supervision is on."""
        if (scales := self._get_deep_supervision_scales()) is None:
            return loss
        return deep_supervision.DeepSupervisionWrapper(loss, deep_supervision.deep_supervision_weights(len(scales)))

    def _may_leave_parameters_out(self) -> bool:
        """Whether some parameters may be without effect on the outputs, as heads that are not asked for."""
        return not self.enable_deep_supervision if self.find_unused_parameters is None else self.find_unused_parameters

    @property
    def _fused(self) -> bool | None:
        """For optimizers of torch: on CUDA one kernel, which can leave an update out by itself; else the default."""
        return True if self.device.type == "cuda" else None

    def configure_optimizers(self) -> tuple[Any, Any]:
        """Optimizer and schedule; the schedule's step(epoch) is called once per epoch."""
        optimizer = torch.optim.SGD(
            self.network.parameters(),
            self.initial_lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            nesterov=True,
            fused=self._fused,
        )
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Switch between a list of outputs and the full-resolution output; override for networks of another build."""
        network: Any = unwrap(self.network)
        network.decoder.deep_supervision = enabled
