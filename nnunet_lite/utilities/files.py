"""Reading and writing files: JSON, restricted pickles, listings; whatever is written appears complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import StorageError
from nnunet_lite.utilities.temporary_names import temporary_path

PathLike = str | os.PathLike[str]

_DEEPEST = 100  # levels of a JSON file; plans have 8
_TOO_DEEP = f"it is nested in more than {_DEEPEST} levels"


@contextlib.contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path` (same ending); on success it is flushed to disk and takes its place.

    Nothing is left behind when the block raises.

    Raises:
        StorageError: the disk is full or the folder cannot be written to.
    """
    target = Path(path)
    temporary = temporary_path(target)
    try:
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _flush_to_disk(temporary)
            os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def storage_errors(target: PathLike) -> Iterator[None]:
    """Turn what a full disk or a missing permission raises while `target` is written into one StorageError."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        message = _storage_problem(Path(target), error)
        if message is None:
            raise
        raise StorageError(message) from error


@contextlib.contextmanager
def scratch_array(target: PathLike, shape: Sequence[int], dtype: Any) -> Iterator[NDArray[Any]]:
    """Yield an array of zeros in a nameless temporary file beside `target`, for what is too large for memory.

    Its space on the disk is reserved first: a mapped page that finds none later ends the process with SIGBUS.

    Raises:
        StorageError: the disk is full or the folder cannot be written to.
    """
    folder = Path(target).parent
    with storage_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
    with storage_errors(target), tempfile.TemporaryFile(dir=folder, prefix=".scratch-") as file:
        _reserve(file, max(1, math.prod(shape) * np.dtype(dtype).itemsize))
        array = np.memmap(file, dtype, "r+", shape=tuple(shape))
        yield array
        del array


def require_writable(path: PathLike) -> None:
    """Raise StorageError now if a file could not be written there later: no permission, or a folder of that name."""
    target = Path(path)
    if target.is_dir():
        raise StorageError(f"{target} is a folder, expected the name of a file")
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass


def _reserve(file: IO[bytes], size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    zeros = bytes(2**20)
    for start in range(0, size, len(zeros)):
        file.write(zeros[: size - start])
    file.flush()


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storage_problem(target: Path, error: Exception) -> str | None:
    """One line for a full disk or a missing permission, None for anything else.

    Image and compression libraries report a full disk as some error of their own, so the disk itself is asked.
    """
    number = _error_number(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or (number is None and _disk_is_full(target.parent)):
        return (
            f"No space left on the disk of {target.parent}: {target.name} was not written; "
            "free some space and run the same command again"
        )
    if number == errno.EFBIG:
        return f"{target} is larger than a file may be here (ulimit -f, or the disk's format); name another folder"
    if number in (errno.EEXIST, errno.ENOTDIR) and not target.parent.is_dir():
        file = next((parent for parent in target.parents if parent.is_file()), target.parent)
        return f"{target} cannot be written: {file} is a file, expected a folder; name another one"
    if number == errno.ENOENT and not target.parent.is_dir():
        return f"{target} cannot be written: the folder {target.parent} cannot be created there; name another one"
    if number in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"{target} cannot be written: {os.strerror(number)}; check the permissions of {target.parent}"
    return None


def _error_number(error: BaseException | None) -> int | None:
    """The system's number of an error, or of the one during whose handling it arose."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


def _disk_is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < 2**20
    except OSError:
        return False


