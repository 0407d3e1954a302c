"""Bytes of the sums over an image's tiles: of the whole image, of a band; and when which of them is held.

The one estimate for all who ask: whether a GPU has room, whether bands are needed, what a case will take. No torch in
here; a test compares with what is really allocated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nnunet_lite.configuration import BANDED_PREDICTION_BYTES
from nnunet_lite.utilities.memory import available_memory

PIECE = 2**24  # logits of a band that are divided, rounded and handed on at once: 32 MiB in half precision
_COPIES_OF_PIECE = 4  # of half precision: the mean of several members, the piece, what a later piece is joined with
_LARGE_PLANE = 2**26  # logits of one plane: 128 MiB in half precision
_SHARE = 6  # of the memory there is: logits that wait, their reduction and the network are beside the sums


def padded_shape(shape: Sequence[int], patch_size: Sequence[int]) -> tuple[int, ...]:
    """Shape (x, y, z) of an image that was padded to at least the patch of its last two or three axes."""
    flat = len(shape) - len(patch_size)
    edges = (max(edge, tile) for edge, tile in zip(shape[flat:], patch_size, strict=True))
    return (*(int(edge) for edge in shape[:flat]), *(int(edge) for edge in edges))


@dataclass(frozen=True)
class MemoryOfSums:
    """What is held while tiles are summed, beside the image, the network and the output of its pass.

    Mirrored copies add nothing: their mean is taken within the pass.

    Args:
        shape: (x, y, z) of the image in network space, not padded.
        patch_size: 2 or 3 edges of a tile.
        heads: output channels of the network.
        members: of the ensemble. As a whole their sums are made one after the other, in bands side by side.
        bytes_per_sum: 2 or 4.
    """

    shape: tuple[int, ...]
    patch_size: tuple[int, ...]
    heads: int
    members: int = 1
    bytes_per_sum: int = 2

    @property
    def padded_voxels(self) -> int:
        """Voxels of the padded image."""
        return math.prod(padded_shape(self.shape, self.patch_size))

    def image(self, channels: int) -> int:
        """The padded image (c, x, y, z) in float32."""
        return 4 * channels * self.padded_voxels

    @property
    def logits(self) -> int:
        """The result without padding, in half precision."""
        return 2 * self.heads * math.prod(self.shape)

    @property
    def whole(self) -> int:
        """Sums of the whole image at their most: those of a member beside the mean of those before, and weights.

        Sums in float32 become logits in half precision beside them.
        """
        one = self.heads * self.bytes_per_sum * self.padded_voxels
        rounded = 0 if self.bytes_per_sum == 2 else self.logits
        return self._weights(self.padded_voxels) + max(one * min(self.members, 2), one + rounded)

    def band(self, *, lines: bool, tiles_per_pass: int = 1) -> int:
        """Sums of a band at their most, and the pieces that leave it.

        Args:
            lines: a band is a range of lines of one plane, else a range of planes; see `bands_are_lines`.
            tiles_per_pass: passes of several tiles may reach into the next row of tiles.
        """
        x, y, z = padded_shape(self.shape, self.patch_size)
        patch = (1, *self.patch_size)[-3:]
        if lines:
            edge, tile, width = x * y, patch[1], z
            others = math.ceil(max(0, z - patch[2]) / patch[2]) + 1  # at least so many tiles begin at the same line
        else:
            edge, tile, width = x, patch[0], y * z
            others = math.prod(math.ceil(max(0, e - t) / t) + 1 for e, t in zip((y, z), patch[1:], strict=True))
        height = min(edge, tile * (1 + math.ceil((tiles_per_pass - 1) / others)))
        logits = self.heads * height * width
        weights = self._weights(min(edge, 2 * height) * width)  # of all tiles that touch the band
        return self.bytes_per_sum * self.members * logits + weights + 2 * _COPIES_OF_PIECE * min(PIECE, logits)

    def _weights(self, voxels: int) -> int:
        """Of every voxel the sum of its weights, and for half precision a factor of two bytes."""
        return (4 if self.bytes_per_sum == 2 else self.bytes_per_sum) * voxels


def most_bytes_of_sums(max_ram: int | None = None) -> int:
    """Sums up to this size are held for the whole image; larger ones band by band.

    Args:
        max_ram: bytes that all of the prediction may take; None: what is free.
    """
    free = available_memory()
    return min(BANDED_PREDICTION_BYTES, (free if max_ram is None else min(free, max_ram)) // _SHARE)


def bands_are_lines(patch_size: Sequence[int], heads: int, before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether bands are lines of one plane: tiles are flat, planes large, and each becomes one plane of the result.

    Args:
        before, after: shape (x, y, z) of the logits, and of the labels they become.
    """
    larger = max(math.prod(before[1:]), math.prod(after[1:]))
    return len(patch_size) == 2 and before[0] == after[0] and heads * larger > _LARGE_PLANE
