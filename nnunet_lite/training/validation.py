"""The final validation: every validation case predicted as a whole, exported like any prediction, and evaluated."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_lite.configuration import usable_processes
from nnunet_lite.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunet_lite.inference.export_prediction import export_prediction_from_logits, resample_and_save
from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor
from nnunet_lite.plans.label_manager import convert_labelmap_to_one_hot
from nnunet_lite.preprocessing.preprocessed_dataset import infer_dataset_class
from nnunet_lite.training.distributed_training import without_ddp
from nnunet_lite.utilities.distributed import barrier, local_world_size, rank, world_size
from nnunet_lite.utilities.memory import available_memory
from nnunet_lite.utilities.parallel import Task, WorkerPool

_QUEUE_SHARE = 0.25  # of the free memory that logits waiting for their export may take


def validate(trainer: Any, save_probabilities: bool) -> None:
    """Predict, export and evaluate the validation cases of a trainer (spec 02, 7.10).

    Only the present validation cases are scored, whatever else lies in the folder.

    Raises:
        WorkerError: an export failed or its process died; names the case.
    """
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    try:
        _, keys = trainer.do_split()
        folder = Path(trainer.output_folder, "validation")
        folder.mkdir(parents=True, exist_ok=True)
        _predict_cases(trainer, keys, folder, save_probabilities)
        barrier()
        if rank() == 0:
            _evaluate(trainer, keys, folder)
    finally:
        trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)


def _predict_cases(trainer: Any, keys: list[str], folder: Path, save_probabilities: bool) -> None:
    predictor = _make_predictor(trainer)
    previous = trainer.folder_with_segs_from_previous_stage
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, keys, previous)
    mine = sorted(keys)[rank() :: world_size()]
    next_stages = _next_stages(trainer)
    with WorkerPool(min(-(-usable_processes(None) // local_world_size()), len(mine))) as pool:
        exports = _Exports(pool)
        for number, key in enumerate(mine, 1):
            trainer.print_to_log_file(f"predicting {key} ({number} of {len(mine)})")
            data, _, seg_prev, properties = dataset.load_case(key)
            image = _with_previous_stage(np.asarray(data[:]), seg_prev, trainer)
            logits = predictor.predict_sliding_window_return_logits(image).cpu().numpy()
            common = (trainer.configuration_manager, trainer.plans_manager, trainer.dataset_json)
            arguments = (logits, properties, *common, str(folder / key), save_probabilities)
            exports.submit(Task(key, export_prediction_from_logits, arguments, 4 * logits.nbytes))
            for task in _next_stage_tasks(trainer, next_stages, key, logits, properties):
                exports.submit(task)
        exports.wait()


def _make_predictor(trainer: Any) -> nnUNetPredictor:
    """A predictor around the trained network, with the settings of every final validation."""
    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=True,
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
    return predictor


def _with_previous_stage(data: np.ndarray, seg_prev: Any, trainer: Any) -> torch.Tensor:
    """Image channels (c, z, y, x), followed in a cascade by one per foreground label of the previous stage."""
    if seg_prev is not None:
        labels = trainer.label_manager.foreground_labels
        one_hot = convert_labelmap_to_one_hot(np.asarray(seg_prev[:]), labels, output_dtype=data.dtype)
        data = np.concatenate((data, one_hot))
    return torch.from_numpy(np.ascontiguousarray(data))


class _Exports:
    """Exports under way; waits where too many logits would pile up, and raises what went wrong."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._pending: deque[tuple[Future[Any], int]] = deque()

    def submit(self, task: Task) -> None:
        """Hand in a case once there is room for its logits."""
        while self._pending and self._waiting() + task.memory > _QUEUE_SHARE * available_memory():
            self._finish_oldest()
        self._pending.append((self._pool.submit(task), task.memory))
        while self._pending and self._pending[0][0].done():
            self._finish_oldest()

    def wait(self) -> None:
        """Wait for all of them."""
        while self._pending:
            self._finish_oldest()

    def _waiting(self) -> int:
        return sum(size for future, size in self._pending if not future.done())

    def _finish_oldest(self) -> None:
        self._pending.popleft()[0].result()


def _next_stages(trainer: Any) -> list[tuple[str, str, Any]]:
    """(name, preprocessed folder, dataset class) of the cascade stages fed by this one and ready to be."""
    stages = []
    for name in trainer.configuration_manager.next_stage_names or ():
        identifier = trainer.plans_manager.get_configuration(name).data_identifier
        folder = os.path.join(trainer.preprocessed_dataset_folder_base, identifier)
        if os.path.isdir(folder):
            stages.append((name, folder, infer_dataset_class(folder)))
        else:
            trainer.print_to_log_file(f"Nothing predicted for {name}: it is not preprocessed ({folder})")
    return stages


def _next_stage_tasks(
    trainer: Any, stages: list[tuple[str, str, Any]], key: str, logits: np.ndarray, properties: dict[str, Any]
) -> list[Task]:
    tasks = []
    for name, folder, dataset_class in stages:
        if key not in dataset_class.get_identifiers(folder):
            trainer.print_to_log_file(f"Nothing predicted for {name} of {key}: it is not preprocessed in {folder}")
            continue
        shape = dataset_class(folder, [key]).load_case(key)[0].shape[1:]
        output = os.path.join(trainer.output_folder_base, "predicted_next_stage", name, key)
        managers = (trainer.plans_manager, trainer.configuration_manager)
        arguments = (logits, shape, output, *managers, properties, trainer.dataset_json, None, dataset_class)
        tasks.append(Task(f"{key} for {name}", resample_and_save, arguments, 4 * logits.nbytes))
    return tasks


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
