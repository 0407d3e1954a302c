"""The package's logger. Library code logs; only commands decide where it goes."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO

logger = logging.getLogger("nnunet_lite")
logger.addHandler(logging.NullHandler())


class _Console(logging.Handler):
    """Information to stdout, warnings and errors to stderr with a prefix; every line is flushed at once."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stdout if record.levelno < logging.WARNING else sys.stderr
        if stream is None:  # a command called by a program that has windows only
            return
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.capitalize()}: "
        try:
            with _between_bars(stream):
                stream.write(f"{prefix}{self.format(record)}\n")
                stream.flush()
        except BrokenPipeError:  # nobody reads on, as behind `| head`; the work is not to end for that
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def stderr_is_terminal() -> bool:
    """Whether somebody sees progress bars; no, where a program has no stderr or its own stand-in for it."""
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, ValueError):  # None, an object that only writes, a closed file
        return False


def _between_bars(stream: TextIO) -> AbstractContextManager[Any]:
    """Progress bars leave the terminal within the block, so that a line does not stick to one."""
    module: Any = sys.modules.get("tqdm")
    if module is None or not getattr(module.tqdm, "_instances", None):
        return nullcontext()
    bars: AbstractContextManager[Any] = module.tqdm.external_write_mode(file=stream)
    return bars


def open_missing_streams() -> None:
    """Let a command that was started with `>&-` or the like write into nothing.

    Else its first files would get the numbers of stdout and stderr, and a library's warnings would be written to them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def log_to_console(level: int = logging.INFO) -> None:
    """Send the package's messages to the terminal (called once by every command)."""
    if not any(isinstance(handler, _Console) for handler in logger.handlers):
        logger.addHandler(_Console())
        _keep_others_from_repeating()
    logger.setLevel(level)


def _keep_others_from_repeating() -> None:
    """Give the root logger a handler, before a library's `logging.debug` gives it one that repeats our messages."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setLevel(logging.WARNING)
        handler.addFilter(lambda record: record.name != logger.name)
        root.addHandler(handler)
