"""The one supervised pool of background processes.

Differences to the standard library's executors, which is why this is our own: a worker that dies takes only its own
case down and is named with signal and memory; that case is tried once more, alone; work is admitted by an estimate of
its memory, so that large cases queue instead of exhausting the machine; and when this process ends, however it ends,
every worker ends within a second.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from nnunet_lite.configuration import cpu_count
from nnunet_lite.exceptions import ArgumentError, WorkerError, nnUNetError
from nnunet_lite.utilities.courier import Courier
from nnunet_lite.utilities.logging import logger, stderr_is_terminal
from nnunet_lite.utilities.memory import available_memory, format_size, rss
from nnunet_lite.utilities.memory_budget import MemoryBudget
from nnunet_lite.utilities.pool_worker import work
from nnunet_lite.utilities.processes import describe_exit, environment, processes_allowed
from nnunet_lite.utilities.stopped_processes import StoppedProcesses
from nnunet_lite.utilities.unguarded_main import (
    EXIT_CODE,
    WORKER_NAME,
    UnguardedMain,
    concerning_all,
    refuse_in_import_of_main,
    without_missing_main,
)
from nnunet_lite.utilities.waiting import as_they_end, error_of
from nnunet_lite.utilities.wording import describe

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_POLL = 0.2  # seconds between two looks at the workers' memory


class Task(NamedTuple):
    """One piece of work: what to call it in messages, a module-level function, its arguments, its memory in bytes."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    memory: int = 0


class Outcome(NamedTuple):
    """What became of a task: its value, or the error it ended with."""

    name: str
    value: Any
    error: Exception | None


def run_tasks(
    tasks: Iterable[Task],
    processes: int,
    *,
    description: str = "",
    show_progress: bool = True,
    max_ram: int | None = None,
) -> Iterator[Outcome]:
    """Run tasks in the pool and yield each outcome as it is ready, behind a progress bar with a forecast.

    Args:
        tasks: work to do; large cases first keeps the end short.
        processes: background processes; 0 runs everything in this one.
        description: label of the progress bar.
        show_progress: False hides the bar.
        max_ram: bytes that running tasks may need together by their estimates (default: 80 % of what is available).

    A task that needs more than `max_ram` is warned about and runs alone, since estimates are estimates. A task's own
    error is part of its outcome and never raised here, so that one bad case does not stop the others.
    """
    from tqdm import tqdm

    if processes:
        refuse_in_import_of_main()  # no bar then
    tasks = list(tasks)
    progress = tqdm(
        total=len(tasks),
        desc=description,
        disable=not show_progress or sys.stderr is None,
        unit="case",
        smoothing=0.05,
        mininterval=0.1 if stderr_is_terminal() else 10,  # a log file need not hold every step
    )
    with progress as bar, WorkerPool(min(processes, len(tasks)), max_ram=max_ram) as pool:
        pool.budget.warn_of_large((task.name, task.memory) for task in tasks)
        if pool.size == 0:
            for task in tasks:
                yield _outcome(task.name, pool.submit(task))
                bar.update()
            return
        names = {pool.submit(task): task.name for task in tasks}
        for future in as_they_end(names):
            bar.update()
            yield _outcome(names[future], future)


def _outcome(name: str, future: Future[Any]) -> Outcome:
    error = error_of(future)
    if error is not None and not isinstance(error, Exception):
        raise error
    return Outcome(name, None if error else future.result(), error)


