"""Chunks, blocks and filter of stored arrays: reading a patch should decompress little more than the patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from nnunet_lite.utilities.logging import logger

Shape4 = tuple[int, int, int, int]
_FILTER_SAMPLE = 2**16  # bytes compressed to choose a filter; with a chunk the choice would take as long as the case


def comp_blosc2_params(
    image_size: Sequence[int],
    patch_size: Sequence[int],
    bytes_per_pixel: int = 4,
    max_block_nbytes: int = 131072,
    max_chunk_nbytes: int = 6291456,
    max_chunk_to_patch_ratio_per_axis: float | None = 1.5,
    grow_singleton_patch_axes: bool = False,
) -> tuple[Shape4, Shape4]:
    """Block and chunk shape of an array (spec 01, 7.8, nnU-Net v2 2.8.1 behaviour).

    A block is what one core decompresses at once, a chunk what is read at once.

    Args:
        image_size: (c, x, y, z).
        patch_size: patch edges, two for 2d.
        bytes_per_pixel: of one value.
        max_chunk_to_patch_ratio_per_axis: how far a chunk may exceed the patch; None for no limit.
        grow_singleton_patch_axes: let chunks grow along axes where the patch is one voxel thick.

    Returns:
        Blocks and chunks, both (1, x, y, z).

    Raises:
        ValueError: not four sizes, not two or three patch edges, or a size below one.
    """
    if len(image_size) != 4 or len(patch_size) not in (2, 3) or min(*image_size, *patch_size, bytes_per_pixel) < 1:
        raise ValueError(
            f"image size {tuple(image_size)} and patch size {tuple(patch_size)}: expected four and two or "
            "three sizes of at least 1"
        )
    is_2d = len(patch_size) == 2
    patch = [1, *patch_size] if is_2d else list(patch_size)
    image = [int(size) for size in image_size[1:]]
    ratio = max_chunk_to_patch_ratio_per_axis
    limit = [
        size if ratio is None else max(1, min(size, math.floor(ratio * edge)))
        for size, edge in zip(image, patch, strict=True)
    ]
    block = _block(image, patch, limit, max_block_nbytes // bytes_per_pixel)
    may_grow = [
        (edge > 1 or grow_singleton_patch_axes) and not (is_2d and axis == 0 and not grow_singleton_patch_axes)
        for axis, edge in enumerate(patch)
    ]
    chunk = _chunk(image, limit, block, may_grow, max_chunk_nbytes // bytes_per_pixel)
    return (1, block[0], block[1], block[2]), (1, chunk[0], chunk[1], chunk[2])


def _block(image: list[int], patch: list[int], limit: list[int], max_voxels: int) -> list[int]:
    """Start from the patch rounded up to powers of two; halve the axis that is longest relative to its limit."""
    block = [min(1 << (int(edge) - 1).bit_length(), size) for edge, size in zip(patch, image, strict=True)]
    while math.prod(block) > max_voxels and max(block) > 1:
        axis = max((a for a in range(3) if block[a] > 1), key=lambda a: (block[a] / limit[a], a))
        block[axis] = 1 << ((block[axis] - 1).bit_length() - 1)
    return block


def _chunk(image: list[int], limit: list[int], block: list[int], may_grow: list[bool], max_voxels: int) -> list[int]:
    """Grow from one block, always the axis that is shortest relative to its limit."""
    chunk = list(block)
    while True:
        candidates = []
        for axis in range(3):
            if may_grow[axis] and chunk[axis] < image[axis] and chunk[axis] < limit[axis]:
                grown = list(chunk)
                grown[axis] = min(chunk[axis] + block[axis], image[axis], limit[axis])
                if math.prod(grown) <= max_voxels:
                    candidates.append(((chunk[axis] / limit[axis], -image[axis], axis), grown))
        if not candidates:
            return chunk
        chunk = min(candidates)[1]


def select_filter(
    array: NDArray[Any], blocks: Sequence[int], chunks: Sequence[int], codec: blosc2.Codec, clevel: int
) -> blosc2.Filter:
    """Byte shuffling or nothing, whichever makes a centred sample of up to 64 KiB smaller; nothing on a tie."""
    shape = [min(size, chunk) for size, chunk in zip(array.shape, chunks, strict=True)]
    while math.prod(shape) * array.itemsize > _FILTER_SAMPLE and max(shape) > 1:
        divisible = [axis for axis, edge in enumerate(shape) if edge > 1]
        longest = max(divisible, key=lambda axis: shape[axis] / blocks[axis])
        shape[longest] = (shape[longest] + 1) // 2
    starts = [(size - edge) // 2 for size, edge in zip(array.shape, shape, strict=True)]
    sample = np.ascontiguousarray(array[tuple(slice(s, s + n) for s, n in zip(starts, shape, strict=True))])
    sizes: list[tuple[int, int]] = []
    choices = (blosc2.Filter.NOFILTER, blosc2.Filter.SHUFFLE)
    try:
        for number, choice in enumerate(choices):
            compressed = blosc2.compress2(
                sample, codec=codec, clevel=clevel, filters=[choice], typesize=array.itemsize, nthreads=1
            )
            sizes.append((len(compressed), number))
    except RuntimeError as error:
        logger.warning("The compression filter could not be chosen by trial (%s); none is used", error)
        return choices[0]
    return choices[min(sizes)[1]]
