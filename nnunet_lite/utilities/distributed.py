"""Rank, world size, and what processes tell each other; in a run of one process all of it is at hand at once.

What is exchanged here lies in main memory and travels beside the GPUs, so that nobody waits for them.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist


def is_distributed() -> bool:
    """Whether this process belongs to an initialised process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process in the group, 0 without one."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes in the group, 1 without one."""
    return dist.get_world_size() if is_distributed() else 1


def local_rank() -> int:
    """Number of this process on its machine, which is its GPU; 0 without a group."""
    return _from_environment("LOCAL_RANK", rank())


def local_world_size() -> int:
    """Number of processes of the group on this machine, 1 without a group."""
    return _from_environment("LOCAL_WORLD_SIZE", world_size())


def _from_environment(variable: str, default: int) -> int:
    text = os.environ.get(variable, "") if is_distributed() else ""
    return int(text) if text.isdecimal() else default


def barrier() -> None:
    """Wait for all processes of the group."""
    highest(0)


def highest(value: int) -> int:
    """The highest of the values that the processes give; every process gets it."""
    if not is_distributed():
        return value
    number = torch.tensor(value, dtype=torch.int64)
    dist.all_reduce(number, dist.ReduceOp.MAX)
    return int(number)


def all_gather_objects(obj: Any) -> list[Any]:
    """The objects of all processes, in rank order."""
    if not is_distributed():
        return [obj]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, obj)
    return gathered
