"""Memory that worker processes share with the training: arrays of batches, and a line about what each worker does."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import struct
import time
from io import BytesIO
from multiprocessing import reduction
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNMENT = 64  # bytes between arrays in shared memory
_PINNED_FROM = 2**16  # bytes; page-locking smaller arrays costs more than it saves
_NOTE = 256  # bytes of a worker's note: when it was made, its length, its text
_HEAD = struct.Struct("<dH")


class Packed(NamedTuple):
    """A pickle whose arrays lie in shared memory (first byte and length of each), or follow in `arrays`."""

    structure: bytes
    spans: list[tuple[int, int]]
    arrays: list[bytes] | None


class _TensorPickler(pickle.Pickler):
    """Pickles tensors as numpy arrays, which travel outside of the pickle."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return torch.from_numpy, (obj.detach().contiguous().numpy(),)
        return NotImplemented


class Slots:
    """Equal parts of a shared memory, one per batch on its way, and behind them a note of each worker.

    Args:
        number: of slots.
        capacity: bytes of each.
        workers: number of notes.
    """

    def __init__(self, number: int, capacity: int, workers: int) -> None:
        self.capacity = capacity
        self._notes = number * capacity
        self.memory = SharedMemory(self._notes + workers * _NOTE)

    def pack(self, slot: int, value: Any) -> Packed:
        """Put a value's arrays into a slot; what does not fit travels with the message."""
        buffers: list[pickle.PickleBuffer] = []
        stream = BytesIO()
        _TensorPickler(stream, protocol=5, buffer_callback=buffers.append).dump(value)
        views = [buffer.raw() for buffer in buffers]
        spans, position = [], slot * self.capacity
        for view in views:
            spans.append((position, view.nbytes))
            position += -(-view.nbytes // _ALIGNMENT) * _ALIGNMENT
        if position > (slot + 1) * self.capacity:
            return Packed(stream.getvalue(), [], [bytes(view) for view in views])
        for (first, length), view in zip(spans, views, strict=True):
            self.memory.bytes[first : first + length] = np.frombuffer(view, np.uint8)
        return Packed(stream.getvalue(), spans, None)

    def unpack(self, slot: int, packed: Packed, pin: bool = False) -> Any:
        """A copy of what lies in a slot; with `pin` in page-locked memory, from which a GPU copies by itself."""
        if packed.arrays is not None:
            buffers: list[Any] = [bytearray(array) for array in packed.arrays]
        else:
            buffers = [_copy(self.memory.bytes[first : first + length], pin) for first, length in packed.spans]
        return ForkingPickler.loads(packed.structure, buffers=buffers)

    def write_note(self, worker: int, text: str) -> None:
        """Called by a worker; a reader may see half of the old and half of the new text, which does no harm."""
        content = text.encode()[: _NOTE - _HEAD.size]
        record = _HEAD.pack(time.monotonic(), len(content)) + content
        first = self._notes + worker * _NOTE
        self.memory.bytes[first : first + len(record)] = np.frombuffer(record, np.uint8)

    def read_note(self, worker: int) -> tuple[str, float]:
        """What a worker does and for how many seconds; empty before its first note."""
        first = self._notes + worker * _NOTE
        record = self.memory.bytes[first : first + _NOTE].tobytes()
        if len(record) < _NOTE:  # closed
            return "", 0.0
        since, length = _HEAD.unpack_from(record)
        text = record[_HEAD.size : _HEAD.size + length].decode(errors="replace")
        return text, max(0.0, time.monotonic() - since) if text else 0.0


def _copy(span: NDArray[np.uint8], pin: bool) -> Any:
    if not pin or span.nbytes < _PINNED_FROM:
        return span.copy()
    return torch.empty(span.nbytes, dtype=torch.uint8, pin_memory=True).copy_(torch.from_numpy(span)).numpy()


class SharedMemory:
    """Anonymous memory shared with processes started from this one; it goes away with the last of them.

    On Linux it is not bound by the size of /dev/shm, which is 64 MiB in many containers.
    """

    def __init__(self, size: int, handle: Any = None) -> None:
        self._size = size
        if hasattr(os, "memfd_create"):
            self._handle = os.memfd_create("nnunet_lite") if handle is None else handle
            if handle is None:
                os.ftruncate(self._handle, size)
            self._map: Any = mmap.mmap(self._handle, size)
        else:
            self._handle = self._map = multiprocessing.RawArray("b", size) if handle is None else handle
        self.bytes: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)

    def __reduce__(self) -> Any:
        duplicate = reduction.DupFd(self._handle) if hasattr(os, "memfd_create") else self._handle
        return _attach, (self._size, duplicate)

    def close(self) -> None:
        """Let go of the memory on this side; may be called more than once."""
        self.bytes = np.empty(0, np.uint8)
        if isinstance(self._handle, int) and self._map is not None:
            os.close(self._handle)
        self._handle = self._map = None


def _attach(size: int, handle: Any) -> SharedMemory:
    return SharedMemory(size, handle.detach() if hasattr(handle, "detach") else handle)
