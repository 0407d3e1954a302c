"""The final validation: every validation case predicted as a whole, exported like any prediction, and evaluated."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from nnunet_lite.configuration import usable_processes
from nnunet_lite.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunet_lite.exceptions import NumericalError
from nnunet_lite.inference.data_iterators import ModelDocuments, hand_over
from nnunet_lite.inference.export_prediction import remove_mapped
from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor
from nnunet_lite.plans.label_manager import convert_labelmap_to_one_hot
from nnunet_lite.training.distributed_training import without_ddp
from nnunet_lite.training.previous_stage import require_previous_stage
from nnunet_lite.training.validation_outputs import CaseExport, ValidationOutputs, export_outputs
from nnunet_lite.utilities.distributed import barrier, local_world_size, rank, world_size
from nnunet_lite.utilities.memory import available_memory
from nnunet_lite.utilities.parallel import Task, WorkerPool

_QUEUE_SHARE = 0.25  # of the free memory that logits waiting for their export may take
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
    previous = trainer.folder_with_segs_from_previous_stage
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, list(missing), previous)
    documents = ModelDocuments(trainer.plans_manager.plans, trainer.configuration_manager, trainer.dataset_json)
    processes = _processes(trainer, dataset, list(missing))
    with (
        tempfile.TemporaryDirectory(prefix="nnunet_lite-") as exchange,
        WorkerPool(processes) as pool,
    ):
        exports = _Exports(pool, outputs, documents, exchange if processes else None)
        others = ", others by the other processes" if world_size() > 1 else ""
        for number, (key, wanted) in enumerate(missing.items(), 1):
            trainer.print_to_log_file(f"predicting {key} ({number} of {len(missing)}{others})")
            data, _, seg_prev, properties = dataset.load_case(key)
            image = _with_previous_stage(np.asarray(data[:]), seg_prev, trainer)
            try:
                logits = predictor.predict_sliding_window_return_logits(image).cpu().numpy()
            except NumericalError as error:
                raise NumericalError(f"{key}: {error}") from error
            exports.submit(key, logits, properties, wanted)
        exports.wait()


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


def _with_previous_stage(data: np.ndarray, seg_prev: Any, trainer: Any) -> torch.Tensor:
    """Image channels (c, z, y, x), followed in a cascade by one per foreground label of the previous stage."""
    if seg_prev is not None:
        labels = trainer.label_manager.foreground_labels
        one_hot = convert_labelmap_to_one_hot(np.asarray(seg_prev[:]), labels, output_dtype=data.dtype)
        data = np.concatenate((data, one_hot))
    return torch.from_numpy(np.ascontiguousarray(data))


def _processes(trainer: Any, dataset: Any, keys: Sequence[str]) -> int:
    """Background processes for the exports; none where these take less time than starting one."""
    per_voxel = 5e-8 + 5e-9 * trainer.label_manager.num_segmentation_heads
    seconds = 0.0
    for key in keys:
        seconds += per_voxel * float(np.prod(dataset.load_case(key)[3]["shape_before_cropping"]))
        if seconds > _WORKER_START:
            return min(-(-usable_processes(None) // local_world_size()), len(keys))
    return 0


class _Exports:
    """Exports under way; waits where too many logits would pile up, and raises what went wrong."""

    def __init__(
        self, pool: WorkerPool, outputs: ValidationOutputs, documents: ModelDocuments, exchange_folder: str | None
    ) -> None:
        self._pool = pool
        self._outputs = outputs
        self._documents = documents
        self._exchange_folder = exchange_folder
        self._pending: deque[tuple[str, Sequence[str], Future[Any], int]] = deque()

    def submit(self, key: str, logits: np.ndarray, properties: Mapping[str, Any], wanted: Sequence[str]) -> None:
        """Hand in a case once there is room for its logits (heads, z, y, x)."""
        memory = 4 * logits.nbytes
        while self._pending and self._waiting() + memory > _QUEUE_SHARE * available_memory():
            self._finish_oldest()
        given = logits if self._exchange_folder is None else hand_over(logits, self._exchange_folder)
        export: CaseExport = self._outputs.export_of(key, wanted)
        task = Task(key, export_outputs, (given, dict(properties), self._documents, export), memory)
        future = self._pool.submit(task)
        if isinstance(given, str):
            future.add_done_callback(lambda _: remove_mapped(given))
        self._pending.append((key, wanted, future, memory))
        while self._pending and self._pending[0][2].done():
            self._finish_oldest()

    def wait(self) -> None:
        """Wait for all of them."""
        while self._pending:
            self._finish_oldest()

    def _waiting(self) -> int:
        return sum(size for _, _, future, size in self._pending if not future.done())

    def _finish_oldest(self) -> None:
        key, wanted, future, _ = self._pending.popleft()
        future.result()
        self._outputs.note(key, wanted)


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
