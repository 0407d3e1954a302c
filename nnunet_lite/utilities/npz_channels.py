"""The array of an `.npz`, read channel after channel: of the file's array there is never more than one in memory."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.utilities.files import PathLike

_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpzChannels:
    """See `npz_channels`."""

    def __init__(self, member: IO[bytes]) -> None:
        self._member = member
        version = np.lib.format.read_magic(member)
        if version not in _READERS:
            raise ValueError(f"arrays of version {version} are unknown")
        self.shape, fortran_order, self.dtype = _READERS[version](member)
        if fortran_order or self.dtype.kind != "f" or len(self.shape) < 2:
            raise ValueError(
                f"it holds {self.dtype} of shape {self.shape}{' in Fortran order' if fortran_order else ''}, expected "
                "floating-point numbers in C order, the channels first"
            )

    def read(self) -> NDArray[np.floating[Any]]:
        """The next channel, of shape `shape[1:]`. Raises ValueError if the file ends before."""
        result = np.empty(self.shape[1:], self.dtype)
        target = result.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(target):
            block = self._member.read(min(2**20, len(target) - done))
            if not block:
                raise ValueError("it ends before its last channel")
            target[done : done + len(block)] = block
            done += len(block)
        return result


@contextmanager
def npz_channels(file: PathLike, key: str) -> Iterator[NpzChannels]:
    """Open the array `key` (channels, *spatial) of a file as numpy.savez_compressed writes it.

    Raises:
        ValueError: no such array, or the file is damaged; names the file.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            name = f"{key}.npy"
            if name not in archive.namelist():
                raise ValueError(f"it has no array {key!r}, only {', '.join(archive.namelist()) or 'nothing'}")
            with archive.open(name) as member:
                channels = NpzChannels(member)
                size = archive.getinfo(name).file_size
                if math.prod(channels.shape) * channels.dtype.itemsize > size:
                    raise ValueError(f"its array of shape {channels.shape} is larger than its {size} bytes")
                yield channels
    except FileNotFoundError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError) as error:
        raise ValueError(f"{file} is no readable file of probabilities: {error}") from error
