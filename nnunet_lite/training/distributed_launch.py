"""-num_gpus N: one process per GPU, started and watched over here; or the part of a process that torchrun started."""

from __future__ import annotations

import functools
import inspect
import logging
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, ParamSpec

import torch

from nnunet_lite.exceptions import ArgumentError, WorkerError, nnUNetError
from nnunet_lite.training import interruption
from nnunet_lite.training.interruption import StopRequest, TrainingInterrupted
from nnunet_lite.training.process_group import (
    Member,
    check_devices,
    is_consequence,
    joined,
    meet,
    member_from_environment,
    share_of_processors,
)
from nnunet_lite.utilities.distributed import is_distributed
from nnunet_lite.utilities.logging import log_to_console, logger
from nnunet_lite.utilities.processes import describe_exit, end_with_parent, environment, leave_ctrl_c_to_parent
from nnunet_lite.utilities.wording import describe

P = ParamSpec("P")

_POLL = 0.2  # seconds between looks at requests to stop
_SAVING = 120.0  # seconds in which the others end after one has ended on request
_GRACE = 2.0  # seconds in which other ranks may say what went wrong, or end by themselves
_HOST = "127.0.0.1"


def in_processes(function: Callable[P, None]) -> Callable[P, None]:
    """Let a module-level function with the arguments `num_gpus` and `device` run in as many processes.

    It runs as it is in a process group that exists already, and for one GPU. Under torchrun this process becomes one of
    the ranks. Raises what the first failing rank raised; the others are ended.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        given = inspect.signature(function).bind(*args, **kwargs)
        given.apply_defaults()
        number, device = int(given.arguments["num_gpus"]), given.arguments["device"]
        member = None if is_distributed() else member_from_environment()
        if is_distributed():
            function(*args, **kwargs)
        elif member is not None:
            _check_number(number, member)
            check_devices(device, member.local_world_size)
            os.environ["nnUNet_n_proc_DA"] = share_of_processors(member.local_world_size)["nnUNet_n_proc_DA"]
            with joined(member, device):
                function(*args, **kwargs)
        elif number > 1:
            check_devices(device, number)
            _launch(_Call(run, args, kwargs), number, device)
        else:
            function(*args, **kwargs)

    return run


def _check_number(number: int, member: Member) -> None:
    if number not in (1, member.local_world_size, member.world_size):
        raise ArgumentError(
            f"-num_gpus {number}, but torchrun started {member.world_size} processes "
            f"({member.local_world_size} on this machine); leave -num_gpus out under torchrun"
        )


class _Call(NamedTuple):
    """A call that can be sent to another process."""

    function: Callable[..., None]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Report(NamedTuple):
    """How the work of a rank ended, if it did not simply end."""

    error: nnUNetError | None = None
    flag: str | None = None  # of a training ended on request
    consequence: bool = False  # of the end of another rank


def _launch(call: _Call, number: int, device: torch.device) -> None:
    store = _make_store()
    verbose = any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers)
    ranks: list[_Rank] = []
    with StopRequest(notice=False) as stop:
        try:
            with environment(share_of_processors(number)):
                for rank in range(number):
                    ranks.append(_Rank(Member(rank, number, rank, number), (call, device, store.port, verbose)))
            _supervise(ranks, stop)
        finally:
            for one in ranks:
                one.end()


def _make_store() -> Any:
    """The meeting place of the ranks, kept by this process on MASTER_PORT or any free port.

    Raises:
        ArgumentError: MASTER_PORT is no free port.
    """
    text = os.environ.get("MASTER_PORT", "").strip()
    port = int(text) if text.isdecimal() else -1 if text else 0
    try:
        if not 0 <= port < 2**16:
            raise RuntimeError("ports are numbers up to 65535")
        return meet(_HOST, port, keep=True)
    except RuntimeError as error:
        reason = "it is in use" if "EADDRINUSE" in str(error) else str(error).splitlines()[0]
        raise ArgumentError(
            f"MASTER_PORT={text}: {reason}; give another one, or unset it and a free one is chosen"
        ) from None


class _Rank:
    """A process of the group, seen from its parent."""

    def __init__(self, member: Member, rest: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        self.number = member.rank
        self.report: _Report | None = None
        self.connection, remote = context.Pipe()
        self.process = context.Process(target=_run_rank, args=(remote, member, *rest), name=f"rank {member.rank}")
        self.process.start()
        remote.close()
        self._open = True

    def sources(self) -> list[Any]:
        """What to wait on."""
        ended = self.process.exitcode is not None
        return ([] if ended else [self.process.sentinel]) + ([self.connection] if self._open else [])

    def listen(self) -> None:
        """Take in what this rank says; nothing more comes after its end."""
        try:
            while self._open and self.connection.poll():
                self.report = self.connection.recv()
        except (EOFError, OSError):
            self._open = False

    def ask_to_stop(self, name: str) -> None:
        """Pass a signal on."""
        try:
            self.connection.send(name)
        except OSError:
            return  # it has ended

    def failure(self) -> nnUNetError | None:
        """What went wrong, if anything did."""
        if self.report is not None:
            return self.report.error
        code = self.process.exitcode
        if not code:
            return None
        return WorkerError(
            f"The process of GPU {self.number} ended ({describe_exit(code)}); the others were ended, too. "
            "With --c it goes on from the last checkpoint"
        )

    def stopped(self) -> bool:
        """Whether it has ended on request."""
        return self.report is not None and self.report.flag is not None

    def end(self) -> None:
        """End it whatever it does; what it must not lose it has written before."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def _supervise(ranks: list[_Rank], stop: StopRequest) -> None:
    """Wait for all ranks; raise what the first failing one says."""
    told = False
    deadline: float | None = None
    while any(rank.sources() for rank in ranks):
        wait([source for rank in ranks for source in rank.sources()], _POLL)
        for rank in ranks:
            rank.listen()
        if stop.received is not None and not told:
            told = True
            for rank in ranks:
                rank.ask_to_stop(stop.received)
        failed = [rank for rank in ranks if rank.failure() is not None]
        left = any(rank.stopped() for rank in ranks)
        if deadline is None and (failed or left):
            deadline = time.monotonic() + (_SAVING if left else _GRACE)
        primary = any(not _is_consequence(rank) for rank in failed)
        if deadline is not None and (time.monotonic() > deadline or (primary and stop.received is None)):
            break
    _raise_outcome(ranks)


