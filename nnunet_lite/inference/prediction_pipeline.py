"""Cases on their way through preprocessing, network and export, which overlap; a failed case does not stop the rest.

Memory is shared: preprocessing workers, the network here, arrays that wait and export workers together stay below one
limit, by estimates from the headers. What needs more by itself runs alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from nnunet_lite.exceptions import StorageError
from nnunet_lite.inference.case_resources import (
    CaseSize,
    Demand,
    Network,
    affordable_processes,
    demand_of_case,
    number_of_tiles,
    size_of_case,
    worthwhile_processes,
)
from nnunet_lite.inference.data_iterators import CaseToPredict, ModelDocuments, preprocessed_cases
from nnunet_lite.inference.export_queue import ExportQueue
from nnunet_lite.inference.failed_cases import explained, failure_of, note_of, stopped_early, warn_of
from nnunet_lite.inference.prediction_forecast import PredictionProgress
from nnunet_lite.inference.preprocessed_resources import demand_of_item
from nnunet_lite.inference.reduced_prediction import ReducedPrediction
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.exchange_folder import ExchangeFolder, exchange_folder
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.memory import format_size, rss
from nnunet_lite.utilities.memory_budget import MemoryBudget
from nnunet_lite.utilities.parallel import Outcome, WorkerPool

Item = Mapping[str, Any]  # a preprocessed case: `data`, `data_properties`, `ofile`
Predict = Callable[[str, Item, PredictionProgress], Tensor | ReducedPrediction]  # -> logits (heads, x, y, z) on the CPU


@dataclass(frozen=True)
class PipelineSettings:
    """How a stream of cases is worked on.

    Args:
        save_probabilities: write or return them too.
        num_preprocessing, num_export: background processes, 0 works in this one.
        max_ram: bytes that all of it may take, this process included; None: 80 % of what is free.
        tile_step_size: for the forecast.
        copies: mirrored copies predicted of each tile.
        show_progress: a bar where there is a terminal.
        verbose: name each case as it comes to the network, and where errors arise.
        verbose_preprocessing: the preprocessor logs as well.
    """

    save_probabilities: bool
    num_preprocessing: int
    num_export: int
    max_ram: int | None = None
    tile_step_size: float = 0.5
    copies: int = 1
    show_progress: bool = True
    verbose: bool = False
    verbose_preprocessing: bool = False


def resources_of(
    cases: Sequence[CaseToPredict], documents: ModelDocuments, network: Network
) -> tuple[list[CaseSize | None], list[Demand]]:
    """Size of each case as far as it is known, and the bytes it takes in each step."""
    plans_manager = PlansManager(documents.plans)
    sizes = [size_of_case(case, documents, plans_manager) for case in cases]
    pairs = zip(cases, sizes, strict=True)
    return sizes, [demand_of_case(case, size, documents, plans_manager, network) for case, size in pairs]


class PredictionPipeline:
    """Preprocessing in the background, the network here, export in the background.

    Args:
        documents: of the model.
        network: of the model.
        predict: name, preprocessed case and what counts its tiles -> logits.
        settings: see there.
    """

    def __init__(
        self, documents: ModelDocuments, network: Network, predict: Predict, settings: PipelineSettings
    ) -> None:
        self._documents = documents
        self._network = network
        self._predict = predict
        self._settings = settings
        limit = settings.max_ram
        self._budget = MemoryBudget(limit)
        if limit is not None:
            self._budget.keep(rss())  # what this process has taken; the default counts only what is free

    def run(self, cases: Sequence[CaseToPredict], skipped: int = 0) -> list[Any]:
        """What each case returned, in input order; None for what is written to files.

        Args:
            cases: to predict.
            skipped: number of those that were predicted before, for messages.

        Raises:
            nnUNetError: some cases failed, after all others were predicted; names each with its reason.
            StorageError: the disk is full; it stopped there.
        """
        sizes, demands = resources_of(cases, self._documents, self._network)
        npp, nps = self._settings.num_preprocessing, self._settings.num_export
        if all(size is not None or not demand.preprocessing for size, demand in zip(sizes, demands, strict=True)):
            npp, nps = worthwhile_processes(npp, nps, sizes, self._network.heads)  # else nobody knows how much it is
        npp, nps = self._affordable(min(npp, len(cases)), min(nps, len(cases)))
        needs = [max(demand.preprocessing, demand.network, demand.export if nps else 0) for demand in demands]
        self._budget.warn_of_large(zip((case.name for case in cases), needs, strict=True))
        with (
            self._progress(sizes, skipped) as progress,
            self._exchange(cases, demands, npp, nps) as exchange,
            WorkerPool(npp, budget=self._budget) as preprocessing,
            WorkerPool(nps, budget=self._budget) as export,
        ):
            stream = preprocessed_cases(
                cases, demands, self._documents, preprocessing, exchange, self._settings.verbose_preprocessing
            )
            queue = self._queue(export, exchange)
            return self._predict_and_export(stream, demands, queue, progress)

    def run_stream(self, stream: Iterable[tuple[str, Item | Exception]]) -> list[Any]:
        """As `run`, for cases that are preprocessed already, or the error that preprocessing ended with.

        What they take shows when they come, so the limit holds for them from then on.
        """
        _, nps = self._affordable(0, self._settings.num_export)
        with (
            PredictionProgress(None, self._settings.show_progress) as progress,
            exchange_folder() if nps else contextlib.nullcontext() as exchange,
            WorkerPool(nps, budget=self._budget) as export,
        ):
            queue = self._queue(export, exchange)
            return self._predict_and_export(stream, None, queue, progress)

    def _affordable(self, npp: int, nps: int) -> tuple[int, int]:
        """Fewer background processes where there is hardly memory for them, which is said."""
        fewer = affordable_processes(npp, nps, self._budget.limit - self._budget.taken)
        if fewer != (npp, nps):
            logger.info(
                "-npp %d -nps %d instead of -npp %d -nps %d: each process takes memory, of which %s may be taken",
                *(*fewer, npp, nps),
                format_size(self._budget.limit),
            )
        return fewer

    def _queue(self, pool: WorkerPool, exchange: ExchangeFolder | None) -> ExportQueue:
        settings = self._settings
        return ExportQueue(
            self._documents,
            settings.save_probabilities,
            pool,
            exchange,
            explain=partial(explained, verbose=settings.verbose),
        )

    def _predict_and_export(
        self,
        stream: Iterable[tuple[str, Item | Exception]],
        demands: Sequence[Demand] | None,
        queue: ExportQueue,
        progress: PredictionProgress,
    ) -> list[Any]:
        output = None
        wanted = None if demands is None else iter(demands)
        single = demands is not None and len(demands) == 1  # its error comes at once
        try:
            for name, item in stream:  # no zip or enumerate: they would keep the item
                demand = demand_of_item(item, self._documents, self._network) if wanted is None else next(wanted)
                self._one(name, item, demand, queue, progress)
                if not single:
                    warn_of([ended for ended in queue.news() if ended.error is not None])
                if not isinstance(item, Exception) and item.get("ofile"):
                    output = str(item["ofile"])
                del item  # an image less in memory while the next one is waited for
            outcomes = queue.outcomes()
        except StorageError as error:
            raise stopped_early(error, queue.number_done(), len(demands) if demands else None) from error
        except (KeyboardInterrupt, SystemExit) as stop:
            failures = queue.failures()
            if failures:
                vars(stop).setdefault("__notes__", []).append(note_of(failures))  # add_note of Python 3.11
            raise
        return self._results(outcomes, output, progress)

    def _one(
        self, name: str, item: Item | Exception, demand: Demand, queue: ExportQueue, progress: PredictionProgress
    ) -> None:
        """One case through the network and on to its export; a failure is noted."""
        if self._settings.verbose:
            logger.info("Predicting %s", name)
        queue.wait_for_room()
        try:
            if isinstance(item, Exception):
                raise item
            progress.case(name)
            with self._budget.hold(demand.network):
                logits = self._predict(name, item, progress)
                queue.submit(name, logits, item["data_properties"], item.get("ofile"), demand)
        except StorageError:
            raise
        except Exception as error:
            queue.fail(name, explained(error, self._settings.verbose))
            progress.case_ended(name, failed=True)
        else:
            progress.case_ended(name)

    def _results(self, outcomes: Sequence[Outcome], output: str | None, progress: PredictionProgress) -> list[Any]:
        failures = [outcome for outcome in outcomes if outcome.error is not None]
        place = None if output is None else str(Path(output).parent)
        if output is not None and len(outcomes) == 1 and not failures:
            place = f"{output}{self._documents.dataset_json['file_ending']}"
        progress.finished(len(outcomes) - len(failures), place)
        if failures:
            raise failure_of(failures, len(outcomes), output is not None)
        return [outcome.value for outcome in outcomes]

    def _progress(self, sizes: Sequence[CaseSize | None], skipped: int) -> PredictionProgress:
        patch, step = self._documents.configuration.patch_size, self._settings.tile_step_size
        tiles = [
            None if size is None else number_of_tiles(size.after, patch, step) * self._network.members for size in sizes
        ]
        return PredictionProgress(tiles, self._settings.show_progress, skipped, self._settings.copies)

    def _exchange(
        self, cases: Sequence[CaseToPredict], demands: Sequence[Demand], npp: int, nps: int
    ) -> contextlib.AbstractContextManager[ExchangeFolder | None]:
        """Where large arrays wait, with room for as many as can be under way; none where all is done here."""
        if not npp and not nps:
            return contextlib.nullcontext()
        images = sum(sorted((demand.image for demand in demands), reverse=True)[: npp + 2]) if npp else 0
        logits = sum(sorted((demand.logits for demand in demands), reverse=True)[: 2 * nps + 2]) if nps else 0
        output = next((case.output for case in cases if case.output is not None), None)
        return exchange_folder(images + logits, None if output is None else Path(output).parent)
