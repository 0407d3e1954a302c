"""Cases on their way through preprocessing, network and export, which overlap; a failed case does not stop the rest."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nnunet_lite.exceptions import StorageError
from nnunet_lite.inference.data_iterators import (
    CaseToPredict,
    ModelDocuments,
    preprocessed_cases,
    worthwhile_processes,
)
from nnunet_lite.inference.export_queue import ExportQueue
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.parallel import WorkerPool

Item = Mapping[str, Any]  # a preprocessed case: `data`, `data_properties`, `ofile`


@dataclass(frozen=True)
class PredictionPipeline:
    """Preprocessing in the background, the network here, export in the background.

    Args:
        documents: of the model.
        predict: name and preprocessed case -> logits (heads, x, y, z) on the CPU.
        save_probabilities: write or return them too.
        num_preprocessing, num_export: background processes, 0 works here.
        max_ram: bytes that background work may take; None chooses.
        verbose: name each case as it comes to the network.
        verbose_preprocessing: the preprocessor logs as well.
    """

    documents: ModelDocuments
    predict: Callable[[str, Item], Tensor]
    save_probabilities: bool
    num_preprocessing: int
    num_export: int
    max_ram: int | None = None
    verbose: bool = False
    verbose_preprocessing: bool = False

    def run(self, cases: Sequence[CaseToPredict]) -> list[Any]:
        """What each case returned, in input order; None for what is written to files.

        Raises:
            nnUNetError: some cases failed, after all others were predicted; names each with its reason.
        """
        npp, nps = self._worthwhile(cases)
        with (
            tempfile.TemporaryDirectory(prefix="nnunet_lite-") as folder,
            WorkerPool(npp, max_ram=self.max_ram) as pool,
        ):
            stream = preprocessed_cases(cases, self.documents, pool, npp, folder, self.verbose_preprocessing)
            return self._predict_and_export(stream, nps)

    def run_stream(self, stream: Iterable[tuple[str, Item | Exception]]) -> list[Any]:
        """As `run`, for cases that are preprocessed already, or the error that preprocessing ended with."""
        return self._predict_and_export(stream, self.num_export)

    def _worthwhile(self, cases: Sequence[CaseToPredict]) -> tuple[int, int]:
        manager = PlansManager(self.documents.plans).get_label_manager(self.documents.dataset_json)
        npp, nps = worthwhile_processes(
            self.num_preprocessing, self.num_export, cases, self.documents, manager.num_segmentation_heads
        )
        return min(npp, len(cases)), min(nps, len(cases))

    def _predict_and_export(self, stream: Iterable[tuple[str, Item | Exception]], processes: int) -> list[Any]:
        with ExportQueue(self.documents, self.save_probabilities, processes) as queue:
            for name, item in stream:
                if self.verbose:
                    logger.info("Predicting %s", name)
                try:
                    if isinstance(item, Exception):
                        raise item
                    logits = self.predict(name, item)
                except StorageError:
                    raise
                except Exception as error:
                    queue.fail(name, error)
                else:
                    queue.submit(name, logits, item["data_properties"], item.get("ofile"))
            return queue.results()
