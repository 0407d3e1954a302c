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
from nnunet_lite.inference.device_memory import DeviceMemory, Weights
from nnunet_lite.inference.memory_of_sums import MemoryOfSums
from nnunet_lite.inference.network_passes import NetworkPasses, network_passes
from nnunet_lite.inference.sliding_window_prediction import (
    SlidingWindow,
    Window,
    add_predictions,
    bounding_scale,
    pad_to_tile,
    weighted_mean,
)
from nnunet_lite.inference.sum_of_members import SumOfMembers
from nnunet_lite.inference.test_time_augmentation import mirror_combinations
from nnunet_lite.utilities.device import in_main_memory, is_out_of_memory
from nnunet_lite.utilities.memory import format_size

__all__ = [
    "Ensemble",
    "PredictionSettings",
    "Progress",
    "Weights",
    "logits_on_device",
    "out_of_memory",
    "predict_logits",
]


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
        max_ram: bytes that all of the prediction may take; a low limit makes large images be predicted in bands.
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
    max_ram: int | None = None
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
    def tiles_per_pass(self) -> int:
        """Tiles that are predicted at once, all mirrored copies counted."""
        return max(1, self.limit // len(mirror_combinations(self.mirroring_axes)))

    @property
    def channels_last(self) -> bool:
        """Layout of what the network computes with.

        Measured faster on CPUs where an image fills a pass: 15 % in 3D and in 2D of 320x320. Small 2D images are 80 %
        faster in batches with channels first, 50 % with channels last.
        """
        return self.limit == 1 if self.device.type == "cpu" else channels_last_requested(False)

    def memory_of_sums(self, shape: Sequence[int], members: int) -> MemoryOfSums:
        """What the sums of an image (x, y, z) take."""
        return MemoryOfSums(tuple(shape), self.patch_size, self.heads, members, self.dtype_of_sums.itemsize)

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


@dataclass(frozen=True)
class Ensemble:
    """A network that takes on the weights of several members, one after the other, and how it is applied.

    Args:
        network: without deep supervision; moved to the device.
        settings: see there.
        members: given to `load` one after the other.
        load: puts the weights of a member into the network.
        bar: is told the number of tiles, and of those done; told anew where it starts over.
    """

    network: nn.Module
    settings: PredictionSettings
    members: Sequence[Weights | None] = (None,)
    load: Callable[[Weights | None], None] = lambda member: None
    bar: Progress | None = None

    def tiles_of(self, image: Tensor) -> tuple[Tensor, Window, SlidingWindow]:
        """The padded image (c, x, y, z) where the sums are, the original's index in it, and its tiles; starts the bar.

        Raises:
            ArgumentError: an image of another number of axes, or no members.
        """
        settings = self.settings
        device = settings.device_of_sums
        image, original = pad_to_tile(image.float().to(device), settings.patch_size)
        sliding = SlidingWindow.over(
            image.shape[1:], settings.patch_size, settings.tile_step_size, settings.use_gaussian, device
        )
        if self.bar is not None:
            self.bar.reset(total=len(sliding.windows) * len(self.members))
        return image, original, sliding

    def add_predictions(
        self, member: Weights | None, total: Tensor, image: Tensor, sliding: SlidingWindow, scale: Tensor | None
    ) -> None:
        """Predict tiles with one member and add them to its sums; arguments as of the function of this name."""
        settings = self.settings
        if member is not None and len(self.members) > 1:
            member = settings.memory.resident(member, settings.device)
        self.load(member)
        with settings.network_passes(self.network) as predict:
            add_predictions(
                total,
                image,
                sliding,
                predict,
                device=settings.device,
                tiles_per_pass=predict.tiles_per_pass,
                on_tile=self.bar.update if self.bar is not None else lambda count: None,
                scale=scale,
                repeat=predict.in_float32 if settings.autocast_dtype is not None else None,
            )

    def scale_of(self, weight: Tensor) -> Tensor | None:
        """What keeps sums in range, see `bounding_scale`; float32 needs nothing."""
        return bounding_scale(weight) if self.settings.dtype_of_sums == torch.float16 else None


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
        image: (c, x, y, z), preprocessed.
        network, settings, members, load, bar: see `Ensemble`.

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
    ensemble = Ensemble(network, settings, members, load, bar)
    logits = logits_on_device(ensemble, image)
    if logits is not None:
        return in_main_memory(logits)
    settings = replace(settings, sums_on_device=False)
    try:
        return _mean_over_members(replace(ensemble, settings=settings), image)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        sums = settings.memory_of_sums(image.shape[1:], len(members))
        raise out_of_memory(image, settings, sums.whole + sums.image(len(image))) from error


def logits_on_device(ensemble: Ensemble, image: Tensor) -> Tensor | None:
    """As `predict_logits`, but the logits stay on the device; None if its memory does not hold the sums, or must not.

    That is known beforehand or found out by failing, and remembered.
    """
    settings = ensemble.settings
    memory, device = settings.memory, settings.device
    sums = settings.memory_of_sums(image.shape[1:], len(ensemble.members))
    size = sums.whole + sums.image(len(image))
    if not settings.sums_on_device or not memory.holds_sums(size, device):
        return None
    try:
        return _mean_over_members(ensemble, image)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    memory.refuse_sums(size, device, "beside one image in the network")
    return None


def out_of_memory(image: Tensor, settings: PredictionSettings, size: int) -> OutOfMemory:
    """The error of an image (c, x, y, z) that is too large even one patch at a time, with `size` bytes held beside."""
    return OutOfMemory(
        f"the memory of {settings.device} does not suffice for an image of {tuple(image.shape[1:])} voxels in network "
        f"space: one patch of {settings.patch_size} at a time in the network, {format_size(size)} for image and sums "
        "in main memory; free memory, or predict on another machine"
    )


def _mean_over_members(ensemble: Ensemble, image: Tensor) -> Tensor:
    """Mean logits in half precision where the sums are."""
    settings = ensemble.settings
    image, original, sliding = ensemble.tiles_of(image)
    weight = sliding.total_weight(settings.dtype_of_sums)
    scale = ensemble.scale_of(weight)
    if scale is not None:
        weight *= scale
    before = SumOfMembers(len(ensemble.members))
    total: Tensor | None = None
    for number, member in enumerate(ensemble.members):
        if number < 2 or total is None:
            total = weight.new_zeros((settings.heads, *sliding.image_size))
        else:
            total.zero_()  # there are never more sums than a member's, and that of the members before it
        ensemble.add_predictions(member, total, image, sliding, scale)
        before.add(weighted_mean(total, weight, original))
    del total
    return before.mean()
