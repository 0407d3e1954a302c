"""Brings batches to the device while it computes: copies and augmentation on a stream of their own.

The host launches a training step without waiting for it, so it asks for the next batch while the step runs. What the
batch needs of the GPU (copies from page-locked memory, augmentation) then overlaps with the step; the stream that
computes waits for the batch on the device, never the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_ON_DEVICE = ("data", "target")  # what a step computes with


class DeviceFeed:
    """Draws batches and brings their `data` and `target` to a device; on other devices than CUDA it only draws."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = None

    def draw(self, draw: Callable[[], Any]) -> Any:
        """The batch that `draw` returns, ready for use on the current stream."""
        if self._device.type != "cuda":
            return draw()
        if self._stream is None:
            make_stream: Any = torch.cuda.Stream  # untyped in torch
            self._stream = make_stream(self._device)
        with torch.cuda.stream(self._stream):
            batch = draw()
            if isinstance(batch, dict):
                batch = {key: self._moved(value) if key in _ON_DEVICE else value for key, value in batch.items()}
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._stream)
        for key in _ON_DEVICE:
            _keep_until_used(batch.get(key) if isinstance(batch, dict) else None, computing)
        return batch

    def _moved(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(self._device, non_blocking=True)
        return [self._moved(one) for one in value] if isinstance(value, list) else value


def _keep_until_used(value: Any, stream: Any) -> None:
    """Tell the allocator that memory of the feeding stream is in use on another one."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, Tensor) and one.is_cuda:
            one.record_stream(stream)
