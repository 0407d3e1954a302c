"""The folder of a fold: which checkpoint to continue from, what becomes of an earlier run's, and who works in it."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import ArgumentError, CheckpointError
from nnunet_lite.utilities.files import PathLike, storage_errors
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.temporary_names import process_exists

FINAL, LATEST, BEST = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"

_EARLIER = "previous_"  # of a run that was started anew, until the new one has finished
_LOCK = ".in_use"
_OWNER = re.compile(r"process (\d+) on (.*)")
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # of file systems that have none


def checkpoints_to_continue(folder: PathLike) -> list[Path]:
    """What can be continued, best first: the final checkpoint, then the younger one of latest and best."""
    final = Path(folder, FINAL)
    others = [file for file in (Path(folder, LATEST), Path(folder, BEST)) if file.is_file()]
    others.sort(key=lambda file: file.stat().st_mtime_ns, reverse=True)
    return [final, *others] if final.is_file() else others


def first_readable(checkpoints: list[Path], read: Callable[[Path], Any]) -> Path | None:
    """The first checkpoint that `read` does not refuse, with a warning for each before it; None of none at all.

    Raises:
        CheckpointError: there are some, and all of them are damaged.
    """
    for file in checkpoints:
        try:
            read(file)
        except CheckpointError as error:
            logger.warning("%s", error)
        else:
            return file
    if checkpoints:
        names = ", ".join(file.name for file in checkpoints)
        raise CheckpointError(
            f"Nothing in {checkpoints[0].parent} can be continued: {names} cannot be read; restore one from a copy, "
            "or start anew without --c"
        )
    return None


def set_aside(folder: PathLike) -> list[str]:
    """Rename the checkpoints of an earlier run, so that a later --c cannot mix them up; returns their new names."""
    renamed = []
    for file in (Path(folder, name) for name in (FINAL, LATEST, BEST)):
        if file.is_file():
            os.replace(file, file.with_name(_EARLIER + file.name))
            renamed.append(_EARLIER + file.name)
    return renamed


@contextlib.contextmanager
def put_back_on_failure(folder: PathLike) -> Iterator[None]:
    """Within the block `set_aside` may be called; what it renamed gets its name back if no new checkpoint follows.

    A training that fails before it has written any leaves the fold as it was.
    """
    folder = Path(folder)
    before = [name for name in (FINAL, LATEST, BEST) if (folder / name).is_file()]
    try:
        yield
    except BaseException:
        aside = [name for name in before if (folder / (_EARLIER + name)).is_file()]
        if aside and not any((folder / name).is_file() for name in (FINAL, LATEST, BEST)):
            with contextlib.suppress(OSError):
                for name in aside:
                    os.replace(folder / (_EARLIER + name), folder / name)
                logger.warning("The new training has saved nothing: %s of the earlier one are back", ", ".join(aside))
        raise


def remove_superseded(folder: PathLike) -> None:
    """Remove what a finished training no longer needs: checkpoint_latest, and the earlier run's checkpoints."""
    for name in (LATEST, *(_EARLIER + name for name in (FINAL, LATEST, BEST))):
        Path(folder, name).unlink(missing_ok=True)


def remove_leftovers(folder: PathLike) -> None:
    """Remove the temporary files of checkpoints whose writing was killed."""
    for file in Path(folder).glob(".*.tmp.checkpoint_*"):
        with contextlib.suppress(OSError):
            file.unlink()


@contextlib.contextmanager
def in_use(folder: PathLike) -> Iterator[None]:
    """Keep a second training out of a fold's folder within the block; nothing of it is left afterwards.

    The lock belongs to this process alone and ends with it, however it ends; child processes do not inherit it. Where
    a file system or an operating system has no locks, there is none.

    Raises:
        ArgumentError: another process works there; says which.
        StorageError: the folder cannot be written to.
    """
    folder = Path(folder)
    existed = [path for path in (folder, folder.parent, folder.parent.parent) if path.is_dir()]
    descriptor = _locked(folder / _LOCK) if os.name == "posix" else None
    try:
        yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                (folder / _LOCK).unlink(missing_ok=True)  # before the lock goes: nobody else may have it yet
            os.close(descriptor)
        for path in (folder, folder.parent, folder.parent.parent):  # nothing is left where nothing was written
            if path not in existed:
                with contextlib.suppress(OSError):
                    path.rmdir()


def is_in_use(folder: PathLike) -> bool | None:
    """Whether a training of ours works in a fold; None where it cannot be told: on another machine, Windows."""
    try:
        text = Path(folder, _LOCK).read_text(errors="replace")
    except OSError:
        return False if os.name == "posix" else None
    match = _OWNER.fullmatch(text.strip())
    if match is None or match[2] != platform.node():
        return None
    return process_exists(int(match[1]))


def _locked(path: Path) -> int:
    """Descriptor of the lock file, which this process holds."""
    fcntl: Any = import_module("fcntl")
    while True:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise ArgumentError(
                    f"{path.parent} is in use by {owner}; wait for its end, or train another fold. If that machine "
                    f"has crashed and its lock is stuck on a network drive, delete {path}"
                ) from error
            logger.info("%s: this file system has no locks; do not train this fold twice at once", path.parent)
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):  # else it was just given back by its owner
                with storage_errors(path):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}".encode(), 0)
                return descriptor
        os.close(descriptor)
