"""SIGTERM ends a command through the normal way out; imports nothing heavy, since every command does it first."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

TERMINATED = 128 + signal.SIGTERM  # exit code
_SOON = 0.05  # seconds


@contextlib.contextmanager
def orderly_sigterm() -> Iterator[None]:
    """Within the block SIGTERM raises SystemExit, so that background processes end and temporary files go.

    Afterwards it does what it did before: an interpreter that is taking itself apart would print a traceback. Outside
    of the main thread, where somebody calls a command from a program of theirs, nothing is changed.
    """
    try:
        before = signal.signal(signal.SIGTERM, _leave)
    except ValueError:
        yield
        return
    try:
        with stops_are_kept():
            yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextlib.contextmanager
def stops_are_kept() -> Iterator[None]:
    """Within the block, which is in the main thread, no SystemExit or KeyboardInterrupt of a signal is lost.

    Python drops an exception that arises in `__del__` or the callback of a weak reference, where a signal may come as
    well, and prints its traceback. Such a stop is raised once more a moment later.
    """
    if not hasattr(signal, "setitimer"):  # Windows
        yield
        return
    hook, handler, armed = sys.unraisablehook, signal.getsignal(signal.SIGALRM), False

    def look(lost: Any) -> None:
        nonlocal armed
        stop, here = lost.exc_value, threading.current_thread() is threading.main_thread()
        if not here or not isinstance(stop, (SystemExit, KeyboardInterrupt)):
            hook(lost)
            return
        armed = True
        signal.signal(signal.SIGALRM, lambda number, frame: _raise(type(stop)(*stop.args)))
        signal.setitimer(signal.ITIMER_REAL, _SOON)

    sys.unraisablehook = look
    try:
        yield
    finally:
        if armed:  # else the alarm is the caller's own
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        sys.unraisablehook = hook


def end_quietly() -> None:
    """The command is over and its process about to end: Ctrl-C ends it at once, without a traceback."""
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit(TERMINATED)


def _raise(stop: BaseException) -> NoReturn:
    raise stop
