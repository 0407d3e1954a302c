"""Voxels and headers of plain NIfTI-1 files, decoded with numpy and zlib.

Why not leave this to ITK: it reads a truncated .nii.gz without complaint and fills the rest with zeros, and it takes
three times as long. Here the checksum of the gzip stream is verified. Geometry is not interpreted in this module.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError

_HEADER_SIZE = 348
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's code for "a gzip stream"
_BLOCK = 2**20
_RIGHT_ANGLE = 1e-6  # cosines of rounded directions stay below
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}


class NiftiHeader(NamedTuple):
    """The fields needed to find and interpret the voxels."""

    shape: tuple[int, ...]  # slowest axis first, no trailing dimensions of length 1 beyond the third
    spacing: tuple[float, ...]  # of each axis of `shape`
    dtype: np.dtype[Any]
    offset: int  # of the first voxel in the (uncompressed) file
    scaled: bool  # stored values are not the values meant
    plain: bool  # millimetres, positive spacing, right angles: whatever reads it understands the same


def is_nifti(file: str) -> bool:
    """Whether the name is that of a single-file NIfTI image."""
    return file.lower().endswith((".nii", ".nii.gz"))


def read_header(file: str) -> NiftiHeader | None:
    """Header of a NIfTI-1 file; None if it is anything that should be left to a full-grown library.

    Raises:
        DatasetError: the file cannot be opened or is no gzip stream although its name says so.
    """
    return _parse(_start(file))


def raw_header(file: str) -> bytes | None:
    """The 348 bytes at the start of a NIfTI-1 file, None for anything else. Raises DatasetError as read_header."""
    start = _start(file) if is_nifti(file) else b""
    return start[:_HEADER_SIZE] if start[344:348] == b"n+1\0" else None


def is_nifti2(file: str) -> bool:
    """Whether the file is in the newer form of the format, which has another header. Raises DatasetError."""
    return is_nifti(file) and _start(file)[:4] in (struct.pack("<i", 540), struct.pack(">i", 540))


def _start(file: str) -> bytes:
    try:
        with Path(file).open("rb") as stream:
            start = stream.read(4096)
    except OSError as error:
        raise DatasetError(f"{file} cannot be opened: {os.strerror(error.errno or 0)}") from error
    if start[:2] == _GZIP_MAGIC:
        try:
            start = zlib.decompressobj(_GZIP_WINDOW).decompress(start, _HEADER_SIZE + 4)
        except zlib.error as error:
            raise _damaged(file, str(error)) from error
    return start


def _parse(content: bytes) -> NiftiHeader | None:
    if len(content) < _HEADER_SIZE or content[344:348] != b"n+1\0":
        return None
    order = next((o for o in "<>" if struct.unpack_from(o + "i", content)[0] == _HEADER_SIZE), None)
    if order is None:
        return None
    dim = struct.unpack_from(order + "8h", content, 40)
    code = struct.unpack_from(order + "h", content, 70)[0]
    pixdim = struct.unpack_from(order + "8f", content, 76)
    offset, slope, inter = struct.unpack_from(order + "3f", content, 108)
    rank = dim[0]
    while 3 < rank <= 7 and dim[rank] == 1:
        rank -= 1
    if code not in _TYPES or not 2 <= rank <= 4 or min(dim[1 : rank + 1]) < 1 or offset < _HEADER_SIZE:
        return None
    return NiftiHeader(
        tuple(reversed(dim[1 : rank + 1])),
        tuple(abs(float(step)) for step in reversed(pixdim[1 : rank + 1])),
        np.dtype(order + _TYPES[code]),
        int(offset),
        not (slope in (0.0, 1.0) and inter == 0.0),
        content[123] & 7 in (0, 2) and min(pixdim[1 : rank + 1][:3]) > 0 and _has_right_angles(order, content),
    )


def _has_right_angles(order: str, content: bytes) -> bool:
    if struct.unpack_from(order + "h", content, 254)[0] <= 0:
        return True  # quaternions cannot say anything else
    directions = np.array(struct.unpack_from(order + "12f", content, 280)).reshape(3, 4)[:, :3]
    lengths = np.linalg.norm(directions, axis=0)
    if not (np.isfinite(lengths).all() and lengths.min() > 0):
        return False
    directions /= lengths
    return bool(np.abs(directions.T @ directions - np.eye(3)).max() < _RIGHT_ANGLE)


def read_voxels(file: str, header: NiftiHeader) -> NDArray[Any]:
    """All voxels in their stored type and the shape of the header; the checksum of a compressed file is verified.

    Raises:
        DatasetError: the file is damaged or shorter than its header says.
    """
    size = header.offset + int(np.prod(header.shape, dtype=np.int64)) * header.dtype.itemsize
    content = Path(file).read_bytes()
    if content[:2] == _GZIP_MAGIC:
        content = _decompress(file, content, size)
    if len(content) < size:
        raise _damaged(file, f"{len(content)} bytes where its header needs {size}")
    count = int(np.prod(header.shape, dtype=np.int64))
    voxels = np.frombuffer(content, dtype=header.dtype, count=count, offset=header.offset)
    return voxels.astype(header.dtype.newbyteorder("="), copy=False).reshape(header.shape)


def _decompress(file: str, content: bytes, expected: int) -> bytes:
    """Everything in a gzip file, which may consist of several streams one after the other."""
    parts = []
    try:
        while content[:2] == _GZIP_MAGIC:
            stream = zlib.decompressobj(_GZIP_WINDOW)
            parts.append(stream.decompress(content, max(expected, _BLOCK)))
            parts.append(stream.decompress(stream.unconsumed_tail) if stream.unconsumed_tail else stream.flush())
            if not stream.eof:
                raise _damaged(file, "the compressed data end too early")
            content = stream.unused_data
    except zlib.error as error:
        raise _damaged(file, str(error)) from error
    return parts[0] if len(parts) == 2 and not parts[1] else b"".join(parts)


def require_intact_gzip(file: str) -> None:
    """Decompress a .gz file piece by piece and raise DatasetError unless it is complete and its checksum is right."""
    with Path(file).open("rb") as source:
        if source.read(2) != _GZIP_MAGIC:
            return
    try:
        with gzip.open(file) as stream:
            while stream.read(_BLOCK):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(file, str(error)) from error


def is_complete(file: str) -> bool:
    """Whether a file just written is as long as its header says, by its size or by the last field of its gzip stream.

    Needed because ITK does not report that the disk is full.
    """
    header = read_header(file)
    if header is None:
        return False
    expected = header.offset + int(np.prod(header.shape, dtype=np.int64)) * header.dtype.itemsize
    with Path(file).open("rb") as stream:
        if stream.read(2) != _GZIP_MAGIC:
            return Path(file).stat().st_size == expected
        stream.seek(-4, os.SEEK_END)
        length: int = struct.unpack("<I", stream.read(4))[0]
    return length == expected % 2**32


def _damaged(file: str, reason: str) -> DatasetError:
    return DatasetError(f"{file} is truncated or damaged ({reason}); replace it with an intact copy")
