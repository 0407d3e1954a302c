"""Hands out batches in order, made by supervised processes, by threads, or in place."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.training.batch_makers import BatchMaker, BatchPlan, CannotRunElsewhere, Inline, Threads, cause
from nnunet_lite.training.data_augmentation.transforms import Transform
from nnunet_lite.training.data_loader import RawBatch, nnUNetDataLoader
from nnunet_lite.training.worker_processes import Processes
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.wording import describe


class BatchIterator:
    """Endless iterator over the batches of a loader, epoch after epoch, in order.

    What comes out does not depend on how it is made. Processes are started afresh (spawn), so loader and transforms
    must be picklable; where they are not, threads do the work and a warning says so.

    Args:
        loader: makes the batches.
        num_workers: background processes (or threads); 0 makes each batch when it is asked for.
        prefetch: batches made ahead, all workers together; default two per worker.
        pin_memory: return tensors in page-locked memory.
        start: epoch and index of the first batch.
        batches_per_epoch: index at which the next epoch begins.
        device: where this process augments whole batches, which then come out on this device; the workers only read.
            None, or transforms that are no pipeline of ours: the workers augment sample by sample.
        threads: use threads of this process instead of processes.
        stop: whether the user wants to stop; asked while waiting for a batch.
    """

    def __init__(
        self,
        loader: nnUNetDataLoader,
        num_workers: int = 0,
        prefetch: int | None = None,
        pin_memory: bool = False,
        start: tuple[int, int] = (0, 0),
        batches_per_epoch: int = 250,
        device: torch.device | None = None,
        threads: bool = False,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        if num_workers < 0 or batches_per_epoch < 1:
            raise ArgumentError(
                f"{num_workers} workers and {batches_per_epoch} batches per epoch: expected at least 0 and at least 1"
            )
        self.loader = loader
        self.num_workers = num_workers
        self.device = device if isinstance(loader.transforms, Transform) else None
        self._pin_memory = pin_memory
        self._stop = stop
        self._ahead = max(1, -(-(prefetch or 2 * num_workers) // max(1, num_workers)))
        self._next = start[0] * batches_per_epoch + start[1]
        self._plan = BatchPlan(loader, batches_per_epoch, only_read=self.device is not None)
        self._maker = self._start(threads)

    def _start(self, threads: bool) -> BatchMaker:
        if self.num_workers == 0:
            return Inline(self._plan)
        amount = self.num_workers, self._ahead, self._next
        if not threads:
            try:
                payload = pickle.dumps(self._plan)
            except Exception as error:  # pickling runs code of the objects
                _warn_threads(describe(error))
            else:
                return Processes(self._plan, payload, *amount, self._stop, self._pin_memory)
        return Threads(self._plan, *amount, self._stop)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        """The next batch (see nnUNetDataLoader.generate_batch).

        Raises:
            WorkerError: it could not be made (names cases, cause and what to try), or a stop was requested meanwhile.
        """
        try:
            batch = self._maker.get(self._next)
        except CannotRunElsewhere as error:
            self._maker.close()
            _warn_threads(str(error))
            self._maker = self._start(threads=True)
            batch = self._maker.get(self._next)
        if isinstance(batch, RawBatch):
            batch = self._augment(_pinned_sources(batch) if self._pin_memory else batch)
        self._next += 1
        return _pinned(batch) if self._pin_memory else batch

    def _augment(self, batch: RawBatch) -> dict[str, Any]:
        try:
            return self.loader.augment(batch, self.device)
        except Exception as error:
            where = f"augmentation on {self.device} (nnUNet_DA_device=cpu augments in the workers)"
            raise self._plan.failure(self._next, where, cause(error)) from error

    def describe_wait(self) -> str:
        """The batch that comes next and where it is, for a message while it is waited for."""
        return f"{self._plan.describe(self._next)}: {self._maker.doing(self._next)}"

    @property
    def stops_waiting(self) -> bool:
        """Whether a request to stop ends the wait for a batch; what is made in place has to be finished."""
        return not isinstance(self._maker, Inline)

    def check_workers(self) -> None:
        """Raise WorkerError if a worker has ended."""
        self._maker.check()

    def close(self) -> None:
        """End everything in the background at once; may be called more than once."""
        self._maker.close()

    def __enter__(self) -> BatchIterator:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _warn_threads(reason: str) -> None:
    logger.warning(
        "Data augmentation runs in threads, because loader or transforms cannot be sent to other processes (%s); "
        "define transforms as module-level classes to use processes",
        " ".join(reason.split()),
    )


def _pinned_sources(batch: RawBatch) -> RawBatch:
    sources = [
        source._replace(image=_pinned(source.image), segmentation=_pinned(source.segmentation))
        for source in batch.sources
    ]
    return batch._replace(sources=sources)


def _pinned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.pin_memory() if value.device.type == "cpu" else value  # which does nothing if it is pinned
    if isinstance(value, dict):
        return {key: _pinned(one) for key, one in value.items()}
    return [_pinned(one) for one in value] if isinstance(value, list) else value
