"""How one batch is made, and the two ways to have them made in this process: when asked for, or ahead in threads."""

from __future__ import annotations

import contextlib
import copy
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import torch

from nnunet_lite.exceptions import WorkerError, nnUNetError
from nnunet_lite.training import activity
from nnunet_lite.training.data_loader import RawBatch, nnUNetDataLoader
from nnunet_lite.utilities.wording import describe

PATIENCE = 0.5  # seconds between two looks at whether the user wants to stop
_END = 10.0  # seconds within which threads have to come to an end

Made = dict[str, Any] | RawBatch
Stop = Callable[[], bool]


class BatchMaker(Protocol):
    """Makes batches, asked for in order."""

    def get(self, number: int) -> Made:
        """Batch `number`. Raises WorkerError if it cannot be made, or if a stop was requested while waiting."""

    def check(self) -> None:
        """Raise WorkerError if batches to come cannot be made any more."""

    def doing(self, number: int) -> str:
        """What is known about where batch `number` is, for a message."""

    def close(self) -> None:
        """End everything in the background; may be called more than once."""


class CannotRunElsewhere(Exception):
    """A worker process could not make sense of what it was sent."""


class BatchPlan(NamedTuple):
    """How batch number n (counted over all epochs) is made."""

    loader: nnUNetDataLoader
    batches_per_epoch: int
    only_read: bool

    def make(self, number: int) -> Made:
        """The batch, or with `only_read` what is needed for it."""
        epoch, index = divmod(number, self.batches_per_epoch)
        return self.loader.read_batch(epoch, index) if self.only_read else self.loader.generate_batch(epoch, index)

    def describe(self, number: int) -> str:
        """A batch in words."""
        epoch, index = divmod(number, self.batches_per_epoch)
        return f"Batch {index} of epoch {epoch} (cases {', '.join(self.loader.case_ids(epoch, index))})"

    def failure(self, number: int, case: str, reason: str) -> WorkerError:
        """The error of a batch that could not be made."""
        return WorkerError(f"{self.describe(number)} could not be made: {case}: {reason}")


def cause(error: BaseException) -> str:
    """An error with what to do about it; our own messages say so themselves."""
    advice = ". If the case is damaged, preprocess it again; if a transform of yours fails, correct it"
    return describe(error) + ("" if isinstance(error, nnUNetError) else advice)


def stopped(what: str) -> WorkerError:
    """The error of a wait that ends because the user wants to stop."""
    return WorkerError(f"{what} was not waited for, because the training is to stop")


class Inline:
    """Makes each batch when it is asked for."""

    def __init__(self, plan: BatchPlan) -> None:
        self._plan = plan
        self._activity = "starting"
        self._since = time.monotonic()

    def get(self, number: int) -> Made:
        """See `BatchMaker`."""
        activity.report_to(self._note)
        try:
            return self._plan.make(number)
        except (Exception, SystemExit) as error:
            raise self._plan.failure(number, self._plan.loader.current_key, cause(error)) from error
        finally:
            activity.report_to(None)

    def _note(self, doing: str) -> None:
        self._activity, self._since = doing, time.monotonic()

    def doing(self, number: int) -> str:
        """See `BatchMaker`."""
        return f"{self._activity} for {time.monotonic() - self._since:.0f} s"

    def check(self) -> None:
        """There is nobody who could have failed."""

    def close(self) -> None:
        """Nothing to end."""


class Threads:
    """Makes batches ahead in threads of this process, which never keep it from ending."""

    def __init__(self, plan: BatchPlan, workers: int, ahead: int, first: int, stop: Stop) -> None:
        self._plan = plan
        self._stop = stop
        self._tasks: queue.SimpleQueue[tuple[int, Future[Made]] | None] = queue.SimpleQueue()
        self._pending: deque[Future[Made]] = deque()
        self._makers: dict[int, Inline] = {}  # of the batches that are being made
        self._threads = [
            threading.Thread(target=self._work, name=f"nnunet_lite-augmentation-{i}", daemon=True)
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()
        for number in range(first, first + workers * ahead):
            self._submit(number)

    def _submit(self, number: int) -> None:
        future: Future[Made] = Future()
        self._pending.append(future)
        self._tasks.put((number, future))

    def _work(self) -> None:
        torch.set_num_threads(1)
        maker = Inline(self._plan._replace(loader=copy.copy(self._plan.loader)))  # with a current case of its own
        while (task := self._tasks.get()) is not None:
            number, future = task
            self._makers[number] = maker
            try:
                future.set_result(maker.get(number))
            except WorkerError as error:
                future.set_exception(error)
            finally:
                self._makers.pop(number, None)

    def get(self, number: int) -> Made:
        """See `BatchMaker`."""
        future = self._pending[0]
        while not future.done():
            if self._stop():
                raise stopped(self._plan.describe(number))
            with contextlib.suppress(TimeoutError, WorkerError):  # the result below raises it
                future.result(PATIENCE)
        self._pending.popleft()
        self._submit(number + len(self._pending) + 1)
        return future.result()

    def doing(self, number: int) -> str:
        """See `BatchMaker`."""
        maker = self._makers.get(number)
        return "not begun yet" if maker is None else f"a thread is {maker.doing(number)}"

    def check(self) -> None:
        """A thread fails together with its batch."""

    def close(self) -> None:
        """End the threads after what each of them is doing; one that never comes to an end is left behind."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._tasks.get_nowait()
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + _END
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._threads.clear()
