"""Planners of residual encoder U-Nets: the sizes M, L and XL, and the first one they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from nnunet_lite.experiment_planning.default_experiment_planner import ExperimentPlanner
from nnunet_lite.plans.configuration_manager import PREPROCESSING_KEYS
from nnunet_lite.plans.migrations import UNET_MODULE
from nnunet_lite.plans.plans_manager import PREPROCESSING_DOCUMENT_KEYS, load_plans
from nnunet_lite.utilities.logging import logger


class ResEncUNetPlanner(ExperimentPlanner):
    """Residual encoder for 8 GB; the batch is limited to 5 % of the dataset (nnU-Net v2 2.8.1 behaviour).

    Preprocessed cases of 2d and 3d_fullres are shared with the default plans, but only while both are preprocessed in
    the same way; otherwise they lie in folders of these plans' own.
    """

    default_plans_name = "nnUNetResEncUNetPlans"
    UNet_class = f"{UNET_MODULE}.ResidualEncoderUNet"
    UNet_blocks_per_stage_encoder: Sequence[int] = (1, 3, 4, *(6,) * 10)
    UNet_blocks_per_stage_decoder: Sequence[int] = (1,) * 12
    UNet_reference_val_3d = 680_000_000
    UNet_reference_val_2d = 135_000_000
    patch_must_fit_reference_batch_size = True

    def generate_data_identifier(self, configuration_name: str) -> str:
        """The default plans' folder for 2d and 3d_fullres where its content would be the same, else an own one."""
        if configuration_name in ("2d", "3d_fullres") and self._same_as_default_plans(configuration_name):
            return f"{ExperimentPlanner.default_plans_name}_{configuration_name}"
        return super().generate_data_identifier(configuration_name)

    def _same_as_default_plans(self, configuration_name: str) -> bool:
        """Compare with the default plans if they exist, else with what the default planner would decide."""
        file = Path(self.preprocessed_folder) / f"{ExperimentPlanner.default_plans_name}.json"
        if self.plans_identifier != ExperimentPlanner.default_plans_name and file.is_file():
            plans = load_plans(file)
            if configuration_name in plans["configurations"]:
                existing = _selected(plans, plans["configurations"][configuration_name])
                return _report(existing == preprocessing_decisions(self, configuration_name), configuration_name)
        default = preprocessing_decisions(self._default_planner, configuration_name)
        return _report(default == preprocessing_decisions(self, configuration_name), configuration_name)

    @cached_property
    def _default_planner(self) -> ExperimentPlanner:
        return ExperimentPlanner(self.dataset_name)


class nnUNetPlannerResEncM(ResEncUNetPlanner):
    """About the default network's memory: 8 to 11 GB."""

    default_plans_name = "nnUNetResEncUNetMPlans"
    max_dataset_covered = 1

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float | None = None,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str | None = None,
        overwrite_target_spacing: Sequence[float] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        has_own_name = plans_name is not None and plans_name != self.default_plans_name
        if self.UNet_vram_target_GB != self.default_gpu_memory_target_in_gb and not has_own_name:
            logger.warning(
                "%s is made for %g GB, you ask for %g GB; give the plans a name of their own (-overwrite_plans_name), "
                "or use the planner of the size that fits",
                type(self).__name__,
                self.default_gpu_memory_target_in_gb,
                self.UNet_vram_target_GB,
            )


class nnUNetPlannerResEncL(nnUNetPlannerResEncM):
    """For 24 GB; the recommended size."""

    default_plans_name = "nnUNetResEncUNetLPlans"
    default_gpu_memory_target_in_gb = 24
    UNet_reference_val_corresp_GB = 24
    UNet_reference_val_3d = 2_100_000_000
    UNet_reference_val_2d = 380_000_000


class nnUNetPlannerResEncXL(nnUNetPlannerResEncM):
    """For 40 GB."""

    default_plans_name = "nnUNetResEncUNetXLPlans"
    default_gpu_memory_target_in_gb = 40
    UNet_reference_val_corresp_GB = 40
    UNet_reference_val_3d = 3_600_000_000
    UNet_reference_val_2d = 560_000_000


def preprocessing_decisions(planner: ExperimentPlanner, configuration_name: str) -> dict[str, Any]:
    """Everything that decides how the cases of "2d" or "3d_fullres" are preprocessed, under the names used in plans."""
    forward, _ = planner.determine_transpose()
    spacing = [float(s) for s in planner.determine_fullres_target_spacing()[forward]]
    data_fn, data_kwargs, seg_fn, seg_kwargs = planner.determine_resampling()
    schemes, use_mask = planner.determine_normalization_scheme_and_whether_mask_is_used_for_norm()
    values = (
        planner.preprocessor_name,
        spacing[1:] if configuration_name == "2d" else spacing,
        schemes,
        use_mask,
        data_fn,
        data_kwargs,
        seg_fn,
        seg_kwargs,
    )
    document = {
        "image_reader_writer": planner.reader_writer_name,
        "transpose_forward": forward,
        "foreground_intensity_properties_per_channel": planner.fingerprint.intensity_properties,
    }
    return _selected(document, dict(zip(PREPROCESSING_KEYS, values, strict=True)))


def _selected(document: Mapping[str, Any], configuration: Mapping[str, Any]) -> dict[str, Any]:
    return {key: document.get(key) for key in PREPROCESSING_DOCUMENT_KEYS} | {
        key: configuration.get(key) for key in PREPROCESSING_KEYS
    }


def _report(same: bool, configuration_name: str) -> bool:
    if not same:
        logger.info(
            "%s is preprocessed differently from the default plans, so its cases get a folder of their own",
            configuration_name,
        )
    return same
