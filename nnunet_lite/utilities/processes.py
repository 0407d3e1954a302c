"""What every background process needs: its environment, what becomes of signals, and an end with its parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

_environment_lock = threading.Lock()


@contextlib.contextmanager
def environment(changes: dict[str, str]) -> Iterator[None]:
    """Environment of processes started within the block. Thread counts must stand there before numpy is imported.

    These processes do not see Ctrl-C until they call `leave_ctrl_c_to_parent`: it would end them in their imports.
    """
    with _environment_lock, _ctrl_c_blocked():
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
def _ctrl_c_blocked() -> Iterator[None]:
    """Blocked in this thread and in the processes it starts; what arrives meanwhile is delivered afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_ctrl_c_to_parent() -> None:
    """Called by a worker: Ctrl-C reaches the parent, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def end_with_parent() -> None:
    """Let this worker end as soon as its parent is gone, whatever the worker is doing and however the parent ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    time.sleep(0.2)  # let an orderly end come first
    os._exit(1)


def describe_exit(exitcode: int | None) -> str:
    """Why a process ended, in a few words."""
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
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "its state is unknown"
    return _STATES.get(state, f"its state is {state}").format(pid=pid)
