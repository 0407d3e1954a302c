"""A temporary folder for large arrays on their way between processes, on a disk that has room and is no memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_lite.utilities.files import PathLike, storage_errors

_PREFIX = ".nnunet_lite-exchange-"
_LOCK = "in_use"
_MEMORY = ("tmpfs", "ramfs", "devtmpfs")  # file systems that lie in memory


class ExchangeFolder(NamedTuple):
    """Where arrays are left for another process, and whether that takes memory."""

    path: str
    in_memory: bool


@contextlib.contextmanager
def exchange_folder(space: int = 0, beside: PathLike | None = None) -> Iterator[ExchangeFolder]:
    """A fresh folder, gone after the block; what killed processes left there before goes as well.

    It lies in the system's temporary folder (TMPDIR), or in `beside` where that lies in memory or has less than
    `space` bytes left; if neither has them, where more is left.

    Args:
        space: bytes that will be needed.
        beside: a folder that may be used instead, the one of the results.

    Raises:
        StorageError: the folder cannot be made.
    """
    place = _best([Path(tempfile.gettempdir()), *([Path(beside)] if beside is not None else [])], space)
    with storage_errors(place / _PREFIX):
        place.mkdir(parents=True, exist_ok=True)
        remove_abandoned(place)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    lock = _lock(folder)
    try:
        yield ExchangeFolder(str(folder), lies_in_memory(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned(place: Path) -> None:
    """Remove exchange folders whose process is gone; they are locked as long as it lives."""
    for folder in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder / _LOCK, os.O_RDWR)
            try:
                if _try_lock(descriptor):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def lies_in_memory(folder: PathLike, mounts: str | None = None) -> bool:
    """Whether a folder's file system lies in memory (False where the system does not tell).

    Args:
        mounts: the system's table; read from /proc by default.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text()
        except OSError:
            return False
    path = os.path.realpath(folder)
    kind, longest = "", -1
    for line in mounts.splitlines():
        words = line.split()
        if len(words) < 3:
            continue
        point = words[1].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # of several on one point the last counts
            kind, longest = words[2], len(point)
    return kind in _MEMORY


def _best(places: Sequence[Path], space: int) -> Path:
    on_disk = [place for place in places if not lies_in_memory(place)]
    roomy = [place for place in on_disk if _free(place) >= space]
    return roomy[0] if roomy else max(on_disk or places, key=_free)


def _free(place: Path) -> int:
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return 0


def _lock(folder: Path) -> int:
    """Descriptor of the folder's lock, which is held before anyone can see it."""
    draft = folder / f"{_LOCK}.draft"
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT, 0o600)
    _try_lock(descriptor)
    os.replace(draft, folder / _LOCK)
    return descriptor


def _try_lock(descriptor: int) -> bool:
    """Take the lock; False if another process has it, or where there are no locks."""
    if os.name != "posix":
        return False
    fcntl: Any = import_module("fcntl")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
