"""Trainers with other networks."""

from __future__ import annotations

from torch import nn

from nnunet_lite.exceptions import PlansError
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerNoDeepSupervision(nnUNetTrainer):
    """Only the output of full resolution is compared."""

    enable_deep_supervision = False


class nnUNetTrainerBN(nnUNetTrainer):
    """Batch instead of instance normalization."""

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The planned network with its `norm_op` replaced.

        Raises:
            PlansError: the planned network has no `norm_op`, or cannot pool the planned patch.
        """
        normalized = ConfigurationManager(configuration_manager.configuration, configuration_manager.name)
        arguments = normalized.network_arch_init_kwargs
        if "norm_op" not in arguments:
            raise PlansError(
                "nnUNetTrainerBN replaces norm_op in arch_kwargs, but the planned "
                f"{configuration_manager.network_arch_class_name} has none; use another trainer or other plans"
            )
        arguments["norm_op"] = f"torch.nn.modules.batchnorm.BatchNorm{len(normalized.patch_size)}d"
        arguments["norm_op_kwargs"] = {"eps": 1e-5, "affine": True}
        return nnUNetTrainer.build_network_architecture(
            plans_manager, normalized, num_input_channels, num_output_channels, enable_deep_supervision
        )
