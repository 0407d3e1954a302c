"""The final validation: every validation case predicted as a whole, exported like any prediction, and evaluated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnunet_lite.configuration import usable_processes
from nnunet_lite.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor
from nnunet_lite.training.distributed_training import without_ddp
from nnunet_lite.training.previous_stage import require_previous_stage
from nnunet_lite.training.validation_outputs import ValidationOutputs, export_outputs
from nnunet_lite.training.validation_prediction import ValidationPrediction
from nnunet_lite.utilities.distributed import barrier, local_world_size, rank

_WORKER_START = 3.0  # seconds; exports that take less altogether are made in this process


class Settings(NamedTuple):
    """How every final validation predicts."""

    tile_step_size: float = 0.5
    use_gaussian: bool = True
    use_mirroring: bool = True


def validate(trainer: Any, save_probabilities: bool) -> None:
    """Predict, export and evaluate the validation cases of a trainer (spec 02, 7.10).

    What an earlier validation has written with these weights is kept, so that an interrupted one goes on. Only the
    present validation cases are scored, whatever else lies in the folder.

    Raises:
        DatasetError: a cascade's previous stage has not predicted all cases.
        WorkerError: an export failed or its process died; names the case.
    """
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    try:
        _, keys = trainer.do_split()
        if not keys:
            trainer.print_to_log_file("This fold has no validation cases: nothing to validate")
            return
        if trainer.fold == "all":
            trainer.print_to_log_file("Fold all validates on the cases it was trained on: no estimate for new images")
        require_previous_stage(trainer, keys)
        predictor, settings = _make_predictor(trainer)
        outputs = ValidationOutputs(trainer, keys, save_probabilities, settings._asdict())
        _predict_cases(trainer, predictor, outputs)
        barrier()
        if rank() == 0:
            _evaluate(trainer, keys, outputs.folder)
    finally:
        trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)


def _predict_cases(trainer: Any, predictor: nnUNetPredictor, outputs: ValidationOutputs) -> None:
    missing = outputs.missing()
    kept = len(outputs.mine) - len(missing)
    if kept:
        trainer.print_to_log_file(f"{kept} of {len(outputs.mine)} cases are predicted already with these weights")
    if missing:
        previous = trainer.folder_with_segs_from_previous_stage
        dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, list(missing), previous)
        processes = _processes(trainer, dataset, list(missing))
        ValidationPrediction(trainer, predictor, outputs, dataset, export_outputs).run(missing, processes)


def _make_predictor(trainer: Any) -> tuple[nnUNetPredictor, Settings]:
    """A predictor around the trained network, and its settings."""
    settings = Settings()
    predictor = nnUNetPredictor(
        **settings._asdict(),
        perform_everything_on_device=True,
        device=trainer.device,
        verbose=False,
        verbose_preprocessing=False,
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        without_ddp(trainer.network),  # ranks predict different numbers of patches
        trainer.plans_manager,
        trainer.configuration_manager,
        None,
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    return predictor, settings


def _processes(trainer: Any, dataset: Any, keys: Sequence[str]) -> int:
    """Background processes for the exports; none where these take less time than starting one."""
    per_voxel = 5e-8 + 5e-9 * trainer.label_manager.num_segmentation_heads
    seconds = 0.0
    for key in keys:
        seconds += per_voxel * float(np.prod(dataset.load_case(key)[3]["shape_before_cropping"]))
        if seconds > _WORKER_START:
            return min(-(-usable_processes(None) // local_world_size()), len(keys))
    return 0


def _evaluate(trainer: Any, keys: list[str], folder: Path) -> None:
    labels = trainer.label_manager
    metrics = compute_metrics_on_folder(
        os.path.join(trainer.preprocessed_dataset_folder_base, "gt_segmentations"),
        str(folder),
        str(folder / "summary.json"),
        trainer.plans_manager.image_reader_writer_class(),
        trainer.dataset_json["file_ending"],
        labels.foreground_regions if labels.has_regions else labels.foreground_labels,
        labels.ignore_label,
        cases=keys,
    )
    for label, values in metrics["mean"].items():
        trainer.logger.log_summary(f"final_val/class_{label}_dice", values["Dice"])
    dice = metrics["foreground_mean"]["Dice"]
    trainer.logger.log_summary("final_val/foreground_dice", dice)
    trainer.print_to_log_file("Validation complete")
    trainer.print_to_log_file("Mean Validation Dice: ", dice)
    if trainer.fold == "all":
        trainer.print_to_log_file("This is the Dice of training cases; new images will be segmented less well")
