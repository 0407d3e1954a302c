"""Finished predictions on their way to files or results, in background workers, a bounded number at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

import torch

from nnunet_lite.configuration import num_compute_threads
from nnunet_lite.exceptions import StorageError
from nnunet_lite.inference.data_iterators import ModelDocuments, hand_over
from nnunet_lite.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
    export_prediction_from_logits,
    load_and_delete,
)
from nnunet_lite.inference.reduced_prediction import ReducedPrediction
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.device import num_threads
from nnunet_lite.utilities.parallel import Outcome, Task, WorkerPool, summary_of


def export_case(
    logits: Any, properties: Mapping[str, Any], documents: ModelDocuments, output: str | None, probabilities: bool
) -> Any:
    """Write a case, or return labels or (labels, probabilities) if there is no output; task of a worker."""
    if isinstance(logits, ReducedPrediction):
        return logits.finish(properties, documents, output)
    plans_manager = PlansManager(documents.plans)
    if output is not None:
        export_prediction_from_logits(
            logits, properties, documents.configuration, plans_manager, documents.dataset_json, output, probabilities
        )
        return None
    label_manager = plans_manager.get_label_manager(documents.dataset_json)
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        load_and_delete(logits), plans_manager, documents.configuration, label_manager, properties, probabilities
    )


class ExportQueue:
    """Exports cases behind the network's back; use it as a context manager.

    Args:
        documents: of the model.
        probabilities: write or return them too.
        processes: background workers; at most two cases more than these wait, then `submit` does. With 0 it works
            here.
    """

    def __init__(self, documents: ModelDocuments, probabilities: bool, processes: int) -> None:
        self._documents = documents
        self._probabilities = probabilities
        self._processes = processes
        self._pool = WorkerPool(processes)
        self._folder = tempfile.TemporaryDirectory(prefix="nnunet_lite-")
        self._cases: list[tuple[str, Future[Any]]] = []

    def __enter__(self) -> ExportQueue:
        return self

    def __exit__(self, *error: Any) -> None:
        self._pool.__exit__(*error)
        self._folder.cleanup()

    def submit(
        self, name: str, logits: torch.Tensor | ReducedPrediction, properties: Mapping[str, Any], output: str | None
    ) -> None:
        """Export a case as soon as a worker is free.

        Raises:
            StorageError: an earlier case met a full disk; those after it would, too.
        """
        self._wait_for_room()
        data: Any = logits
        if isinstance(logits, ReducedPrediction):
            data = logits.handed_over(self._folder.name) if self._processes else logits
        else:
            array = logits.numpy()
            data = hand_over(array, self._folder.name) if self._processes else array
        task = Task(name, export_case, (data, dict(properties), self._documents, output, self._probabilities))
        with num_threads(num_compute_threads() if not self._processes else torch.get_num_threads()):
            self._cases.append((name, self._pool.submit(task)))

    def fail(self, name: str, error: Exception) -> None:
        """Note a case that failed before it came here."""
        future: Future[Any] = Future()
        future.set_exception(error)
        self._cases.append((name, future))

    def results(self) -> list[Any]:
        """What the cases returned, in the order they came.

        Raises:
            nnUNetError: some failed; lists each with its reason.
        """
        outcomes = []
        for name, future in self._cases:
            error = future.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            outcomes.append(Outcome(name, None if error else future.result(), error))
        failures = [outcome for outcome in outcomes if outcome.error is not None]
        if failures:
            raise summary_of(failures, len(outcomes))
        return [outcome.value for outcome in outcomes]

    def _wait_for_room(self) -> None:
        while True:
            running = [future for _, future in self._cases if not future.done()]
            for _, future in self._cases:
                if future.done() and isinstance(future.exception(), StorageError):
                    future.result()
            if len(running) < self._processes + 2:
                return
            wait(running, return_when=FIRST_COMPLETED)