def collect(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """All values by task name, once everything has finished.

    Raises:
        WorkerError: some tasks failed; lists each with its reason. A single failure of one's own kind is raised as is.
    """
    values: dict[str, Any] = {}
    failures: list[Outcome] = []
    for outcome in outcomes:
        if outcome.error is None:
            values[outcome.name] = outcome.value
        else:
            failures.append(outcome)
    if failures:
        raise summary_of(failures, len(values) + len(failures))
    return values


def summary_of(failures: list[Outcome], total: int) -> Exception:
    """One error for all failed tasks: the only one itself, or a list with a line each."""
    common, first = concerning_all(each.error for each in failures), failures[0].error
    if common is not None:
        return common
    if len(failures) == 1 and isinstance(first, nnUNetError):
        return first
    kind = type(first) if isinstance(first, nnUNetError) else WorkerError
    failures = sorted(failures, key=lambda failure: failure.name)
    texts = [describe(failure.error).removeprefix(f"{failure.name}: ") for failure in failures]
    lines = [f"  {failure.name}: {text}" for failure, text in zip(failures, texts, strict=True)]
    return kind("\n".join([f"{len(failures)} of {total} cases failed:", *lines]))


class _RemoteTraceback(Exception):
    """Cause of an error that happened in a worker; prints the worker's traceback."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class _Job:
    """A task on its way through the pool."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.future: Future[Any] = Future()
        self.alone = False  # it ended a worker before: nothing else may run beside it

    def fail(self, error: Exception) -> None:
        """End it with an error, unless it has ended or was cancelled."""
        if not self.future.done():
            self.future.set_exception(error)


class _Worker:
    """A background process, the conversation with it and the job it works on."""

    def __init__(self, threads: int, notify: Callable[[], None]) -> None:
        context = multiprocessing.get_context("spawn")
        connection, remote = context.Pipe()
        self.process: BaseProcess = context.Process(target=work, args=(remote, threads), name=WORKER_NAME, daemon=True)
        self.courier = Courier(connection, notify)
        try:
            with without_missing_main(), environment(dict.fromkeys(_THREAD_VARIABLES, str(threads))):
                self.process.start()
        except BaseException:
            self.courier.close()
            raise
        finally:
            remote.close()
        self.job: _Job | None = None
        self.memory = 0

    def give(self, job: _Job) -> None:
        """Let it work on a job; raises what pickling the arguments ends with."""
        self.courier.ask((job.task.function, job.task.args))
        self.job = job

    def end(self) -> None:
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(1)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.courier.close()


class WorkerPool:
    """Background processes that are watched; use it as a context manager.

    Args:
        processes: number of workers; 0, or in a daemonic process, makes `submit` run the task at once in this one.
        max_ram: bytes that running tasks may need together by their estimates; one task always may run.
        threads_per_worker: computing threads of each worker (default: the cores divided by the workers).
        budget: memory shared with other pools, instead of `max_ram`.
    """

    def __init__(
        self,
        processes: int,
        *,
        max_ram: int | None = None,
        threads_per_worker: int | None = None,
        budget: MemoryBudget | None = None,
    ) -> None:
        if processes < 0:
            raise ArgumentError(f"{processes} processes: expected 0 (everything in one process) or more")
        if processes:
            refuse_in_import_of_main()  # first: there, too, the process is daemonic
        self.size = processes_allowed(processes)
        self._threads = threads_per_worker or max(1, cpu_count() // max(1, self.size))
        self.budget = budget or MemoryBudget(max_ram)
        self.max_ram = self.budget.limit
        self._waiting: deque[_Job] = deque()
        self._workers: list[_Worker] = []
        self._lock, self._calls = threading.Lock(), threading.Lock()
        self._closing = self._abort = False
        self._fault: WorkerError | None = None  # of the supervising thread itself
        self._pipe: tuple[Connection, Connection] | None = None  # wakes the supervising thread
        self._supervisor: threading.Thread | None = None

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.close(wait_for_tasks=kind is None)

    def submit(self, task: Task) -> Future[Any]:
        """Hand in a task; its future gets the value, the task's own error, or a WorkerError if its process died."""
        job = _Job(task)
        if self.size == 0:
            _run_inline(job)
            return job.future
        with self._lock:
            if self._fault is not None:
                raise self._fault
            self._waiting.append(job)
        if self._supervisor is None:
            self._pipe = multiprocessing.Pipe()
            self._supervisor = threading.Thread(target=self._supervise, name="nnunet_lite-pool", daemon=True)
            self._supervisor.start()
        self._wake_up()
        return job.future

    def close(self, *, wait_for_tasks: bool = True) -> None:
        """End the workers, after all tasks have finished or at once."""
        if self._supervisor is None or self._supervisor.ident is None:  # Ctrl-C may come before it has started
            return
        with self._lock:
            dropped = [] if wait_for_tasks else list(self._waiting)
            if not wait_for_tasks:
                self._waiting.clear()
            self._closing, self._abort = True, not wait_for_tasks
        for job in dropped:
            if not job.future.cancel():  # one that is tried again
                job.fail(WorkerError(f"{job.task.name}: stopped before it was finished"))
        self._wake_up()
        self._supervisor.join()
        self._supervisor = None
        for end in self._pipe or ():
            end.close()

    def _wake_up(self) -> None:
        if self._pipe is not None:
            with self._calls:
                self._pipe[0].send(None)

    def _supervise(self) -> None:
        """Main function of the supervising thread; whatever ends it, no task is left without an outcome."""
        reason, unguarded = "stopped before it was finished", False
        try:
            self._watch()
        except UnguardedMain:
            unguarded = True
        except Exception as error:
            logger.exception("The background processes can no longer be supervised")
            reason = f"the supervision of its process failed ({describe(error)})"
        finally:
            jobs = [worker.job for worker in self._workers if worker.job is not None]
            for worker in self._workers:
                worker.process.terminate()  # all of them before the first is waited for
            for worker in self._workers:
                worker.end()
            self._workers.clear()
            for job in jobs:
                self.budget.release(job.task.memory)
            with self._lock:
                self._fault = UnguardedMain() if unguarded else WorkerError(f"No more tasks can be run: {reason}")
                jobs += self._waiting
                self._waiting.clear()
            for job in jobs:
                job.fail(UnguardedMain() if unguarded else WorkerError(f"{job.task.name}: {reason}"))

    def _watch(self) -> None:
        """Loop: start what may start, wait for news, look at the dead."""
        assert self._pipe is not None
        woken, stopped = self._pipe[1], StoppedProcesses()
        while True:
            with self._lock:
                idle = not self._waiting and all(worker.job is None for worker in self._workers)
                if self._closing and (idle or self._abort):
                    return
            self._start_jobs()
            ready = wait([woken, *(w.process.sentinel for w in self._workers)], timeout=None if idle else _POLL)
            while woken.poll():
                woken.recv()
            for worker in list(self._workers):
                worker.memory = rss(worker.process.pid) or worker.memory
                self._hear(worker, ended=worker.process.sentinel in ready)
            stopped.look((w.process.pid, w.job.task.name) for w in self._workers if w.job is not None)

    def _start_jobs(self) -> None:
        """Give waiting jobs to workers as long as processes and memory allow it, in the order of submission."""
        while True:
            running = [worker.job for worker in self._workers if worker.job is not None]
            with self._lock:
                if not self._waiting or len(running) >= self.size:
                    return
                job = self._waiting[0]
                if not self.budget.admit(job.task.memory, alone=job.alone):
                    return
                self._waiting.popleft()
            if not job.alone and not job.future.set_running_or_notify_cancel():
                self.budget.release(job.task.memory)
                continue
            worker = next((worker for worker in self._workers if worker.job is None), None)
            try:
                if worker is None:
                    worker = _Worker(self._threads, self._wake_up)
                    self._workers.append(worker)
            except Exception as error:
                self.budget.release(job.task.memory)
                job.future.set_exception(WorkerError(_cannot_start(job.task.name, error)))
                continue
            try:
                worker.give(job)
            except Exception as error:  # arguments that cannot be pickled
                self.budget.release(job.task.memory)
                job.future.set_exception(error)

    def _hear(self, worker: _Worker, ended: bool) -> None:
        """Take a worker's answer if there is one, or note that it died."""
        if ended:
            worker.courier.close()  # it may have answered before
        answer = worker.courier.take()
        if answer is None:
            if ended or worker.courier.over:
                self._bury(worker)
            return
        error = answer.error and WorkerError(f"what its process answered cannot be read: {describe(answer.error)}")
        succeeded, value, trace = (False, error, "") if error else answer.content
        job, worker.job = worker.job, None
        if job is None:
            return
        if succeeded:
            job.future.set_result(value)
        else:
            value.__cause__ = _RemoteTraceback(trace)
            job.future.set_exception(value)
        self.budget.release(job.task.memory)
        if worker.courier.over:  # or it would be given the next job
            self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        """A worker died: try its case once more alone, or report it."""
        worker.process.join(1)
        if worker.process.exitcode == EXIT_CODE:
            raise UnguardedMain
        job, worker.job = worker.job, None
        self._workers.remove(worker)
        worker.end()
        if job is None:
            return
        self.budget.release(job.task.memory)
        if not job.alone:
            job.alone = True
            with self._lock:
                self._waiting.appendleft(job)
            return
        held, free = format_size(worker.memory), format_size(available_memory())
        job.future.set_exception(
            WorkerError(
                f"{job.task.name}: its process died twice, the second time alone "
                f"({describe_exit(worker.process.exitcode)}; it held {held}, {free} were free afterwards). "
                "If memory ran out, use fewer processes or a machine with more of it"
            )
        )


def _cannot_start(name: str, error: Exception) -> str:
    advice = "; use fewer processes" if isinstance(error, OSError) else ""
    if isinstance(error, FileNotFoundError):  # by Python, of what it is asked for first
        advice = "; the current folder was deleted, change to another"
    return f"{name}: no background process could be started ({describe(error)}){advice}"


def _run_inline(job: _Job) -> None:
    try:
        job.future.set_result(job.task.function(*job.task.args))
    except Exception as error:
        job.future.set_exception(error)
