"""Joining the processes of a distributed training, and leaving them.

Ranks started by torchrun (or by any launcher that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT) find
one another by these variables; those of -num_gpus get the parent's store. Tensors of a GPU travel with NCCL, all else
with gloo in main memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from nnunet_lite.configuration import cpu_count, num_compute_threads, num_processes_data_augmentation
from nnunet_lite.exceptions import ArgumentError, WorkerError, nnUNetError
from nnunet_lite.training.interruption import EXIT_CODE, TrainingInterrupted
from nnunet_lite.utilities.distributed import barrier
from nnunet_lite.utilities.logging import logger

_PATIENCE = timedelta(days=1)  # a rank may evaluate for hours while others wait; one that ends is noticed otherwise
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_FAILURE = "nnunet_lite_failure"  # key in the store, set by the first rank that fails
_LEFT = "nnunet_lite_left"  # set by rank 0 once it has saved what is to be saved
_SAVING = 25.0  # seconds that the others wait for that; nothing but torchrun's patience depends on it
_LOOK = 0.5  # seconds between looks at it
_GRACE = 5.0  # seconds that a rank is given to end by itself after another has failed


class Member(NamedTuple):
    """One process among several."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int


def member_from_environment() -> Member | None:
    """What a launcher said of this process; None in a process of its own.

    Raises:
        ArgumentError: the variables contradict one another.
    """
    if not all(os.environ.get(name, "").isdecimal() for name in _VARIABLES):
        return None
    number, size, local = (int(os.environ[name]) for name in _VARIABLES)
    if size == 1:
        return None
    given = os.environ.get("LOCAL_WORLD_SIZE", "")
    member = Member(number, size, local, int(given) if given.isdecimal() else size)
    if number >= size or local >= member.local_world_size:
        raise ArgumentError(
            f"RANK={number}, WORLD_SIZE={size}, LOCAL_RANK={local}, LOCAL_WORLD_SIZE={member.local_world_size}: "
            "ranks must be below sizes; unset these variables, or start with torchrun, which sets them"
        )
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise ArgumentError(
            f"RANK={number} and WORLD_SIZE={size} are set but {' and '.join(missing)} not; "
            "start with torchrun, which sets all of them, or unset them to train with one process"
        )
    return member


def check_devices(device: torch.device, number: int) -> None:
    """Raise ArgumentError where one machine has no device for each of `number` processes."""
    if device.type == "mps" and number > 1:
        raise ArgumentError(f"-device mps has one GPU, {number} processes were asked for; use -num_gpus 1")
    visible = torch.cuda.device_count() if device.type == "cuda" else number
    if visible < number:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise ArgumentError(
            f"{number} GPUs were asked for, {visible} can be seen here"
            f"{'' if seen is None else f' (CUDA_VISIBLE_DEVICES={seen})'}; use at most -num_gpus {visible}"
        )


def share_of_processors(number: int) -> dict[str, str]:
    """Environment of each of `number` processes on this machine: threads and augmentation workers shared out."""
    workers = min(num_processes_data_augmentation(), max(1, cpu_count() // number))
    threads = max(1, num_compute_threads() // number)
    return {"OMP_NUM_THREADS": str(threads), "nnUNet_n_proc_DA": str(workers)}


def meet(host: str, port: int, keep: bool = False) -> Any:
    """The store by which processes find one another: kept here, or that of another process."""
    store: Any = getattr(dist, "TCPStore")  # noqa: B009, not exported by the types of torch
    return store(host, port, is_master=keep, wait_for_workers=False)


@contextlib.contextmanager
def joined(member: Member, device: torch.device, store: Any = None) -> Iterator[None]:
    """Belong to the process group within the block; only rank 0 shows messages other than errors.

    Args:
        store: by which the processes find one another; None for that of the environment.

    Raises:
        SystemExit: instead of what the block raised, in a process of torchrun where another has told of it before.
    """
    if device.type == "cuda":
        torch.cuda.set_device(member.local_rank)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    place = {} if store is None else {"store": store, "rank": member.rank, "world_size": member.world_size}
    dist.init_process_group(backend, timeout=_PATIENCE, **place)
    level = logger.level
    if member.rank > 0:
        logger.setLevel(logging.ERROR)
    watch = _Watch() if store is None else None  # else a parent of ours watches
    try:
        yield
        barrier()  # rank 0 may still be evaluating
    except TrainingInterrupted:
        if watch is not None and not watch.is_first_to_leave(member.rank):
            raise SystemExit(EXIT_CODE) from None
        raise
    except Exception as error:
        if watch is not None and not watch.tell() and (isinstance(error, nnUNetError) or is_consequence(error)):
            raise SystemExit(2) from error
        if watch is not None and is_consequence(error):
            raise WorkerError(
                f"Rank {member.rank} lost the connection to another process of the training, which has ended; "
                "what torchrun says of it comes next. With --c the training goes on from the last checkpoint"
            ) from error
        raise
    finally:
        logger.setLevel(level)
        if watch is not None:
            watch.end()
    dist.destroy_process_group()


def is_consequence(error: Exception) -> bool:
    """Whether an error only says that another process is gone."""
    words = ("gloo", "nccl", "connection closed by peer", "tcpstore")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


class _Watch:
    """Ends this process soon after another has failed, for it would wait for ever for what that one owes."""

    def __init__(self) -> None:
        self._store = meet(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def tell(self) -> bool:
        """Tell the others that this process has failed; whether it is the first."""
        self._ended.set()
        return int(self._store.add(_FAILURE, 1)) == 1

    def is_first_to_leave(self, number: int) -> bool:
        """Whether this is rank 0, for whom the others wait a while: torchrun ends all when the first one has ended."""
        self._ended.set()
        if number == 0:
            self._store.add(_LEFT, 1)
            return True
        deadline = time.monotonic() + _SAVING
        while not self._store.check([_LEFT]) and time.monotonic() < deadline:
            time.sleep(_LOOK / 10)
        return False

    def end(self) -> None:
        """Stop watching; a thread that is left in torch when the interpreter ends would abort the process."""
        self._ended.set()
        self._thread.join(2 * _LOOK)

    def _look(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store is gone: so is its keeper, and the launcher sees to it
            while not self._ended.wait(_LOOK):
                if self._store.check([_FAILURE]) and not self._ended.wait(_GRACE):
                    os._exit(2)
