"""The training log: a text file of one's own per start, and the same lines on the console."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from nnunet_lite.exceptions import nnUNetError
from nnunet_lite.utilities.files import PathLike
from nnunet_lite.utilities.logging import logger

_ATTEMPTS = 5  # network drives hiccup
_PAUSE = 0.5  # seconds between them
_LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # not cured by waiting
_warned: set[Path] = set()
_early: dict[Path, list[str]] = {}  # lines for a log that has not begun yet
_WRITTEN = "in_training_log"  # marks messages that only show what is in the log already


def log_file_name(now: datetime) -> str:
    """Name of the log of a trainer made at `now`; month and day are not padded, as upstream writes them."""
    return f"training_log_{now.year}_{now.month}_{now.day}_{now:%H_%M_%S}.txt"


def append_line(
    path: PathLike, words: tuple[object, ...], *, add_timestamp: bool, to_console: bool, to_file: bool
) -> None:
    """Append one line of space-separated words to the log file (made when first needed) and show it."""
    line = " ".join(str(word) for word in words)
    if to_file:
        stamp = f"{datetime.now():%Y-%m-%d %H:%M:%S.%f}: " if add_timestamp else ""
        _append(Path(path), f"{stamp}{line} \n")
    if to_console:
        logger.info("%s", line, extra={_WRITTEN: to_file})


@contextmanager
def messages_in_log(path: PathLike) -> Iterator[None]:
    """Within the block the package's messages go to the log file, too; the earlier ones once it has begun."""
    handler = _LogFile(Path(path))
    logger.addHandler(handler)
    try:
        yield
    except nnUNetError as error:
        if Path(path).is_file():
            append_line(path, (f"Error: {error}",), add_timestamp=True, to_console=False, to_file=True)
        raise
    finally:
        logger.removeHandler(handler)
        _early.pop(Path(path), None)


class _LogFile(logging.Handler):
    """Appends what is said elsewhere to a training log."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        """Append a message, or keep it until the log begins: a training that is refused leaves none."""
        if getattr(record, _WRITTEN, False) or str(self._path) in (message := record.getMessage()):
            return
        level = f"{record.levelname.capitalize()}: " if record.levelno > logging.INFO else ""
        line = f"{datetime.now():%Y-%m-%d %H:%M:%S.%f}: {level}{message} \n"
        if self._path.is_file():
            _append(self._path, line)
        else:
            _early.setdefault(self._path, []).append(line)


def _append(path: Path, text: str) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write("".join(_early.pop(path, ())) + text)
            return
        except OSError as error:
            if error.errno in _LASTING or attempt == _ATTEMPTS - 1:
                if path not in _warned:
                    logger.warning("%s cannot be written: %s; the training goes on", path, error)
                    _warned.add(path)
                return
            time.sleep(_PAUSE)