def _is_consequence(rank: _Rank) -> bool:
    return rank.report is not None and rank.report.consequence


def _raise_outcome(ranks: list[_Rank]) -> None:
    failed = sorted((rank for rank in ranks if rank.failure() is not None), key=_is_consequence)
    flags = [rank.report.flag for rank in ranks if rank.report is not None and rank.report.flag is not None]
    if flags and all(_is_consequence(rank) for rank in failed):
        raise TrainingInterrupted(flags[0])
    if failed:
        error = failed[0].failure()
        assert error is not None
        raise error


def _run_rank(
    connection: Connection, member: Member, call: _Call, device: torch.device, port: int, verbose: bool
) -> None:
    """Main function of a rank: join, work, say how it ended."""
    for name in ("SIGTERM", "SIGUSR1"):  # a scheduler sends them to every process
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _leave)
    try:
        leave_ctrl_c_to_parent()  # lets through what has arrived meanwhile
        _work(connection, member, call, device, port, verbose)
    except TrainingInterrupted as stop:
        connection.send(_Report(flag=stop.flag))
    except SystemExit as end:
        _end_now(end.code if isinstance(end.code, int) else 1)
    except Exception as error:
        connection.send(_report(error, member.rank))
        _end_now(2)
    finish: Callable[[], None] = getattr(multiprocessing.util, "_exit_function")  # noqa: B009, not in its types
    finish()  # as every process of multiprocessing ends: children, semaphores
    _end_now(0)


def _work(connection: Connection, member: Member, call: _Call, device: torch.device, port: int, verbose: bool) -> None:
    end_with_parent()
    threading.Thread(target=_obey, args=(connection,), daemon=True).start()
    for name, value in zip(("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"), member, strict=True):
        os.environ[name] = str(value)
    if verbose:
        log_to_console(logging.INFO if member.rank == 0 else logging.ERROR)
    with joined(member, device, meet(_HOST, port)):
        call.function(*call.args, **call.kwargs)


def _report(error: Exception, rank: int) -> _Report:
    """An error for the parent; what is not a mistake of the user's is shown with its origin."""
    if isinstance(error, nnUNetError):
        plain = error if type(error).__init__ is nnUNetError.__init__ else WorkerError(str(error))
        return _Report(plain)
    consequence = is_consequence(error)
    if not consequence:
        traceback.print_exception(error)
    first = (describe(error).splitlines() or [""])[0]
    return _Report(WorkerError(f"The process of GPU {rank} failed: {first}"), consequence=consequence)


def _end_now(code: int) -> None:
    """End without taking the interpreter apart: threads of the process group that are left would abort the process.

    Other members are not waited for, and background workers end with this process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _leave(number: int, frame: object) -> None:
    interruption.ignore_requests()
    raise TrainingInterrupted


def _obey(connection: Connection) -> None:
    """Pass requests of the parent on to the training; outside of it they end this process."""
    while True:
        try:
            name = connection.recv()
        except (EOFError, OSError):
            return
        if not interruption.request(name):
            os.kill(os.getpid(), signal.SIGTERM)
