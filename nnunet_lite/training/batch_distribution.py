"""How a batch is shared between the GPUs of a distributed training."""

from __future__ import annotations

from typing import NamedTuple

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.utilities.distributed import all_gather_objects, rank, world_size


def share_of_batch(batch_size: int, num_processes: int, number: int, oversample_percent: float) -> tuple[int, float]:
    """Batch size and foreground oversampling of process `number` (nnU-Net v2 2.8.1 behaviour, spec 02, 1.6).

    The last samples of the whole batch are the oversampled ones, so the last ranks oversample most.

    Raises:
        ArgumentError: fewer samples than ranks.
    """
    if batch_size < num_processes:
        raise ArgumentError(
            f"A batch of {batch_size} cannot be shared by {num_processes} GPUs; use at most -num_gpus {batch_size}, "
            "or train with --batch-size"
        )
    base, rest = divmod(batch_size, num_processes)
    sizes = [base + (i < rest) for i in range(num_processes)]
    low = sum(sizes[:number])
    high = low + sizes[number]
    if high / batch_size < 1 - oversample_percent:
        return sizes[number], 0.0
    if low / batch_size > 1 - oversample_percent:
        return sizes[number], 1.0
    first = round(batch_size * (1 - oversample_percent))
    return sizes[number], sum(position >= first for position in range(low, high)) / sizes[number]


class BatchShare(NamedTuple):
    """The samples `first` to `first + size` - 1 of a batch of `whole`: those of one process."""

    first: int
    size: int
    whole: int

    @property
    def weight(self) -> float:
        """What the mean over these samples counts in the mean over processes, so that it is that over samples."""
        return self.size * world_size() / self.whole


def gather_shares(size: int) -> BatchShare:
    """The share of this process, from how many samples each process says that it takes; called by all of them."""
    sizes = all_gather_objects(int(size))
    return BatchShare(sum(sizes[: rank()]), int(size), sum(sizes))
