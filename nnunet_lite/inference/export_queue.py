"""Finished predictions on their way to files or results, in background workers, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

import torch

from nnunet_lite.configuration import num_compute_threads
from nnunet_lite.exceptions import StorageError
from nnunet_lite.inference.case_resources import Demand
from nnunet_lite.inference.data_iterators import ModelDocuments, hand_over, waits_in_memory
from nnunet_lite.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
    export_prediction_from_logits,
    load_mapped,
    remove_mapped,
)
from nnunet_lite.inference.failed_cases import explained
from nnunet_lite.inference.reduced_prediction import ReducedPrediction
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.device import num_threads
from nnunet_lite.utilities.exchange_folder import ExchangeFolder
from nnunet_lite.utilities.memory_budget import MemoryBudget
from nnunet_lite.utilities.parallel import Outcome, Task, WorkerPool
from nnunet_lite.utilities.waiting import error_of, wait_for_any

_WAITING = 2  # cases more than workers whose logits may wait


def export_case(
    logits: Any, properties: Mapping[str, Any], documents: ModelDocuments, output: str | None, probabilities: bool
) -> Any:
    """Write a case, or return labels or (labels, probabilities) if there is no output; task of a worker.

    A `.npy` file of logits stays: should this process be killed, another one has to do it again.
    """
    if isinstance(logits, ReducedPrediction):
        return logits.finish(properties, documents, output)
    logits = load_mapped(logits)
    plans_manager = PlansManager(documents.plans)
    if output is not None:
        export_prediction_from_logits(
            logits, properties, documents.configuration, plans_manager, documents.dataset_json, output, probabilities
        )
        return None
    label_manager = plans_manager.get_label_manager(documents.dataset_json)
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans_manager, documents.configuration, label_manager, properties, probabilities
    )


def _taken(budget: MemoryBudget, size: int, file: str | None) -> None:
    """A worker is done with what was handed over to it."""
    budget.keep(-size)
    if file is not None:
        remove_mapped(file)


class _Case(NamedTuple):
    """A case and what will become of it."""

    name: str
    future: Future[Any]


class ExportQueue:
    """Exports cases behind the network's back.

    Args:
        documents: of the model.
        probabilities: write or return them too.
        pool: does the work; of 0 processes, `submit` does it here.
        exchange: for large arrays on their way to the workers; None hands over all of them through the pipe.
        explain: what is made of errors, with what they keep in memory.
        export: what is done with a case, instead of and with the arguments of `export_case`; a module-level function.
    """

    def __init__(
        self,
        documents: ModelDocuments,
        probabilities: bool,
        pool: WorkerPool,
        exchange: ExchangeFolder | None = None,
        *,
        explain: Callable[[Exception], Exception] = explained,
        export: Callable[..., Any] | None = None,
    ) -> None:
        self._documents = documents
        self._probabilities = probabilities
        self._pool = pool
        self._exchange = exchange
        self._cases: list[_Case] = []
        self._running: list[_Case] = []
        self._explain = explain
        self._export = export or export_case
        self._errors: dict[int, Exception] = {}  # of cases by number, explained
        self._untold: list[int] = []  # numbers of cases that `news` has not named
        self._unexplained: list[int] = []  # of cases that had not ended when `failures` looked

    def wait_for_room(self) -> None:
        """Wait until few enough cases are under way for another one; do it before its logits are there.

        Raises:
            StorageError: an earlier case met a full disk; those after it would, too.
        """
        while True:
            for failure in self.failures():
                if isinstance(failure.error, StorageError):
                    raise failure.error
            self._running = [case for case in self._running if not case.future.done()]
            if len(self._running) < self._pool.size + _WAITING:
                return
            wait_for_any(case.future for case in self._running)

    def submit(
        self,
        name: str,
        logits: torch.Tensor | ReducedPrediction,
        properties: Mapping[str, Any],
        output: Any,
        demand: Demand | None = None,
    ) -> None:
        """Export a case as soon as a worker is free.

        Args:
            name: of the case.
            logits: (heads, x, y, z), or what was made of them.
            properties: of the case.
            output: path without file ending, or None to return the result; for an `export` of one's own what it needs.
            demand: memory it takes.

        Raises:
            StorageError: the logits cannot be handed over.
        """
        reduced = isinstance(logits, ReducedPrediction)
        array: Any = logits.labels if isinstance(logits, ReducedPrediction) else logits.numpy()
        demand = demand or Demand()
        of_model = (self._documents, output, self._probabilities)
        if not self._pool.size or (reduced and output is None):  # of the latter nothing is left to do
            self._export_here(name, (logits if reduced else array, dict(properties), *of_model))
            return
        data = array if self._exchange is None else hand_over(array, self._exchange.path)
        file = data if isinstance(data, str) else None
        if isinstance(logits, ReducedPrediction):
            data = logits._replace(labels=data)
        size = array.nbytes if waits_in_memory(array.nbytes, self._exchange) else 0
        self._pool.budget.keep(size)
        future = self._pool.submit(Task(name, self._export, (data, dict(properties), *of_model), demand.export))
        budget = self._pool.budget  # with self, results would stay in a cycle
        future.add_done_callback(lambda _: _taken(budget, size, file))
        self._add(name, future)

    def _export_here(self, name: str, arguments: tuple[Any, ...]) -> None:
        future: Future[Any] = Future()
        try:
            with num_threads(num_compute_threads()):
                future.set_result(self._export(*arguments))
        except Exception as error:
            self.fail(name, self._explain(error))  # which would keep the logits in memory
        else:
            self._add(name, future)

    def fail(self, name: str, error: Exception) -> None:
        """Note a case that failed, with an error that is explained."""
        future: Future[Any] = Future()
        future.set_exception(error)
        self._errors[len(self._cases)] = error
        self._add(name, future)

    def failures(self) -> list[Outcome]:
        """Cases that have failed so far, in the order they came."""
        running = []
        for number in self._unexplained:
            if self._cases[number].future.done():
                self._error_of(number)
            else:
                running.append(number)
        self._unexplained = running
        return [Outcome(self._cases[number].name, None, self._errors[number]) for number in sorted(self._errors)]

    def news(self) -> list[Outcome]:
        """Cases that have ended and were not named before, in the order they came; without their results."""
        ended: list[int] = []
        running: list[int] = []
        for number in self._untold:
            (ended if self._cases[number].future.done() else running).append(number)
        self._untold = running
        return [Outcome(self._cases[number].name, None, self._error_of(number)) for number in ended]

    def as_they_end(self) -> Iterator[Outcome]:
        """`news` until all cases have ended."""
        while True:
            untold = (self._cases[number].future for number in self._untold)
            running = [future for future in untold if not future.done()]
            yield from self.news()
            if not running:
                return
            wait_for_any(running)

    def _error_of(self, number: int) -> Exception | None:
        """What a case has failed with by now."""
        future = self._cases[number].future
        if number not in self._errors and future.done() and not future.cancelled():
            error = future.exception()
            if isinstance(error, Exception):
                self._errors[number] = self._explain(error)
        return self._errors.get(number)

    def number_done(self) -> int:
        """Cases that are exported."""
        return sum(case.future.done() and case.future.exception() is None for case in self._cases)

    def outcomes(self) -> list[Outcome]:
        """What became of the cases, in the order they came; waits for them."""
        outcomes = []
        for number, (name, future) in enumerate(self._cases):
            error = error_of(future)
            if error is not None and not isinstance(error, Exception):
                raise error
            failure = self._error_of(number)
            outcomes.append(Outcome(name, None, failure) if failure else Outcome(name, future.result(), None))
        return outcomes

    def _add(self, name: str, future: Future[Any]) -> None:
        case = _Case(name, future)
        self._untold.append(len(self._cases))
        self._unexplained.append(len(self._cases))
        self._cases.append(case)
        self._running.append(case)
