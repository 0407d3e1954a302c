"""A compressed `.npz` of one array that is written piece by piece, deflated by several threads.

Deflate streams that end at a byte boundary may be joined: each block is compressed by itself, all together are one
ordinary zip member that any reader inflates. The result depends on the content alone, not on threads or time.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.utilities.files import PathLike, atomic_path

_BLOCK = 2**20  # bytes that are compressed by themselves: the loss at their edges is below a thousandth
_FINAL = b"\x03\x00"  # an empty last block
_JANUARY_1980 = 0x21  # the earliest date of a zip
_VERSION = 45  # of zip: sizes of 64 bits
_UNKNOWN = 0xFFFFFFFF  # the true size stands in 64 bits elsewhere


@contextmanager
def npz_stream(file: PathLike, key: str, shape: Sequence[int], threads: int) -> Iterator[NpzStream]:
    """Yield a writer for a float32 array `key` of this shape; the file appears when all of it is written.

    Raises:
        StorageError: the disk is full or the folder cannot be written to.
        ValueError: fewer or more values than the shape has.
    """
    with (
        atomic_path(file) as temporary,
        temporary.open("wb") as target,
        NpzStream(target, key, shape, threads) as stream,
    ):
        yield stream
        stream.finish()


class NpzStream:
    """See `npz_stream`."""

    def __init__(self, target: IO[bytes], key: str, shape: Sequence[int], threads: int) -> None:
        self._target = target
        self._name = f"{key}.npy".encode("ascii")
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": tuple(int(n) for n in shape)}
        )
        self._expected = len(header.getvalue()) + 4 * math.prod(shape)
        self._size = self._compressed = self._checksum = 0
        self._executor = ThreadPoolExecutor(max(1, threads), thread_name_prefix="deflate")
        self._waiting: deque[Future[bytes]] = deque()
        self._most_waiting = 2 * max(1, threads)
        target.write(self._local_header())
        self._put(memoryview(header.getvalue()))

    def __enter__(self) -> NpzStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def write(self, values: NDArray[np.float32]) -> None:
        """Append values in C order. They are compressed when this returns, so the array may be used again."""
        flat = np.ascontiguousarray(values, "<f4").reshape(-1).data.cast("B")
        for start in range(0, len(flat), _BLOCK):
            self._put(flat[start : start + _BLOCK])
        self._take_all()

    def finish(self) -> None:
        """Write the directory and the header's sizes."""
        self._take_all()
        if self._size != self._expected:
            raise ValueError(f"{self._size} bytes were written to an array of {self._expected}")
        self._target.write(_FINAL)
        self._compressed += len(_FINAL)
        self._target.write(self._directory(self._target.tell()))
        self._target.seek(0)
        self._target.write(self._local_header())

    def _put(self, block: memoryview) -> None:
        self._size += len(block)
        self._waiting.append(self._executor.submit(_deflate, block))
        self._checksum = zlib.crc32(block, self._checksum)
        if len(self._waiting) > self._most_waiting:
            self._take()

    def _take_all(self) -> None:
        while self._waiting:
            self._take()

    def _take(self) -> None:
        compressed = self._waiting.popleft().result()
        self._target.write(compressed)
        self._compressed += len(compressed)

    def _description(self) -> bytes:
        """What both headers say of the member: no flags, deflated, its date, sum and sizes, the name's length."""
        date = struct.pack("<HH", 0, _JANUARY_1980)
        return struct.pack("<HH", 0, 8) + date + struct.pack("<LLL", self._checksum, _UNKNOWN, _UNKNOWN)

    def _local_header(self) -> bytes:
        extra = struct.pack("<HHQQ", 1, 16, self._size, self._compressed)
        lengths = struct.pack("<HH", len(self._name), len(extra))
        return b"PK\x03\x04" + struct.pack("<H", _VERSION) + self._description() + lengths + self._name + extra

    def _directory(self, start: int) -> bytes:
        """The central directory, which begins at byte `start`, with its ends of 64 and 32 bits."""
        extra = struct.pack("<HHQQ", 1, 16, self._size, self._compressed)
        unix, readable = 3, 0o644 << 16
        entry = (
            b"PK\x01\x02"
            + struct.pack("<BBH", _VERSION, unix, _VERSION)
            + self._description()
            + struct.pack("<HHHHHLL", len(self._name), len(extra), 0, 0, 0, readable, 0)
            + self._name
            + extra
        )
        end64 = b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, _VERSION, _VERSION, 0, 0, 1, 1, len(entry), start)
        locator = b"PK\x06\x07" + struct.pack("<LQL", 0, start + len(entry), 1)
        end = b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, 1, 1, len(entry), min(start, _UNKNOWN), 0)
        return entry + end64 + locator + end


def _deflate(block: memoryview) -> bytes:
    """A raw deflate stream without an end, flushed to a byte boundary.

    Probabilities are noise in all but their leading bits: Huffman codes and runs of equal bytes make them as small as
    a search for repetitions, three times faster. Constant blocks (background outside the crop) are worth the search.
    """
    values: NDArray[Any] = np.frombuffer(block, np.uint8)
    words = values[: len(values) // 4 * 4].view(np.uint32)
    constant = len(words) > 0 and bool((words == words[0]).all())
    strategy = zlib.Z_DEFAULT_STRATEGY if constant else zlib.Z_RLE
    compressor = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    return compressor.compress(block) + compressor.flush(zlib.Z_FULL_FLUSH)
