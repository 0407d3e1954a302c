"""nnU-Net v2, re-implemented: the public names, each imported on first use so that importing this is instant."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from nnunet_lite.compat import register_moved_modules
from nnunet_lite.version import __version__

_PUBLIC = {
    "nnUNetError": "nnunet_lite.exceptions",
    "nnUNet_raw": "nnunet_lite.paths",
    "nnUNet_preprocessed": "nnunet_lite.paths",
    "nnUNet_results": "nnunet_lite.paths",
    "PlansManager": "nnunet_lite.plans.plans_manager",
    "ConfigurationManager": "nnunet_lite.plans.configuration_manager",
    "LabelManager": "nnunet_lite.plans.label_manager",
    "DatasetFingerprintExtractor": "nnunet_lite.experiment_planning.fingerprint_extractor",
    "ExperimentPlanner": "nnunet_lite.experiment_planning.default_experiment_planner",
    "DefaultPreprocessor": "nnunet_lite.preprocessing.default_preprocessor",
    "nnUNetTrainer": "nnunet_lite.training.nnUNetTrainer.nnUNetTrainer",
    "nnUNetPredictor": "nnunet_lite.inference.predict_from_raw_data",
    "compute_metrics_on_folder": "nnunet_lite.evaluation.evaluate_predictions",
}

__all__ = ["__version__", *_PUBLIC]

register_moved_modules()


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
