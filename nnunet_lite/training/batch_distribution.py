"""How a batch is shared between the GPUs of a distributed training."""

from __future__ import annotations

from nnunet_lite.exceptions import ArgumentError


def share_of_batch(batch_size: int, world_size: int, rank: int, oversample_percent: float) -> tuple[int, float]:
    """Batch size and foreground oversampling of one rank (nnU-Net v2 2.8.1 behaviour, spec 02, 1.6).

    The last samples of the whole batch are the oversampled ones, so the last ranks oversample most.

    Raises:
        ArgumentError: fewer samples than ranks.
    """
    if batch_size < world_size:
        raise ArgumentError(
            f"A batch of {batch_size} cannot be shared by {world_size} GPUs; use at most -num_gpus {batch_size}, "
            "or raise batch_size in the plans"
        )
    base, rest = divmod(batch_size, world_size)
    sizes = [base + (i < rest) for i in range(world_size)]
    low = sum(sizes[:rank])
    high = low + sizes[rank]
    if high / batch_size < 1 - oversample_percent:
        return sizes[rank], 0.0
    if low / batch_size > 1 - oversample_percent:
        return sizes[rank], 1.0
    first = round(batch_size * (1 - oversample_percent))
    return sizes[rank], sum(position >= first for position in range(low, high)) / sizes[rank]
