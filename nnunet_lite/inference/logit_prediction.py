"""Logits of a preprocessed image: tiles, mirroring, the mean over an ensemble; what to do if memory ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from nnunet_lite.configuration import channels_last_requested
from nnunet_lite.exceptions import ArgumentError, OutOfMemory
from nnunet_lite.inference.device_memory import DeviceMemory, Weights, bytes_of_sums
from nnunet_lite.inference.network_passes import NetworkPasses, network_passes
from nnunet_lite.inference.sliding_window_prediction import (
    HALF_MAX,
    SlidingWindow,
    add_predictions,
    bounding_scale,
    pad_to_tile,
    weighted_mean,
)
from nnunet_lite.utilities.device import is_out_of_memory
from nnunet_lite.utilities.memory import format_size

__all__ = ["PredictionSettings", "Progress", "Weights", "predict_logits"]


class Progress(Protocol):
    """What counts tiles: a tqdm bar, or the bar over all cases."""

    def reset(self, total: float | None = None) -> None:
        """An image of so many tiles begins."""

    def update(self, n: float | None = 1) -> object:
        """So many of them are done."""


_VOXELS_PER_PASS = {"cuda": 2**22, "mps": 2**20, "cpu": 2**15}  # of all tiles and mirrored copies of a pass
_IMAGES_PER_PASS = 32


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
        memory: what was found out about the device's memory; shared by the cases of a predictor.
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
    memory: DeviceMemory = field(default_factory=DeviceMemory, compare=False)

    @property
    def device_of_sums(self) -> torch.device:
        """Where sums are kept."""
        return self.device if self.sums_on_device else torch.device("cpu")

    @property
    def limit(self) -> int:
        """Most images of a pass: what keeps the device busy without filling its memory (or a CPU's cache)."""
        wanted = self.images_per_pass
        if wanted is None:
            budget = _VOXELS_PER_PASS.get(self.device.type, _VOXELS_PER_PASS["cpu"])
            wanted = max(1, min(_IMAGES_PER_PASS, budget // math.prod(self.patch_size)))
        return min(wanted, self.memory.images_per_pass or wanted)

    @property
    def channels_last(self) -> bool:
        """Layout of what the network computes with.

        Measured faster on CPUs where an image fills a pass: 15 % in 3D and in 2D of 320x320. Small 2D images are 80 %
        faster in batches with channels first, 50 % with channels last.
        """
        return self.limit == 1 if self.device.type == "cpu" else channels_last_requested(False)

    def network_passes(self, network: nn.Module) -> AbstractContextManager[NetworkPasses]:
        """The network made ready for prediction within a `with` block; its weights must not change inside."""
        return network_passes(
            network,
            device=self.device,
            mirroring_axes=self.mirroring_axes,
            images_per_pass=self.limit,
            channels_last=self.channels_last,
            autocast_dtype=self.autocast_dtype,
            memory=self.memory,
        )


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
        OutOfMemory: one tile at a time, and sums in main memory, are still too much.
    """
    if image.ndim != 4:
        raise ArgumentError(f"A preprocessed image has 4 axes (c, x, y, z), not {image.ndim}; add those of length 1")
    if not members:
        raise ArgumentError("The predictor has no weights; initialise it first")
    size = bytes_of_sums(settings.heads, image.shape, settings.dtype_of_sums, len(members))
    if settings.sums_on_device and not settings.memory.holds_sums(size, settings.device):
        settings = replace(settings, sums_on_device=False)
    try:
        return _mean_over_members(network, image.float(), settings, members, load, bar)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if not settings.sums_on_device:
            raise _out_of_memory(image, settings, size) from error
    settings.memory.refuse_sums(size, settings.device, "beside one image in the network")
    return predict_logits(network, image, replace(settings, sums_on_device=False), members, load, bar)


def _out_of_memory(image: Tensor, settings: PredictionSettings, size: int) -> OutOfMemory:
    return OutOfMemory(
        f"the memory of {settings.device} does not suffice for an image of {tuple(image.shape[1:])} voxels in network "
        f"space: one patch of {settings.patch_size} at a time in the network, {format_size(size)} for image and sums "
        "in main memory; free memory, or predict on another machine"
    )


def _mean_over_members(
    network: nn.Module,
    image: Tensor,
    settings: PredictionSettings,
    members: Sequence[Weights | None],
    load: Callable[[Weights | None], None],
    bar: Progress | None,
) -> Tensor:
    image, original = pad_to_tile(image.to(settings.device_of_sums), settings.patch_size)
    sliding = SlidingWindow.over(
        image.shape[1:], settings.patch_size, settings.tile_step_size, settings.use_gaussian, settings.device_of_sums
    )
    if bar is not None:
        bar.reset(total=len(sliding.windows) * len(members))
    dtype = settings.dtype_of_sums
    weight = sliding.total_weight(dtype)
    scale = bounding_scale(weight) if dtype == torch.float16 else None
    if scale is not None:
        weight *= scale
    means: Tensor | None = None
    for member in members:
        if member is not None and len(members) > 1:
            member = settings.memory.resident(member, settings.device)
        load(member)
        total = torch.zeros((settings.heads, *sliding.image_size), dtype=dtype, device=settings.device_of_sums)
        with settings.network_passes(network) as predict:
            add_predictions(
                total,
                image,
                sliding,
                predict,
                device=settings.device,
                tiles_per_pass=predict.tiles_per_pass,
                on_tile=bar.update if bar is not None else lambda count: None,
                scale=scale,
                repeat=predict.in_float32 if settings.autocast_dtype is not None else None,
            )
        logits = weighted_mean(total, weight, original)
        means = logits if means is None else means.add_(logits)
    assert means is not None
    if len(members) > 1:
        means.div_(len(members))
    return (means if dtype == torch.float16 else means.clamp_(-HALF_MAX, HALF_MAX).half()).cpu()
