"""Upstream's module paths that live elsewhere here, so that a user's ported imports keep working.

`sed s/nnunetv2/nnunet_lite/` on a trainer is a complete port: a module of this table answers an import by looking the
name up in its new home at that moment. Nothing is imported before somebody asks.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

MOVED: dict[str, tuple[str, ...]] = {
    "utilities.plans_handling.plans_handler": ("plans.plans_manager", "plans.configuration_manager"),
    "utilities.label_handling.label_handling": ("plans.label_manager", "inference.upstream_helpers"),
    "utilities.dataset_name_id_conversion": ("plans.raw_dataset",),
    "utilities.utils": ("plans.raw_dataset", "inference.upstream_helpers"),
    "utilities.get_network_from_plans": ("models.network",),
    "utilities.file_path_utilities": ("models.model_names", "plans.raw_dataset"),
    "utilities.json_export": ("utilities.files", "inference.upstream_helpers"),
    "utilities.find_class_by_name": ("inference.upstream_helpers",),
    "utilities.helpers": ("training.upstream_helpers", "training.loss.dice", "utilities.device"),
    "utilities.collate_outputs": ("training.online_evaluation",),
    "utilities.default_n_proc_DA": ("training.upstream_helpers",),
    "preprocessing.preprocessors.default_preprocessor": ("preprocessing.default_preprocessor",),
    "preprocessing.cropping.cropping": ("preprocessing.cropping",),
    "preprocessing.normalization.default_normalization_schemes": ("preprocessing.normalization",),
    "preprocessing.resampling.default_resampling": ("preprocessing.resampling",),
    "preprocessing.resampling.resample_torch": ("preprocessing.resampling",),
    "training.dataloading.nnunet_dataset": ("preprocessing.preprocessed_dataset",),
    "training.dataloading.data_loader": ("training.data_loader",),
    "training.data_augmentation.compute_initial_patch_size": ("training.data_augmentation.augmentation_geometry",),
    "utilities.overlay_plots": ("experiment_planning.overlay_plots", "experiment_planning.overlay_picture"),
    "utilities.crossval_split": ("training.splits",),
    "training.logging.nnunet_logger": ("training.logging.loggers",),
    "experiment_planning.experiment_planners.default_experiment_planner": (
        "experiment_planning.default_experiment_planner",
    ),
    "experiment_planning.experiment_planners.network_topology": ("experiment_planning.network_topology",),
    "experiment_planning.experiment_planners.resencUNet_planner": (
        "experiment_planning.residual_encoder_unet_planners",
    ),
    "experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners": (
        "experiment_planning.residual_encoder_unet_planners",
    ),
    "experiment_planning.experiment_planners.resampling.planners_no_resampling": (
        "experiment_planning.resampling_planners",
    ),
    "experiment_planning.experiment_planners.resampling.resample_with_torch": (
        "experiment_planning.resampling_planners",
    ),
    "experiment_planning.plans_for_pretraining.move_plans_between_datasets": (
        "experiment_planning.move_plans_between_datasets",
    ),
    "preprocessing.normalization.map_channel_name_to_normalization": (
        "experiment_planning.default_experiment_planner",
    ),
    "evaluation.find_best_configuration": (
        "model_selection.find_best_configuration",
        "model_selection.accumulate_cv_results",
        "models.model_names",
    ),
    "evaluation.accumulate_cv_results": ("model_selection.accumulate_cv_results",),
    "run.run_training": ("training.run_training",),
    "run.load_pretrained_weights": ("training.load_pretrained_weights",),
    "utilities.ddp_allgather": ("training.loss.dice",),
    "experiment_planning.dataset_fingerprint.fingerprint_extractor": ("experiment_planning.fingerprint_extractor",),
    **{
        f"training.nnUNetTrainer.variants.{old}": (f"training.nnUNetTrainer.variants.{new}",)
        for old, new in {
            "benchmarking.nnUNetTrainerBenchmark_5epochs": "benchmarking",
            "benchmarking.nnUNetTrainerBenchmark_5epochs_noDataLoading": "benchmarking",
            "data_augmentation.nnUNetTrainerDA5": "data_augmentation",
            "data_augmentation.nnUNetTrainerDAOrd0": "data_augmentation",
            "data_augmentation.nnUNetTrainerNoDA": "data_augmentation",
            "data_augmentation.nnUNetTrainerNoMirroring": "mirroring",
            "data_augmentation.nnUNetTrainer_noDummy2DDA": "data_augmentation",
            "loss.nnUNetTrainerCELoss": "losses",
            "loss.nnUNetTrainerDiceLoss": "losses",
            "loss.nnUNetTrainerTopkLoss": "losses",
            "lr_schedule.nnUNetTrainerCosAnneal": "optimizers",
            "lr_schedule.nnUNetTrainer_warmup": "warmup",
            "network_architecture.nnUNetTrainerBN": "networks",
            "network_architecture.nnUNetTrainerNoDeepSupervision": "networks",
            "optimizer.nnUNetTrainerAdam": "optimizers",
            "optimizer.nnUNetTrainerAdan": "optimizers",
            "sampling.nnUNetTrainer_probabilisticOversampling": "sampling",
            "training_length.nnUNetTrainer_Xepochs": "training_length",
            "training_length.nnUNetTrainer_Xepochs_NoMirroring": "training_length",
        }.items()
    },
}


class _MovedModule(ModuleType):
    """Stands at an old path and hands out names from their new homes."""

    def __init__(self, name: str, homes: tuple[str, ...]) -> None:
        super().__init__(name, f"Moved to {', '.join(homes)}.")
        self._homes = homes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        for home in self._homes:
            module = import_module(f"nnunet_lite.{home}")
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"{self.__name__} has moved to {', '.join(self._homes)}, and {name!r} is not there")


def register_moved_modules() -> None:
    """Make the old paths importable; costs microseconds."""
    for old, homes in MOVED.items():
        name = f"nnunet_lite.{old}"
        sys.modules.setdefault(name, _MovedModule(name, homes))
