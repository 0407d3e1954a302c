"""What every background process needs: its environment, what becomes of signals, and an end with its parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from typing import NoReturn

from nnunet_lite.utilities.termination import stops_are_kept

_BADNESS = 500  # of 1000: as if a worker held half of all memory more; who really holds most of it still goes first
_SIGNALLED = 128  # exit codes of processes that end because of a signal, plus its number
_environment_lock = threading.Lock()
_OF_THE_GROUP = {  # signals that terminals and schedulers send to all processes at once
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
}


@contextlib.contextmanager
def environment(changes: dict[str, str]) -> Iterator[None]:
    """Environment of processes started within the block. Thread counts must stand there before numpy is imported.

    These processes do not see Ctrl-C, nor the signals of a scheduler, until they call `leave_ctrl_c_to_parent`: what
    reaches the whole process group would end them in their imports, before the parent can decide.
    """
    with _environment_lock, _signals_blocked():
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Blocked in this thread and in the processes it starts; what arrives meanwhile is delivered afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_GROUP)
    try:
        resource_tracker.ensure_running()  # else the first worker's start does it, which unblocks some of them
        signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_GROUP)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_ctrl_c_to_parent() -> None:
    """Called by a worker: Ctrl-C reaches the parent, which ends the workers; so did signals while this one started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        for number in _OF_THE_GROUP - {signal.SIGINT}:
            handler = signal.signal(number, signal.SIG_IGN)  # which forgets one that waits to be delivered
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_THE_GROUP)


@contextlib.contextmanager
def as_worker() -> Iterator[None]:
    """For the main function of a worker: it does not see Ctrl-C and ends with its parent.

    SIGTERM ends it through the normal way out, so that files half-written are removed. Afterwards it ends it at once:
    an interpreter that is taking itself apart would print a traceback. Handlers are functions: Python prints one as
    well for a signal that comes just as its handler becomes SIG_IGN or SIG_DFL.
    """
    leave_ctrl_c_to_parent()
    end_with_parent()
    signal.signal(signal.SIGTERM, _unwind)
    try:
        with stops_are_kept():
            yield
    finally:
        signal.signal(signal.SIGTERM, _leave_at_once)


def _unwind(number: int, frame: object) -> NoReturn:
    signal.signal(number, _pass_over)  # a second one would end the tidying up
    raise SystemExit(_SIGNALLED + number)


def _pass_over(number: int, frame: object) -> None:
    """Nothing is to be done."""


def _leave_at_once(number: int, frame: object) -> NoReturn:
    os._exit(_SIGNALLED + number)


def be_killed_first() -> None:
    """Called by a worker: where memory ends it is killed, and its case tried again, before the whole command."""
    with contextlib.suppress(OSError, ValueError):
        file = Path("/proc/self/oom_score_adj")
        file.write_text(str(max(_BADNESS, int(file.read_text()))))


def end_with_parent() -> None:
    """Let this worker end as soon as its parent is gone, whatever the worker is doing and however the parent ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    time.sleep(0.2)  # let an orderly end come first
    if signal.getsignal(signal.SIGTERM) is _unwind:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    os._exit(1)


def processes_allowed(wanted: int) -> int:
    """The number of background processes, 0 where the system's rules allow none: in a daemonic process, as those of
    `multiprocessing.Pool` and of some task queues are."""
    return 0 if multiprocessing.current_process().daemon else wanted


def describe_exit(exitcode: int | None) -> str:
    """Why a process ended, in a few words."""
    if exitcode is not None and exitcode > _SIGNALLED and exitcode - _SIGNALLED in list(signal.Signals):
        exitcode = _SIGNALLED - exitcode  # it left in its own way, as `as_worker` lets it
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"{name}, which is how a system out of memory ends processes" if -exitcode == signal.SIGKILL else name


_STATES = {
    "R": "it is computing",
    "S": "it is sleeping",
    "D": "it waits for a disk or a network file system",
    "T": "it is stopped (by SIGSTOP, SIGTSTP or a debugger; kill -CONT {pid} lets it go on)",
    "t": "a debugger holds it",
    "Z": "it has ended",
}


def describe_state(pid: int | None) -> str:
    """What the system says a process is doing, in a few words."""
    state = _state(pid)
    if not state:
        return "its state is unknown"
    return _STATES.get(state, f"its state is {state}").format(pid=pid)


def is_stopped(pid: int | None) -> bool:
    """Whether a process is stopped by a signal or a debugger (False where the system does not tell)."""
    return _state(pid) in ("T", "t")


def _state(pid: int | None) -> str:
    """The letter of the system for a process's state, or nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
