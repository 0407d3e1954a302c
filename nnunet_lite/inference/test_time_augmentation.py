"""Mirroring at prediction time: the mean over an image and its mirror images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from nnunet_lite.exceptions import ArgumentError


def mirror_combinations(axes: Sequence[int] | None) -> list[tuple[int, ...]]:
    """Sets of spatial axes to flip, the untouched image first, then by size (nnU-Net v2 2.8.1 behaviour).

    (0, 1, 2) gives (), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2); None and () give [()].
    """
    axes = tuple(axes or ())
    return [chosen for size in range(len(axes) + 1) for chosen in combinations(axes, size)]


def predict_mirrored(
    network: Callable[[Tensor], Tensor],
    tiles: Tensor,
    combinations_of_axes: Sequence[tuple[int, ...]] = ((),),
    images_per_pass: int = 1,
) -> Tensor:
    """Mean prediction over mirrored copies, each flipped back.

    Args:
        network: (b, c, *spatial) -> (b, heads, *spatial).
        tiles: (b, c, *spatial).
        combinations_of_axes: spatial axes to flip, see `mirror_combinations`.
        images_per_pass: the network gets at most this many images at once, so that several mirrored copies may share
            a pass.

    Returns:
        (b, heads, *spatial) in float32; it may be what the network returned.

    Raises:
        ArgumentError: an axis the tiles do not have.
    """
    highest = max((axis for axes in combinations_of_axes for axis in axes), default=-1)
    if highest > tiles.ndim - 3:
        raise ArgumentError(
            f"Mirroring axis {highest} was asked for, but a patch has axes 0 to {tiles.ndim - 3}; "
            "correct inference_allowed_mirroring_axes"
        )
    copies_per_pass = max(1, images_per_pass // len(tiles))
    total: Tensor | None = None
    for start in range(0, len(combinations_of_axes), copies_per_pass):
        chosen = [tuple(axis + 2 for axis in axes) for axes in combinations_of_axes[start : start + copies_per_pass]]
        copies = [tiles.flip(axes) if axes else tiles for axes in chosen]
        outputs = network(torch.cat(copies) if len(copies) > 1 else copies[0]).float()
        for number, axes in enumerate(chosen):
            output = outputs[number * len(tiles) : (number + 1) * len(tiles)]
            restored = output.flip(axes) if axes else output
            if total is None:  # the first of several is added to, and a network may return what it was given
                total = restored.clone() if len(combinations_of_axes) > 1 else restored
            else:
                total.add_(restored)
    if total is None:
        raise ArgumentError("No set of mirroring axes was given; pass [()] for none")
    return total.div_(len(combinations_of_axes)) if len(combinations_of_axes) > 1 else total
