"""Prediction of a whole image from overlapping tiles: where they lie, how they are weighted, their running sum.

Tensors only: nothing here knows files, plans or labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nnunet_lite.exceptions import ArgumentError, NumericalError
from nnunet_lite.inference.memory_of_sums import padded_shape

HALF_MAX = 65504.0  # largest number of half precision; logits beyond it are cut off
_BLOCK = 2**19  # predictions weighted and added at once on a CPU: what they touch stays in the cache
_SCALED = 2**20  # factors found at once, which takes ten times their memory
_PASSES_UNSEEN = 64  # passes of an accelerator whose outputs have not been looked at; looking makes it wait

Window = tuple[slice, ...]  # spatial index of a tile; a 2D tile has a slice of length 1 along the first axis


class TileNotANumber(NumericalError):
    """The network put out NaN or infinity for a tile."""

    def __init__(self, tile: Window) -> None:
        described = ", ".join(f"{part.start}:{part.stop}" for part in tile)
        super().__init__(
            f"the network put out NaN or infinity for the tile [{described}] of the padded image in network space; "
            "look for NaN in the image, or predict with --precision float32"
        )
        self.tile = tile


def compute_steps_for_sliding_window(
    image_size: Sequence[int], tile_size: Sequence[int], tile_step_size: float
) -> list[list[int]]:
    """First index of every tile per axis, evenly spread (nnU-Net v2 2.8.1 behaviour).

    Args:
        image_size: voxels per axis, at least those of the tile.
        tile_size: voxels per axis.
        tile_step_size: longest step as a part of the tile, in (0, 1].

    Raises:
        ArgumentError: a step outside (0, 1], or an image smaller than the tile.
    """
    if not 0 < tile_step_size <= 1:
        raise ArgumentError(f"tile step size {tile_step_size}: expected a part of the patch size, above 0, at most 1")
    if any(image < tile for image, tile in zip(image_size, tile_size, strict=True)):
        raise ArgumentError(f"An image of {tuple(image_size)} is smaller than a tile of {tuple(tile_size)}; pad it")
    steps = []
    for image, tile in zip(image_size, tile_size, strict=True):
        count = math.ceil((image - tile) / (tile * tile_step_size)) + 1
        step = (image - tile) / (count - 1) if count > 1 else 0.0
        steps.append([int(np.round(step * i)) for i in range(count)])
    return steps


@lru_cache(maxsize=4)
def _gaussian(tile_size: tuple[int, ...], sigma_scale: float, value_scaling_factor: float) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.array(value_scaling_factor, dtype=np.float64)
    for size in tile_size:
        offset = (np.arange(size) - size // 2) / (size * sigma_scale)
        weights = weights[..., None] * np.exp(-0.5 * offset**2)
    return weights


def compute_gaussian(
    tile_size: Sequence[int],
    sigma_scale: float = 1.0 / 8,
    value_scaling_factor: float = 1,
    dtype: torch.dtype = torch.float16,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Weights of a tile's voxels, largest in the middle, never zero (nnU-Net v2 2.8.1 behaviour).

    The closed form of the filtered unit impulse: bit-identical after the rounding to half precision.

    Args:
        tile_size: 2 or 3 edges in voxels.
        sigma_scale: standard deviation as a part of the edge.
        value_scaling_factor: the largest weight.
        dtype: values that become zero in it are replaced by the smallest that does not.
    """
    exact = torch.from_numpy(_gaussian(tuple(int(n) for n in tile_size), sigma_scale, value_scaling_factor))
    weights = exact.to(dtype)
    weights[weights == 0] = weights[weights > 0].min()
    return weights.to(device)


