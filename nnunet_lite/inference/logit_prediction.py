"""Logits of a preprocessed image: tiles, mirroring, the mean over an ensemble; what to do if memory ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.inference.sliding_window_prediction import (
    SlidingWindow,
    add_predictions,
    all_finite,
    pad_to_tile,
    weighted_mean,
)
from nnunet_lite.inference.test_time_augmentation import mirror_combinations, predict_mirrored
from nnunet_lite.utilities.device import autocast, empty_cache
from nnunet_lite.utilities.logging import logger

Weights = Mapping[str, Any]  # of a network, by name


class Progress(Protocol):
    """What counts tiles: a tqdm bar, or the bar over all cases."""

    def reset(self, total: float | None = None) -> None:
        """An image of so many tiles begins."""

    def update(self, n: float | None = 1) -> object:
        """So many of them are done."""


_VOXELS_PER_PASS = {"cuda": 2**22, "mps": 2**20, "cpu": 2**15}  # of all tiles and mirrored copies of a pass
_IMAGES_PER_PASS = 32
_HALF_MAX = 65504.0


@dataclass(frozen=True)
class PredictionSettings:
    """How a network is applied to an image.

    Args:
        patch_size: 2 or 3 edges of a tile.
        tile_step_size: longest step between tiles as a part of the patch.
        use_gaussian: weight tiles by a Gaussian.
        mirroring_axes: spatial axes to mirror along, or None.
        heads: output channels.
        device: where the network computes.
        sums_on_device: keep the image and the sums there too.
        autocast_dtype: of mixed precision, None for float32.
        dtype_of_sums: what sums over tiles are rounded to.
        images_per_pass: most tiles and mirrored copies at once; None chooses.
    """

    patch_size: tuple[int, ...]
    tile_step_size: float
    use_gaussian: bool
    mirroring_axes: tuple[int, ...] | None
    heads: int
    device: torch.device
    sums_on_device: bool
    autocast_dtype: torch.dtype | None
    dtype_of_sums: torch.dtype
    images_per_pass: int | None = None

    @property
    def device_of_sums(self) -> torch.device:
        """Where sums are kept."""
        return self.device if self.sums_on_device else torch.device("cpu")

    @property
    def limit(self) -> int:
        """Most images of a pass: what keeps the device busy without filling its memory."""
        if self.images_per_pass is not None:
            return self.images_per_pass
        budget = _VOXELS_PER_PASS.get(self.device.type, _VOXELS_PER_PASS["cpu"])
        return max(1, min(_IMAGES_PER_PASS, budget // math.prod(self.patch_size)))

    def for_less_memory(self) -> PredictionSettings | None:
        """The next best settings after memory ran out: one image per pass, then sums in main memory, then None."""
        if self.limit > 1:
            return replace(self, images_per_pass=1)
        return replace(self, sums_on_device=False) if self.sums_on_device else None


def predict_logits(
    network: nn.Module,
    image: Tensor,
    settings: PredictionSettings,
    members: Sequence[Weights | None] = (None,),
    load: Callable[[Weights | None], None] = lambda member: None,
    bar: Progress | None = None,
) -> Tensor:
    """Mean logits over the members of an ensemble.

    Args:
        network: without deep supervision; moved to the device.
        image: (c, x, y, z), preprocessed.
        settings: see there.
        members: given to `load` one after the other.
        load: puts the weights of a member into the network.
        bar: is told the number of tiles, and of those done; told anew where it starts over.

    Returns:
        (heads, x, y, z) in half precision on the CPU.

    Raises:
        ArgumentError: an image of another number of axes, or no members.
        NumericalError: the network put out NaN or infinity; names the tile.
    """
    if image.ndim != 4:
        raise ArgumentError(f"A preprocessed image has 4 axes (c, x, y, z), not {image.ndim}; add those of length 1")
    if not members:
        raise ArgumentError("The predictor has no weights; initialise it first")
    network = network.to(settings.device).eval()
    while True:
        try:
            logits = _mean_over_members(network, image.float(), settings, members, load, bar)
        except torch.cuda.OutOfMemoryError:
            empty_cache(settings.device)
            frugal = settings.for_less_memory()
            if frugal is None:
                raise
            logger.warning("The GPU's memory does not suffice: one image per pass, sums on %s", frugal.device_of_sums)
            settings = frugal
            continue
        if settings.dtype_of_sums == torch.float32 or all_finite(logits):
            return logits.clamp_(-_HALF_MAX, _HALF_MAX).half().cpu()
        settings = replace(settings, dtype_of_sums=torch.float32)  # every output was finite: the sums overflowed


def _mean_over_members(
    network: nn.Module,
    image: Tensor,
    settings: PredictionSettings,
    members: Sequence[Weights | None],
    load: Callable[[Weights | None], None],
    bar: Progress | None,
) -> Tensor:
    axes = mirror_combinations(settings.mirroring_axes)
    image, original = pad_to_tile(image.to(settings.device_of_sums), settings.patch_size)
    sliding = SlidingWindow.over(
        image.shape[1:], settings.patch_size, settings.tile_step_size, settings.use_gaussian, settings.device_of_sums
    )
    if bar is not None:
        bar.reset(total=len(sliding.windows) * len(members))
    dtype = settings.dtype_of_sums
    weight = sliding.total_weight(dtype)
    means: Tensor | None = None
    for member in members:
        load(member)
        total = torch.zeros((settings.heads, *sliding.image_size), dtype=dtype, device=settings.device_of_sums)
        with autocast(settings.device, settings.autocast_dtype):
            add_predictions(
                total,
                image,
                sliding,
                lambda tiles: predict_mirrored(network, tiles, axes, settings.limit),
                device=settings.device,
                tiles_per_pass=max(1, settings.limit // len(axes)),
                on_tile=bar.update if bar is not None else lambda count: None,
            )
        logits = weighted_mean(total, weight, original)
        means = logits if means is None else means.add_(logits)
    assert means is not None
    return means if len(members) == 1 else means.div_(len(members))
