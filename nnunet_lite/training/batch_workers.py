"""Hands out batches in order, made by spawned and supervised processes, by threads, or in place."""

from __future__ import annotations

import copy
import mmap
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from math import prod
from multiprocessing import reduction
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_lite.exceptions import ArgumentError, WorkerError, nnUNetError
from nnunet_lite.training.data_augmentation.transforms import SampleShape, Transform
from nnunet_lite.training.data_loader import RawBatch, nnUNetDataLoader
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.memory import available_memory, format_size, rss
from nnunet_lite.utilities.parallel import describe
from nnunet_lite.utilities.processes import describe_exit, end_with_parent, environment, leave_ctrl_c_to_parent

_ALIGNMENT = 64  # bytes between arrays in shared memory
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"), "1")


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
        device: a GPU on which to augment; the workers then only read. None or a CPU augments in the workers.
        threads: use threads of this process instead of processes.
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
    ) -> None:
        if num_workers < 0 or batches_per_epoch < 1:
            raise ArgumentError(
                f"{num_workers} workers and {batches_per_epoch} batches per epoch: expected at least 0 and at least 1"
            )
        on_device = device is not None and device.type != "cpu" and isinstance(loader.transforms, Transform)
        self.loader = loader
        self._device = device if on_device else None
        self._pin_memory = pin_memory
        self._ahead = max(1, -(-(prefetch or 2 * num_workers) // max(1, num_workers)))
        self._number_of_workers = num_workers
        self._next = start[0] * batches_per_epoch + start[1]
        self._plan = _Plan(loader, batches_per_epoch, on_device)
        self._engine = self._start(threads)

    def _start(self, threads: bool) -> _Inline | _Threads | _Processes:
        if self._number_of_workers == 0:
            return _Inline(self._plan)
        if not threads:
            try:
                payload = pickle.dumps(self._plan)
            except Exception as error:  # pickling runs code of the objects
                _warn_threads(describe(error))
            else:
                return _Processes(self._plan, payload, self._number_of_workers, self._ahead, self._next)
        return _Threads(self._plan, self._number_of_workers, self._ahead, self._next)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        """The next batch (see nnUNetDataLoader.generate_batch).

        Raises:
            WorkerError: it could not be made; names cases, cause and what to try.
        """
        try:
            batch = self._engine.get(self._next)
        except _CannotRunElsewhere as error:
            self._engine.close()
            _warn_threads(str(error))
            self._engine = self._start(threads=True)
            batch = self._engine.get(self._next)
        self._next += 1
        if isinstance(batch, RawBatch):
            batch = self.loader.augment(batch, self._device)
        return _pinned(batch) if self._pin_memory else batch

    def close(self) -> None:
        """End everything in the background at once; may be called more than once."""
        self._engine.close()

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


def _pinned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.pin_memory() if value.device.type == "cpu" else value
    if isinstance(value, dict):
        return {key: _pinned(one) for key, one in value.items()}
    return [_pinned(one) for one in value] if isinstance(value, list) else value


class _CannotRunElsewhere(Exception):
    """A worker process could not make sense of what it was sent."""


class _Plan(NamedTuple):
    """How batch number n (counted over all epochs) is made."""

    loader: nnUNetDataLoader
    batches_per_epoch: int
    only_read: bool

    def make(self, number: int) -> dict[str, Any] | RawBatch:
        epoch, index = divmod(number, self.batches_per_epoch)
        return self.loader.read_batch(epoch, index) if self.only_read else self.loader.generate_batch(epoch, index)

    def describe(self, number: int) -> str:
        epoch, index = divmod(number, self.batches_per_epoch)
        return f"Batch {index} of epoch {epoch} (cases {', '.join(self.loader.case_ids(epoch, index))})"

    def failure(self, number: int, case: str, cause: str) -> WorkerError:
        return WorkerError(f"{self.describe(number)} could not be made: {case}: {cause}")


def _cause(error: Exception) -> str:
    """An error with what to do about it; our own messages say so themselves."""
    advice = ". If the case is damaged, preprocess it again; if a transform of yours fails, correct it"
    return describe(error) + ("" if isinstance(error, nnUNetError) else advice)


class _Inline:
    """Makes each batch when it is asked for."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan

    def get(self, number: int) -> dict[str, Any] | RawBatch:
        try:
            return self._plan.make(number)
        except Exception as error:
            raise self._plan.failure(number, self._plan.loader.current_key, _cause(error)) from error

    def close(self) -> None:
        """Nothing to end."""


class _Threads:
    """Makes batches ahead in threads of this process."""

    def __init__(self, plan: _Plan, workers: int, ahead: int, first: int) -> None:
        self._local = threading.local()
        self._plan = plan
        self._executor = ThreadPoolExecutor(workers, "nnunet_lite-augmentation", initializer=self._prepare)
        self._pending: deque[Future[dict[str, Any] | RawBatch]] = deque()
        for number in range(first, first + workers * ahead):
            self._submit(number)

    def _prepare(self) -> None:
        torch.set_num_threads(1)
        loader = copy.copy(self._plan.loader)  # with caches of its own
        self._local.engine = _Inline(self._plan._replace(loader=loader))

    def _submit(self, number: int) -> None:
        self._pending.append(self._executor.submit(lambda: self._local.engine.get(number)))

    def get(self, number: int) -> dict[str, Any] | RawBatch:
        batch = self._pending.popleft().result()
        self._submit(number + len(self._pending) + 1)
        return batch

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


class _Processes:
    """Makes batches ahead in spawned processes; worker w makes the numbers n with n % workers == w, in order.

    Each worker is told beforehand which numbers to make into which slot of the shared memory; taking a batch out frees
    its slot for the next number. So nothing is locked, and a worker that dies can hold up nobody.
    """

    def __init__(self, plan: _Plan, payload: bytes, workers: int, ahead: int, first: int) -> None:
        self._plan = plan
        self._stride = workers * ahead
        capacity = _slot_bytes(plan)
        memory = _SharedMemory(capacity * self._stride)
        self._slots = _Slots(memory, capacity)
        self._workers: list[_Worker] = []
        self._end = Finalize(self, _end, (self._workers, memory), exitpriority=10)  # also when forgotten, and at exit
        with environment(_ONE_THREAD):
            for _ in range(workers):
                self._workers.append(_Worker(self._slots, payload))
        for number in range(first, first + self._stride):
            self._ask(number)

    def _ask(self, number: int) -> None:
        self._workers[number % len(self._workers)].ask(number, number % self._stride)

    def get(self, number: int) -> Any:
        worker = self._workers[number % len(self._workers)]
        while not worker.connection.poll():
            wait([worker.connection, *(one.process.sentinel for one in self._workers)])
            for one in self._workers:
                if one is not worker and one.process.exitcode:  # 0 is a worker that said why it cannot start
                    raise self._death(one)
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            raise self._death(worker) from None
        for one in self._workers:
            one.memory = rss(one.process.pid) or one.memory
        if isinstance(message, _Packed):
            batch = self._slots.unpack(number % self._stride, message)
            worker.asked.popleft()
            self._ask(number + self._stride)
            return batch
        if isinstance(message, _Failure):
            error = self._plan.failure(number, message.case, message.cause)
            error.__cause__ = RuntimeError(f"\n{message.trace}")
            raise error
        raise _CannotRunElsewhere(str(message))

    def _death(self, worker: _Worker) -> WorkerError:
        worker.process.join(1)
        return WorkerError(
            f"{self._plan.describe(worker.asked[0])}: the process that made it ended "
            f"({describe_exit(worker.process.exitcode)}; it held {format_size(worker.memory)}, "
            f"{format_size(available_memory())} are free now). If memory ran out, use fewer workers "
            f"(environment variable nnUNet_n_proc_DA, now {len(self._workers)}); if it ended at its start, "
            "protect the main part of your script with if __name__ == '__main__', or set nnUNet_n_proc_DA=0"
        )

    def close(self) -> None:
        self._end()


def _end(workers: list[_Worker], memory: _SharedMemory) -> None:
    """End all workers; they hold nothing that could be lost."""
    for worker in workers:
        worker.process.kill()
        worker.connection.close()
    for worker in workers:
        worker.process.join()
    workers.clear()
    memory.close()


class _Worker:
    """A process that makes batches, and what it was asked for."""

    def __init__(self, slots: _Slots, payload: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, remote = context.Pipe()
        self.process = context.Process(target=_work, args=(remote, slots, payload), daemon=True)
        self.process.start()
        remote.close()
        self.asked: deque[int] = deque()
        self.memory = 0

    def ask(self, number: int, slot: int) -> None:
        self.asked.append(number)
        try:
            self.connection.send((number, slot))
        except OSError:
            self.process.join(1)  # it ended; the next look at it says so


class _Failure(NamedTuple):
    case: str
    cause: str
    trace: str


class _Packed(NamedTuple):
    """A pickle whose arrays lie in shared memory (first byte and length of each), or follow in `arrays`."""

    structure: bytes
    spans: list[tuple[int, int]]
    arrays: list[bytes] | None


def _work(connection: Connection, slots: _Slots, payload: bytes) -> None:
    """Main function of a worker: make the batches asked for until the other end goes away."""
    _leave_signals_to_the_parent()
    end_with_parent()
    torch.set_num_threads(1)
    try:
        plan: _Plan = ForkingPickler.loads(payload)
    except Exception as error:  # a class that cannot be imported here
        connection.send(describe(error))
        return
    while True:
        try:
            number, slot = connection.recv()
        except (EOFError, OSError):
            return
        try:
            message: _Packed | _Failure = slots.pack(slot, plan.make(number))
        except Exception as error:
            message = _Failure(plan.loader.current_key, _cause(error), traceback.format_exc())
        try:
            connection.send(message)
        except OSError:
            return


def _leave_signals_to_the_parent() -> None:
    """Go on through Ctrl-C and a scheduler's signals to all processes: the parent decides and ends the workers."""
    leave_ctrl_c_to_parent()
    for name in ("SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class _TensorPickler(pickle.Pickler):
    """Pickles tensors as numpy arrays, which travel outside of the pickle."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return torch.from_numpy, (obj.detach().contiguous().numpy(),)
        return NotImplemented


class _Slots:
    """Equal parts of a shared memory, one per batch on its way."""

    def __init__(self, memory: _SharedMemory, capacity: int) -> None:
        self.memory = memory
        self.capacity = capacity

    def pack(self, slot: int, value: Any) -> _Packed:
        """Put a value's arrays into a slot; what does not fit travels with the message."""
        buffers: list[pickle.PickleBuffer] = []
        stream = BytesIO()
        _TensorPickler(stream, protocol=5, buffer_callback=buffers.append).dump(value)
        views = [buffer.raw() for buffer in buffers]
        spans, position = [], slot * self.capacity
        for view in views:
            spans.append((position, view.nbytes))
            position += -(-view.nbytes // _ALIGNMENT) * _ALIGNMENT
        if position > (slot + 1) * self.capacity:
            return _Packed(stream.getvalue(), [], [bytes(view) for view in views])
        for (first, length), view in zip(spans, views, strict=True):
            self.memory.bytes[first : first + length] = np.frombuffer(view, np.uint8)
        return _Packed(stream.getvalue(), spans, None)

    def unpack(self, slot: int, packed: _Packed) -> Any:
        """A copy of what lies in a slot."""
        if packed.arrays is not None:
            buffers: list[Any] = [bytearray(array) for array in packed.arrays]
        else:
            buffers = [self.memory.bytes[first : first + length].copy() for first, length in packed.spans]
        return ForkingPickler.loads(packed.structure, buffers=buffers)


def _slot_bytes(plan: _Plan) -> int:
    """Generous size of a batch. Only what is written takes memory; larger batches go through the pipe."""
    loader = plan.loader
    try:
        channels = int(loader.dataset.load_case(loader.identifiers[0])[0].shape[0])
    except Exception:  # the worker that meets this case says what is wrong with it
        channels = 1
    patch = loader.patch_size if plan.only_read or loader.transforms is None else loader.final_patch_size
    if isinstance(loader.transforms, Transform):
        channels = loader.transforms.output_shape(SampleShape(channels, patch)).channels
    labels = len(loader.annotated_classes_key)
    voxels: int = loader.batch_size * prod(patch)
    return voxels * (4 * channels + 2 * labels + 4) + 2**20


class _SharedMemory:
    """Anonymous memory shared with processes started from this one; it goes away with the last of them.

    On Linux it is not bound by the size of /dev/shm, which is 64 MiB in many containers.
    """

    def __init__(self, size: int, handle: Any = None) -> None:
        self._size = size
        if hasattr(os, "memfd_create"):
            self._handle = os.memfd_create("nnunet_lite") if handle is None else handle
            if handle is None:
                os.ftruncate(self._handle, size)
            self._map: Any = mmap.mmap(self._handle, size)
        else:
            self._handle = self._map = multiprocessing.RawArray("b", size) if handle is None else handle
        self.bytes: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)

    def __reduce__(self) -> Any:
        duplicate = reduction.DupFd(self._handle) if hasattr(os, "memfd_create") else self._handle
        return _attach, (self._size, duplicate)

    def close(self) -> None:
        """Let go of the memory on this side; may be called more than once."""
        self.bytes = np.empty(0, np.uint8)
        if isinstance(self._handle, int) and self._map is not None:
            os.close(self._handle)
        self._handle = self._map = None


def _attach(size: int, handle: Any) -> _SharedMemory:
    return _SharedMemory(size, handle.detach() if hasattr(handle, "detach") else handle)