def sliding_windows(image_size: Sequence[int], tile_size: Sequence[int], tile_step_size: float) -> list[Window]:
    """Every tile of an image (x, y, z) in order; the last axis runs fastest.

    A tile of two axes goes through every slice of the first axis of the image.

    Raises:
        ArgumentError: see `compute_steps_for_sliding_window`; or a tile with neither two nor three axes.
    """
    if len(image_size) != 3 or len(tile_size) not in (2, 3):
        raise ArgumentError(f"Tiles of {len(tile_size)} axes do not fit an image of {len(image_size)} axes")
    full_tile = (1,) * (3 - len(tile_size)) + tuple(tile_size)
    steps = compute_steps_for_sliding_window(image_size[3 - len(tile_size) :], tile_size, tile_step_size)
    if len(tile_size) == 2:
        steps = [list(range(image_size[0])), *steps]
    return [
        tuple(slice(start, start + edge) for start, edge in zip((x, y, z), full_tile, strict=True))
        for x in steps[0]
        for y in steps[1]
        for z in steps[2]
    ]


def pad_to_tile(image: Tensor, tile_size: Sequence[int]) -> tuple[Tensor, Window]:
    """Pad (c, x, y, z) with zeros to at least the tile size; the odd voxel goes to the end of an axis.

    Returns:
        The padded image, and the index (spatial axes) of the original within it.
    """
    spatial = image.shape[1:]
    missing = [edge - size for edge, size in zip(padded_shape(spatial, tile_size), spatial, strict=True)]
    before = [number // 2 for number in missing]
    after = [number - low for number, low in zip(missing, before, strict=True)]
    original = tuple(slice(low, low + size) for low, size in zip(before, spatial, strict=True))
    if any(before) or any(after):
        widths = [width for pair in zip(reversed(before), reversed(after), strict=True) for width in pair]
        image = F.pad(image, widths)
    return image, original


@dataclass(frozen=True)
class SlidingWindow:
    """The tiles of an image, their weights, and what is needed to sum predictions over them.

    Args:
        image_size: spatial shape of the padded image.
        tile_size: 2 or 3 edges.
        windows: index of every tile.
        weights: of a tile's voxels, shape of a full (three-axis) tile.
    """

    image_size: tuple[int, ...]
    tile_size: tuple[int, ...]
    windows: list[Window]
    weights: Tensor

    @staticmethod
    def over(
        image_size: Sequence[int],
        tile_size: Sequence[int],
        tile_step_size: float,
        use_gaussian: bool,
        device: torch.device,
    ) -> SlidingWindow:
        """Tiles over an image of at least the tile's size; upstream's weights, or 1."""
        windows = sliding_windows(image_size, tile_size, tile_step_size)
        full_tile = (1,) * (3 - len(tile_size)) + tuple(tile_size)
        weights = torch.ones(full_tile, dtype=torch.float16, device=device)
        if use_gaussian:
            weights = compute_gaussian(tile_size, value_scaling_factor=10, device=device).reshape(full_tile)
        return SlidingWindow(tuple(image_size), tuple(tile_size), windows, weights)

    def total_weight(self, dtype: torch.dtype) -> Tensor:
        """Sum of the weights of all tiles at every voxel, (x, y, z)."""
        total = torch.zeros(self.image_size, dtype=dtype, device=self.weights.device)
        for window in self.windows:
            total[window] += self.weights
        return total

    def batches(self, tiles_per_pass: int) -> Iterator[list[Window]]:
        """The windows in order, in groups."""
        for start in range(0, len(self.windows), tiles_per_pass):
            yield self.windows[start : start + tiles_per_pass]


def bounding_scale(weight: Tensor) -> Tensor:
    """Powers of two, one per voxel, that keep sums in half precision within its range whatever the logits are.

    With its weights scaled so, a voxel's sum is at most its largest logit. A power of two changes no rounding: what is
    summed has the digits that it has upstream, also where upstream's sums overflow. Only weights above 1 are scaled
    down: near the image's corners, where weights are tiny, sums keep upstream's few digits.

    Args:
        weight: total weight (x, y, z), see `SlidingWindow.total_weight`.

    Returns:
        (x, y, z) in bfloat16, which holds them exactly.
    """
    scale = torch.empty(weight.shape, dtype=torch.bfloat16, device=weight.device)
    parts = torch.split(weight.reshape(-1), _SCALED)
    for part, found in zip(parts, torch.split(scale.view(-1), _SCALED), strict=True):
        exponent = torch.frexp(part.float()).exponent.clamp_(min=0)
        found.copy_(torch.ldexp(torch.ones_like(part, dtype=torch.float32), -exponent))
    return scale


def add_predictions(
    total: Tensor,
    image: Tensor,
    sliding: SlidingWindow,
    predict: Callable[[Tensor], Tensor],
    *,
    device: torch.device,
    tiles_per_pass: int = 1,
    on_tile: Callable[[int], object] = lambda count: None,
    scale: Tensor | None = None,
    repeat: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Predict every tile once and add it, weighted, to `total`.

    Args:
        total: (heads, x, y, z), on the device of the weights; modified. Sums are rounded to its type.
        image: (c, x, y, z), padded.
        sliding: the tiles.
        predict: (b, c, *tile) -> (b, heads, *tile).
        device: where `predict` computes.
        tiles_per_pass: tiles predicted at once.
        on_tile: called with the number of tiles done after each pass (progress).
        scale: factors of the weights per voxel, see `bounding_scale`; None for 1.
        repeat: predicts a tile more exactly, once, if `predict` has put out NaN or infinity for it.

    Raises:
        TileNotANumber: the network put out NaN or infinity; names the tile.
    """
    flat = len(sliding.tile_size) == 2
    weights = sliding.weights.float()

    def add(windows: Sequence[Window], network: Callable[[Tensor], Tensor]) -> Tensor:
        tiles = torch.stack([_at(image, window) for window in windows]).to(device)
        output = network(tiles[:, :, 0] if flat else tiles)
        output = (output.unsqueeze(2) if flat else output).to(total.device).contiguous()
        finite = torch.isfinite(output.flatten(1).sum(1, dtype=torch.float32))
        if device.type != "cpu" or not bool(finite.all()):  # what is no number must not reach the sums
            output.masked_fill_(~finite.reshape(-1, 1, 1, 1, 1), 0)  # in place: a GPU may have no room for another
        for window, prediction in zip(windows, output, strict=True):
            _add_weighted(_at(total, window), prediction, weights if scale is None else weights * scale[window])
        return finite

    unseen: list[tuple[Sequence[Window], Tensor]] = []

    def look() -> None:
        windows = [window for done, _ in unseen for window in done]
        finite = torch.cat([found for _, found in unseen]).tolist() if unseen else []
        unseen.clear()
        for window in (window for window, good in zip(windows, finite, strict=True) if not good):
            if repeat is None or not bool(add([window], repeat).all()):
                raise TileNotANumber(window)

    for windows in sliding.batches(tiles_per_pass):
        unseen.append((windows, add(windows, predict)))
        if device.type == "cpu" or len(unseen) == _PASSES_UNSEEN:
            look()
        on_tile(len(windows))
    look()


def _add_weighted(total: Tensor, prediction: Tensor, weights: Tensor) -> None:
    """Add (heads, *tile) times (*tile) to a part of the sums; overwrites the prediction."""
    heads = max(1, _BLOCK // weights.numel()) if total.device.type == "cpu" else len(total)
    for part, added in zip(torch.split(total, heads), torch.split(prediction, heads), strict=True):
        if total.dtype == torch.float16:
            added.clamp_(-HALF_MAX, HALF_MAX)
        part.add_(added.mul_(weights))


def weighted_mean(total: Tensor, weight: Tensor, original: Window) -> Tensor:
    """Divide weighted sums (heads, x, y, z) by their weights (x, y, z), in place, and cut the padding off.

    Channel by channel, so that nothing of the size of the sums is held beside them.
    """
    for channel in total:
        channel.div_(weight)
        if total.dtype == torch.float16:
            channel.clamp_(-HALF_MAX, HALF_MAX)  # the largest logits may be rounded up to infinity
    return _at(total, original)


def _at(tensor: Tensor, window: Window) -> Tensor:
    """A view of (c, x, y, z) at a spatial index."""
    index: tuple[slice, ...] = (slice(None), *window)
    return tensor[index]
