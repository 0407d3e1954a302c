"""Planners that differ from others only in how images and labels are resampled."""

from __future__ import annotations

from typing import Any

from nnunet_lite.experiment_planning.default_experiment_planner import ExperimentPlanner, Resampling
from nnunet_lite.experiment_planning.residual_encoder_unet_planners import nnUNetPlannerResEncL


class _OwnFolders(ExperimentPlanner):
    """Their cases are never shared with other plans."""

    def generate_data_identifier(self, configuration_name: str) -> str:
        """`<plans>_<configuration>`."""
        return f"{self.plans_identifier}_{configuration_name}"


class _TorchResampling(_OwnFolders):
    """Linear resampling by torch for images, labels and logits."""

    resampling_kwargs: dict[str, Any] = {"force_separate_z": False, "memefficient_seg_resampling": False}

    def determine_resampling(self, *args: Any, **kwargs: Any) -> tuple[str, dict[str, Any], str, dict[str, Any]]:
        """Resampling of images and of label maps."""
        name = "resample_torch_fornnunet"
        return name, {"is_seg": False, **self.resampling_kwargs}, name, {"is_seg": True, **self.resampling_kwargs}

    def determine_segmentation_softmax_export_fn(self, *args: Any, **kwargs: Any) -> Resampling:
        """Resampling of logits."""
        return "resample_torch_fornnunet", {"is_seg": False, **self.resampling_kwargs}


class nnUNetPlanner_torchres(_TorchResampling):
    """Default network, resampling by torch."""

    default_plans_name = "nnUNetPlans_torchres"


class nnUNetPlannerResEncL_torchres(_TorchResampling, nnUNetPlannerResEncL):
    """Residual encoder L, resampling by torch."""

    default_plans_name = "nnUNetResEncUNetLPlans_torchres"


class nnUNetPlannerResEncL_torchres_sepz(nnUNetPlannerResEncL_torchres):
    """Residual encoder L, resampling by torch, a coarse axis treated on its own."""

    default_plans_name = "nnUNetResEncUNetLPlans_torchres_sepz"
    resampling_kwargs = {
        "force_separate_z": None,
        "memefficient_seg_resampling": False,
        "separate_z_anisotropy_threshold": 3,
    }


class nnUNetPlannerResEncL_noResampling(_OwnFolders, nnUNetPlannerResEncL):
    """Residual encoder L, cases keep their voxels; spacings are planned as usual, so a 3d_lowres has no meaning."""

    default_plans_name = "nnUNetResEncUNetLPlans_noResampling"

    def determine_resampling(self, *args: Any, **kwargs: Any) -> tuple[str, dict[str, Any], str, dict[str, Any]]:
        """None, for images and label maps."""
        return "no_resampling_hack", {}, "no_resampling_hack", {}

    def determine_segmentation_softmax_export_fn(self, *args: Any, **kwargs: Any) -> Resampling:
        """None, for logits."""
        return "no_resampling_hack", {}