def write_bytes(content: bytes, path: PathLike) -> None:
    """Write a whole file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(content: str, path: PathLike) -> None:
    """Write a whole text file (UTF-8) atomically."""
    write_bytes(content.encode("utf-8"), path)


def write_text_once(content: str, path: PathLike) -> bool:
    """Write a whole text file unless one of that name is there; of several writers at once the first one wins.

    Returns whether it was written. Where the file system has no hard links the last of them wins.

    Raises:
        StorageError: the disk is full or the folder cannot be written to.
    """
    target = Path(path)
    draft = temporary_path(target)
    try:
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(content.encode("utf-8"))
            _flush_to_disk(draft)
            try:
                os.link(draft, target)
            except FileExistsError:
                return False
            except OSError:
                os.replace(draft, target)
        return True
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def copy_file(source: PathLike, target: PathLike, *, only_if_newer: bool = False) -> bool:
    """Copy a file with its times, atomically; returns whether it was copied."""
    source, target = Path(source), Path(target)
    if only_if_newer and target.exists():
        there, here = target.stat(), source.stat()
        if there.st_mtime >= here.st_mtime and there.st_size == here.st_size:
            return False
    with atomic_path(target) as temporary:
        shutil.copy2(source, temporary)
    return True


def load_json(path: PathLike) -> Any:
    """Read JSON; bare NaN and Infinity tokens are accepted, as upstream writes them, and a byte order mark.

    Raises:
        ValueError: no JSON, no UTF-8, a number of thousands of digits, or nested far deeper than any document of ours.
    """
    text = Path(path).read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _require_shallow(content)
    return content


def _require_shallow(content: Any) -> None:
    level = [content]
    for _ in range(_DEEPEST):
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def save_json(obj: Any, path: PathLike, *, sort_keys: bool = True, indent: int = 4, once: bool = False) -> None:
    """Write JSON atomically; numpy scalars and arrays, tuples and paths are converted, NaN is written as bare NaN.

    Args:
        once: leave a file alone that is there already; see `write_text_once`.
    """
    text = json.dumps(to_plain(obj), sort_keys=sort_keys, indent=indent)
    if once:
        write_text_once(text, path)
    else:
        write_text(text, path)


def to_plain(obj: Any) -> Any:
    """Containers, numpy values and paths as what JSON knows; dictionary keys become what json makes of them."""
    if isinstance(obj, dict):
        return {_plain_key(key): to_plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple, set)):
        return [to_plain(value) for value in obj]
    if isinstance(obj, np.ndarray):
        return obj.tolist()
    if isinstance(obj, np.generic):
        return obj.item()
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    return obj


def _plain_key(key: Any) -> Any:
    return key.item() if isinstance(key, np.generic) else str(key) if isinstance(key, tuple) else key


_PICKLE_GLOBALS = {
    (module, name)
    for package in ("numpy.core", "numpy._core")
    for module, name in (
        (f"{package}.multiarray", "_reconstruct"),
        (f"{package}.multiarray", "scalar"),
        (f"{package}.numeric", "_frombuffer"),
    )
} | {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("builtins", "slice"),
    ("builtins", "set"),
    ("builtins", "complex"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
}


class RestrictedUnpickler(pickle.Unpickler):
    """Knows containers, numbers, strings and numpy arrays, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PICKLE_GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which data files have no use for")
        if module.startswith("numpy.core"):  # written with numpy 1
            module = module.replace("numpy.core", "numpy._core") if hasattr(np, "_core") else module
        elif module.startswith("numpy._core") and not hasattr(np, "_core"):
            module = module.replace("numpy._core", "numpy.core")
        return super().find_class(module, name)


def load_pickle(path: PathLike) -> Any:
    """Read a pickle of plain containers and numpy values, such as upstream's case properties.

    Raises:
        StorageError: the file asks for anything else, or is truncated.
    """
    content = Path(path).read_bytes()
    try:
        return RestrictedUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise StorageError(f"{path} is no readable properties file: {error}; delete it and make it again") from error


def save_pickle(obj: Any, path: PathLike) -> None:
    """Write a pickle (protocol 4, as upstream) atomically."""
    write_bytes(pickle.dumps(obj, protocol=4), path)


def subfiles(folder: PathLike, suffix: str = "", join: bool = True) -> list[str]:
    """Sorted files of a folder whose names end in `suffix`; hidden and temporary files are passed over."""
    return _listing(folder, lambda entry: entry.is_file() and entry.name.endswith(suffix), join)


def subdirs(folder: PathLike, prefix: str = "", join: bool = True) -> list[str]:
    """Sorted sub-folders whose names start with `prefix`; hidden ones are passed over."""
    return _listing(folder, lambda entry: entry.is_dir() and entry.name.startswith(prefix), join)


def _listing(folder: PathLike, wanted: Any, join: bool) -> list[str]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and wanted(entry))
    return [os.path.join(folder, name) for name in names] if join else names
