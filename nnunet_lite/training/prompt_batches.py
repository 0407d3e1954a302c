"""Batches without waiting for the workers: the first one is made here, while they start."""

from __future__ import annotations

from typing import Any

from nnunet_lite.training.batch_iterator import BatchIterator
from nnunet_lite.training.data_loader import nnUNetDataLoader
from nnunet_lite.utilities.device import num_threads


class PromptBatchIterator(BatchIterator):
    """Hands out the same batches as BatchIterator.

    A worker imports torch first, which takes seconds where several share a few cores. The first batch takes a fraction
    of that in this process, and the workers, which begin with the second, are ready when the first step is done.

    Args:
        loader, num_workers, others: as of BatchIterator.
        start: epoch and index of the first batch.
    """

    def __init__(
        self, loader: nnUNetDataLoader, num_workers: int = 0, *, start: tuple[int, int] = (0, 0), **others: Any
    ) -> None:
        self._first: BatchIterator | None = None
        if num_workers > 0:
            self._first = BatchIterator(loader, 0, start=start, **others)
            start = (start[0], start[1] + 1)
        super().__init__(loader, num_workers, start=start, **others)

    def describe_wait(self) -> str:
        """See BatchIterator."""
        return super().describe_wait() if self._first is None else self._first.describe_wait()

    @property
    def stops_waiting(self) -> bool:
        """See BatchIterator."""
        return self._first is None and super().stops_waiting

    def __next__(self) -> dict[str, Any]:
        """The next batch; raises as BatchIterator does."""
        if self._first is None:
            return super().__next__()
        with num_threads(1):  # as in a worker, to the last bit
            batch = next(self._first)
        self._first = None
        return batch
