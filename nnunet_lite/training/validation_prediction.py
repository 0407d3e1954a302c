"""Prediction and export of validation cases: the machinery of every prediction, with its limits of memory.

Large logits are predicted in bands, those that wait for their export lie on a disk, and what works at the same time
stays below a share of the memory.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nnunet_lite.inference.case_resources import Demand, number_of_tiles
from nnunet_lite.inference.data_iterators import ModelDocuments
from nnunet_lite.inference.export_prediction import linear_plan_of_next_stage
from nnunet_lite.inference.export_queue import ExportQueue
from nnunet_lite.inference.further_labels import FurtherLabels
from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor
from nnunet_lite.inference.prediction_forecast import PredictionProgress
from nnunet_lite.inference.preprocessed_resources import demand_of_preprocessed
from nnunet_lite.inference.reduced_prediction import ReducedPrediction
from nnunet_lite.inference.test_time_augmentation import mirror_combinations
from nnunet_lite.plans.label_manager import convert_labelmap_to_one_hot
from nnunet_lite.training.validation_outputs import CaseExport, ValidationOutputs
from nnunet_lite.utilities.distributed import local_world_size, rank, world_size
from nnunet_lite.utilities.exchange_folder import ExchangeFolder, exchange_folder
from nnunet_lite.utilities.memory import available_memory
from nnunet_lite.utilities.memory_budget import MemoryBudget
from nnunet_lite.utilities.parallel import Outcome, WorkerPool

_MEMORY_SHARE = 0.8  # of what is free, for all processes of this machine together
_BYTES_PER_LOGIT = 2


class ValidationPrediction:
    """Predicts validation cases and has their outputs written in the background.

    Args:
        trainer: whose cases they are.
        predictor: around its network.
        outputs: where they go; told of each case that is complete.
        dataset: the cases.
        export: (logits, properties, documents, CaseExport, ...), writes a case; a module-level function.
    """

    def __init__(
        self,
        trainer: Any,
        predictor: nnUNetPredictor,
        outputs: ValidationOutputs,
        dataset: Any,
        export: Callable[..., None],
    ) -> None:
        self._trainer = trainer
        self._predictor = predictor
        self._outputs = outputs
        self._dataset = dataset
        self._export = export
        self._documents = ModelDocuments(
            trainer.plans_manager.plans, trainer.configuration_manager, trainer.dataset_json
        )
        self._network = predictor.network_size()
        self._budget = MemoryBudget(int(_MEMORY_SHARE * available_memory()) // local_world_size())

    def run(self, missing: Mapping[str, Sequence[str]], processes: int) -> None:
        """Predict cases; what goes wrong with one is raised, those before it are complete and noted.

        Args:
            missing: outputs wanted of each case.
            processes: for the exports; 0 makes them here.
        """
        shapes = [self._shape(key) for key in missing]
        with (
            self._progress(shapes) as progress,
            self._exchange(shapes, processes) as exchange,
            WorkerPool(processes, budget=self._budget) as pool,
        ):
            options: dict[str, Any] = {"explain": _as_it_is, "export": self._export}
            queue = ExportQueue(self._documents, False, pool, exchange, **options)
            others = ", others by the other processes" if world_size() > 1 else ""
            for number, (key, wanted) in enumerate(missing.items(), 1):
                queue.wait_for_room()
                place = f"{number} of {len(missing)}{others}{progress.forecast()}"
                self._trainer.print_to_log_file(f"predicting {key} ({place})")
                progress.case(key)
                self._one(key, wanted, queue, progress)
                progress.case_ended(key)
                for ended in queue.news():
                    self._note(ended, missing)
            for ended in queue.as_they_end():
                self._note(ended, missing)

    def _one(self, key: str, wanted: Sequence[str], queue: ExportQueue, progress: PredictionProgress) -> None:
        """One case through the network and on to its export."""
        data, _, seg_prev, properties = self._dataset.load_case(key)
        image = _with_previous_stage(np.asarray(data[:]), seg_prev, self._trainer)
        export = self._outputs.export_of(key, wanted)
        further = self._further(image.shape[1:], properties, export)
        demand = self._demand(image.shape, properties, sum(labels.labels.nbytes for labels in further))
        item = {"data": image, "data_properties": properties, "ofile": export.stem}
        with self._budget.hold(demand.network):
            predicted = self._predictor.predict_item(key, item, progress, export.probabilities, further)
            if isinstance(predicted, ReducedPrediction):
                for (file, _, dataset_class), made in zip(export.next_stages, further, strict=True):
                    dataset_class.save_seg(made.labels, file)
            queue.submit(key, predicted, properties, export, demand)

    def _further(self, shape: Sequence[int], properties: Mapping[str, Any], export: CaseExport) -> list[FurtherLabels]:
        """Labels for next stages, still empty, should the logits come in bands."""
        trainer, dtype = self._trainer, self._trainer.label_manager.output_dtype
        managers = (trainer.plans_manager, trainer.configuration_manager)
        return [
            FurtherLabels(np.empty(target, dtype), linear_plan_of_next_stage(*managers, properties, shape, target))
            for _, target, _ in export.next_stages
        ]

    def _demand(self, shape: Sequence[int], properties: Mapping[str, Any], further: int) -> Demand:
        demand = demand_of_preprocessed(shape, properties, self._documents, self._network)
        return demand._replace(network=demand.network + further, export=demand.export + further)

    def _note(self, ended: Outcome, missing: Mapping[str, Sequence[str]]) -> None:
        """Remember that a case is complete, or raise what went wrong."""
        if ended.error is not None:
            raise ended.error
        self._outputs.note(ended.name, missing[ended.name])

    def _shape(self, key: str) -> tuple[int, ...]:
        """Spatial shape of a preprocessed case."""
        return tuple(int(edge) for edge in self._dataset.shape_of(key)[1:])

    def _progress(self, shapes: Sequence[Sequence[int]]) -> PredictionProgress:
        predictor, patch = self._predictor, self._trainer.configuration_manager.patch_size
        tiles = [number_of_tiles(shape, patch, predictor.tile_step_size) for shape in shapes]
        axes = self._trainer.inference_allowed_mirroring_axes if predictor.use_mirroring else None
        return PredictionProgress(tiles, rank() == 0, copies=len(mirror_combinations(axes)), name_cases=False)

    def _exchange(
        self, shapes: Sequence[Sequence[int]], processes: int
    ) -> contextlib.AbstractContextManager[ExchangeFolder | None]:
        """Where large logits wait, with room for as many as can be under way; none where all is done here."""
        if not processes:
            return contextlib.nullcontext()
        sizes = sorted((_BYTES_PER_LOGIT * self._network.heads * math.prod(shape) for shape in shapes), reverse=True)
        return exchange_folder(sum(sizes[: 2 * processes + 2]), self._outputs.folder)


def _as_it_is(error: Exception) -> Exception:
    """With its traceback: it ends the validation."""
    return error


def _with_previous_stage(data: np.ndarray, seg_prev: Any, trainer: Any) -> torch.Tensor:
    """Image channels (c, z, y, x), followed in a cascade by one per foreground label of the previous stage."""
    if seg_prev is not None:
        labels = trainer.label_manager.foreground_labels
        one_hot = convert_labelmap_to_one_hot(np.asarray(seg_prev[:]), labels, output_dtype=data.dtype)
        data = np.concatenate((data, one_hot))
    return torch.from_numpy(np.ascontiguousarray(data))
