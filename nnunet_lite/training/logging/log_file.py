"""The training log: a text file of one's own per start, and the same lines on the console."""

from __future__ import annotations

import errno
import time
from datetime import datetime
from pathlib import Path

from nnunet_lite.utilities.files import PathLike
from nnunet_lite.utilities.logging import logger

_ATTEMPTS = 5  # network drives hiccup
_PAUSE = 0.5  # seconds between them
_LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # not cured by waiting
_warned: set[Path] = set()


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
        logger.info("%s", line)


def _append(path: Path, text: str) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
            return
        except OSError as error:
            if error.errno in _LASTING or attempt == _ATTEMPTS - 1:
                if path not in _warned:
                    logger.warning("%s cannot be written: %s; the training goes on", path, error)
                    _warned.add(path)
                return
            time.sleep(_PAUSE)
