"""SIGTERM ends a command through the normal way out; imports nothing heavy, since every command does it first."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import NoReturn

TERMINATED = 128 + signal.SIGTERM  # exit code


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
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def end_quietly() -> None:
    """The command is over and its process about to end: Ctrl-C ends it at once, without a traceback."""
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit(TERMINATED)
