"""The array of an `.npz`, read channel after channel: of the file's array there is never more than one in memory."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.utilities.files import PathLike

_LARGEST_RATIO = 1032  # of what deflate makes of its input
_HEADER = 2**16  # bytes
_LONGEST = 200  # letters of a reason
_DAMAGE = (  # what a damaged or hostile file raises
    *(ValueError, OSError, EOFError, RuntimeError, SyntaxError, TypeError, OverflowError),
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, tokenize.TokenError),
)
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpzChannels:
    """See `npz_channels`."""

    def __init__(self, member: IO[bytes]) -> None:
        self._member = member
        version = np.lib.format.read_magic(member)
        if version not in _READERS:
            raise ValueError(f"arrays of version {version} are unknown")
        shape, fortran_order, self.dtype = _READERS[version](member)
        self.shape: tuple[int, ...] = tuple(int(edge) for edge in shape)
        if fortran_order or self.dtype.kind != "f" or len(self.shape) < 2 or min(self.shape) < 0:
            raise ValueError(
                f"it holds {self.dtype} of shape {self.shape}{' in Fortran order' if fortran_order else ''}, expected "
                "floating-point numbers in C order, the channels first"
            )

    def read(self) -> NDArray[np.floating[Any]]:
        """The next channel, of shape `shape[1:]`. Raises ValueError if the file is damaged or ends before."""
        result = np.empty(self.shape[1:], self.dtype)
        target = result.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(target):
            try:
                block = self._member.read(min(2**20, len(target) - done))
            except _DAMAGE as error:
                raise ValueError(_reason(error)) from error
            if not block:
                raise ValueError("it ends before its last channel")
            target[done : done + len(block)] = block
            done += len(block)
        return result


@contextmanager
def npz_channels(file: PathLike, key: str) -> Iterator[NpzChannels]:
    """Open the array `key` (channels, *spatial) of a file as numpy.savez_compressed writes it; no pickle is read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no such array, or the file is damaged or claims more than it can hold; names the file.
    """
    with ExitStack() as stack:
        try:
            channels = _opened(file, f"{key}.npy", stack)
        except FileNotFoundError:
            raise
        except _DAMAGE as error:
            raise ValueError(f"{file} is no readable file of probabilities: {_reason(error)}") from error
        yield channels


def _opened(file: PathLike, name: str, stack: ExitStack) -> NpzChannels:
    archive = stack.enter_context(zipfile.ZipFile(file))
    if name not in archive.namelist():
        raise ValueError(f"it has no array {name[:-4]!r}, only {', '.join(archive.namelist()) or 'nothing'}")
    info = archive.getinfo(name)
    if info.file_size > _LARGEST_RATIO * info.compress_size + _HEADER:
        raise ValueError(f"it claims to hold {info.file_size} bytes in {info.compress_size}")
    channels = NpzChannels(stack.enter_context(archive.open(name)))
    if math.prod(channels.shape) * channels.dtype.itemsize > info.file_size:
        raise ValueError(f"its array of shape {channels.shape} is larger than its {info.file_size} bytes")
    return channels


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:_LONGEST] or type(error).__name__
