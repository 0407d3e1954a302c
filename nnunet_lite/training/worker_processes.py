"""Makes batches ahead in spawned and supervised processes."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import deque
from math import prod
from multiprocessing import process as multiprocessing_process
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from typing import NamedTuple

import torch

from nnunet_lite.exceptions import WorkerError
from nnunet_lite.training import activity
from nnunet_lite.training.batch_makers import PATIENCE, BatchPlan, CannotRunElsewhere, Made, Stop, cause, stopped
from nnunet_lite.training.batch_memory import Packed, Slots
from nnunet_lite.training.data_augmentation.transforms import SampleShape, Transform
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.memory import available_memory, format_size, rss
from nnunet_lite.utilities.processes import (
    describe_exit,
    describe_state,
    end_with_parent,
    environment,
    leave_ctrl_c_to_parent,
)
from nnunet_lite.utilities.wording import describe

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"), "1")
_END = 5.0  # seconds; a killed process that is still there hangs in the system, on a dead file server for example
_IDLE = "waiting for work"
_BASE = 200 * 2**20  # bytes a worker holds by itself; measured 175 MiB, what it shares with others counted once
_WORK = 4  # times a batch: what is read, and copies of the transforms


class Processes:
    """Worker w makes the numbers n with n % workers == w, in order.

    Each worker is told beforehand which numbers to make into which slot of the shared memory; taking a batch out frees
    its slot for the next number. So nothing is locked, and a worker that dies can hold up nobody.

    Args:
        plan: how batches are made; for messages.
        payload: the same, pickled, for the workers.
        workers: how many.
        ahead: batches each of them makes ahead.
        first: number of the first batch.
        stop: whether to give up waiting.
        pin: return batches in page-locked memory.
    """

    def __init__(
        self, plan: BatchPlan, payload: bytes, workers: int, ahead: int, first: int, stop: Stop, pin: bool
    ) -> None:
        self._plan = plan
        self._stop = stop
        self._pin = pin
        self._stride = workers * ahead
        capacity = slot_bytes(plan)
        _hint_at_memory(workers, _BASE + (ahead + _WORK) * capacity, available_memory())
        self._slots = Slots(self._stride, capacity, workers)
        self._workers: list[_Worker] = []
        self._end = Finalize(self, _end, (self._workers, self._slots), exitpriority=10)  # also when forgotten, at exit
        with environment(_ONE_THREAD):
            for position in range(workers):
                self._workers.append(_Worker(self._slots, payload, position))
        for number in range(first, first + self._stride):
            self._ask(number)

    def _ask(self, number: int) -> None:
        self._workers[number % len(self._workers)].ask(number, number % self._stride)

    def get(self, number: int) -> Made:
        """See `BatchMaker`. Raises CannotRunElsewhere if workers cannot import what they need."""
        worker = self._workers[number % len(self._workers)]
        self.check()
        while not worker.connection.poll():
            wait([worker.connection, *(one.process.sentinel for one in self._workers)], PATIENCE)
            self.check()
            if self._stop():
                raise stopped(self._plan.describe(number))
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            raise self._death(worker) from None
        for one in self._workers:
            one.memory = rss(one.process.pid) or one.memory
        if isinstance(message, Packed):
            batch: Made = self._slots.unpack(number % self._stride, message, self._pin)
            worker.asked.popleft()
            self._ask(number + self._stride)
            return batch
        if isinstance(message, _Failure):
            error = self._plan.failure(number, message.case, message.cause)
            error.__cause__ = RuntimeError(f"\n{message.trace}")
            raise error
        raise CannotRunElsewhere(str(message))

    def check(self) -> None:
        """See `BatchMaker`: nobody but this process ends a worker on purpose."""
        for worker in self._workers:
            if worker.process.exitcode is not None:
                raise self._death(worker)

    def doing(self, number: int) -> str:
        """See `BatchMaker`."""
        worker = self._workers[number % len(self._workers)]
        pid = worker.process.pid
        note, seconds = self._slots.read_note(worker.position)
        since = f"{note} for {seconds:.0f} s" if note else "starting"
        return (
            f"worker {worker.position + 1} of {len(self._workers)} (process {pid}) is {since}; "
            f"{describe_state(pid)}, it holds {format_size(rss(pid))} and {format_size(available_memory())} are free"
        )

    def _death(self, worker: _Worker) -> WorkerError:
        worker.process.join(1)
        note, _ = self._slots.read_note(worker.position)
        return WorkerError(
            f"{self._plan.describe(worker.asked[0])}: the process that made it ended "
            f"({describe_exit(worker.process.exitcode)}; it was {note or 'starting'} and held "
            f"{format_size(worker.memory)}, {format_size(available_memory())} are free now). If memory ran out, use "
            f"fewer workers (environment variable nnUNet_n_proc_DA, now {len(self._workers)}); if it ended at its "
            "start, protect the main part of your script with if __name__ == '__main__', or set nnUNet_n_proc_DA=0"
        )

    def close(self) -> None:
        """See `BatchMaker`."""
        self._end()


def _end(workers: list[_Worker], slots: Slots) -> None:
    """End all workers; they hold nothing that could be lost."""
    for worker in workers:
        worker.process.kill()
        worker.connection.close()
    for worker in workers:
        worker.process.join(_END)
        if worker.process.exitcode is None:
            logger.warning(
                "Data worker %s cannot be ended (%s); leaving it behind",
                worker.process.pid,
                describe_state(worker.process.pid),
            )
            getattr(multiprocessing_process, "_children", set()).discard(worker.process)  # else the exit waits for it
    workers.clear()
    slots.memory.close()


def _hint_at_memory(workers: int, each: int, free: int) -> None:
    if workers * each > free:
        logger.warning(
            "%d data workers may need %s and %s are free; if memory runs out, set nnUNet_n_proc_DA=%d",
            *(workers, format_size(workers * each), format_size(free), max(1, free // each)),
        )


class _Worker:
    """A process that makes batches, and what it was asked for."""

    def __init__(self, slots: Slots, payload: bytes, position: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.position = position
        self.connection, remote = context.Pipe()
        self.process = context.Process(target=_work, args=(remote, slots, payload, position), daemon=True)
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


def _work(connection: Connection, slots: Slots, payload: bytes, position: int) -> None:
    """Main function of a worker: make the batches asked for until the other end goes away."""
    _leave_signals_to_the_parent()
    end_with_parent()
    torch.set_num_threads(1)
    plan: BatchPlan | None = None
    try:
        plan = ForkingPickler.loads(payload)
    except Exception as error:  # a class that cannot be imported here
        connection.send(describe(error))
    activity.report_to(lambda doing: slots.write_note(position, doing))
    while True:
        slots.write_note(position, _IDLE)
        try:
            number, slot = connection.recv()
        except (EOFError, OSError):
            return
        if plan is None:
            continue  # the parent has been told and will end this process
        try:
            message: Packed | _Failure = slots.pack(slot, plan.make(number))
        except (Exception, SystemExit) as error:
            message = _Failure(plan.loader.current_key, cause(error), traceback.format_exc())
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


def slot_bytes(plan: BatchPlan) -> int:
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
