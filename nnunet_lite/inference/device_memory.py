"""What a device's memory holds: found once, by estimate or by failing, and kept for the cases that follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from nnunet_lite.utilities.device import empty_cache, free_memory
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.memory import format_size

Weights = Mapping[str, Any]  # of a network, by name

_SHARE_OF_SUMS = 0.7  # of the free memory; the rest is for the network
_SHARE_OF_WEIGHTS = 0.2
_GROWTH = 1.5  # of the free memory: another program has ended; a predictor in a service may live for weeks


class DeviceMemory:
    """Limits that were met and weights that stay on the device; one for all cases of a predictor.

    Attributes:
        images_per_pass: most images of a pass of the network; None as long as memory sufficed.
        too_large_sums: bytes; sums of that size and more are kept in main memory, until much more becomes free.
    """

    def __init__(self) -> None:
        self.images_per_pass: int | None = None
        self.too_large_sums: int | None = None
        self._free_then: int | None = None  # bytes, when sums were too large
        self._resident: dict[int, tuple[Weights, Weights]] = {}  # by id: a member's weights, their copy on the device

    def holds_sums(self, size: int, device: torch.device) -> bool:
        """Whether sums of so many bytes fit on a device beside the network."""
        free = free_memory(device)
        if self.too_large_sums is not None and size >= self.too_large_sums and not self._has_grown(free):
            return False
        if free is None or size <= _SHARE_OF_SUMS * free:
            return True
        self.refuse_sums(size, device, f"{format_size(free)} are free")
        return False

    def refuse_sums(self, size: int, device: torch.device, reason: str) -> None:
        """Remember, and say, that sums of so many bytes go to main memory; passes may be large again."""
        self._resident.clear()
        self.images_per_pass = None
        empty_cache(device)
        self.too_large_sums, self._free_then = size, free_memory(device)
        elsewhere = "they are kept in main memory or cut into bands, which is slower"
        remedy = "trying once more" if device.type == "cpu" else elsewhere  # a CPU's are there already
        message = "Memory of %s: image and sums of %s are too much (%s), %s"
        logger.warning(message, device, format_size(size), reason, remedy)

    def _has_grown(self, free: int | None) -> bool:
        """Whether so much more is free than when sums were too large that it is worth another try."""
        return free is not None and self._free_then is not None and free > _GROWTH * self._free_then

    def resident(self, member: Weights, device: torch.device) -> Weights:
        """A member's weights on the device, where there is room for them, else as they are.

        An ensemble's members take turns for every image; from main memory that is a copy over the bus each time.
        """
        if device.type == "cpu" or id(member) in self._resident:
            return self._resident.get(id(member), (member, member))[1]
        size = sum(tensor.nbytes for tensor in member.values())
        free = free_memory(device)
        if free is None or size > _SHARE_OF_WEIGHTS * free:
            return member
        copy = {name: tensor.to(device) for name, tensor in member.items()}
        self._resident[id(member)] = member, copy
        return copy
