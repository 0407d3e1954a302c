"""A network applied to tiles and their mirror images, as many at once as pays and as memory holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nnunet_lite.inference.device_memory import DeviceMemory
from nnunet_lite.inference.faster_networks import faster_network, with_channels_last
from nnunet_lite.inference.test_time_augmentation import mirror_combinations, predict_mirrored
from nnunet_lite.utilities.compilation import with_way_back
from nnunet_lite.utilities.device import autocast, empty_cache, is_out_of_memory
from nnunet_lite.utilities.logging import logger


class NetworkPasses:
    """Mean prediction of tiles over their mirror images: (b, c, *tile) -> (b, heads, *tile) in float32.

    Where memory ends, passes are halved down to one image and the tiles at hand repeated.

    Args:
        network: in evaluation mode, on the device.
        mirroring_axes: spatial axes, or None.
        images_per_pass: tiles and mirrored copies at once.
        channels_last: layout of the network's input.
        memory: what is known of the device's; extended.
    """

    def __init__(
        self,
        network: nn.Module,
        mirroring_axes: tuple[int, ...] | None,
        images_per_pass: int,
        device: torch.device,
        channels_last: bool,
        memory: DeviceMemory,
    ) -> None:
        self.network = network
        self._axes = mirror_combinations(mirroring_axes)
        self._images = images_per_pass
        self._device = device
        self._channels_last = channels_last
        self._memory = memory

    @property
    def tiles_per_pass(self) -> int:
        """Tiles that are predicted at once, all mirrored copies counted."""
        return max(1, self._images // len(self._axes))

    def __call__(self, tiles: Tensor) -> Tensor:
        """Predict tiles.

        Raises:
            torch.OutOfMemoryError, RuntimeError, MemoryError: memory does not suffice for one image.
        """
        while True:
            try:
                parts = [self._mean(part) for part in torch.split(tiles, self.tiles_per_pass)]
                return torch.cat(parts) if len(parts) > 1 else parts[0]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self._images == 1:
                    raise
            self._halve(len(tiles))

    def in_float32(self, tiles: Tensor) -> Tensor:
        """Predict tiles again without mixed precision."""
        logger.warning("The network put out NaN or infinity in mixed precision; tile repeated in float32")
        with torch.autocast(self._device.type, enabled=False):
            return self(tiles)

    def _mean(self, tiles: Tensor) -> Tensor:
        return predict_mirrored(self._apply, tiles, self._axes, self._images)

    def _apply(self, images: Tensor) -> Tensor:
        images = with_channels_last(images) if self._channels_last else images
        output: Tensor = with_way_back(lambda: self.network(images), self.network)
        return output

    def _halve(self, tiles: int) -> None:
        """Go on with passes half as large as the one that failed."""
        empty_cache(self._device)
        failed = min(self._images, tiles * len(self._axes))
        self._images = self._memory.images_per_pass = max(1, failed // 2)
        logger.warning(
            "Memory of %s: %d images in one pass of the network are too much, going on with %d",
            self._device,
            failed,
            self._images,
        )


@contextlib.contextmanager
def network_passes(
    network: nn.Module,
    *,
    device: torch.device,
    mirroring_axes: tuple[int, ...] | None = None,
    images_per_pass: int = 1,
    channels_last: bool = False,
    autocast_dtype: torch.dtype | None = None,
    memory: DeviceMemory | None = None,
) -> Iterator[NetworkPasses]:
    """A network made ready for prediction within the block: on the device, in its layout and precision.

    Args: as of `NetworkPasses`, and
        autocast_dtype: of mixed precision, None for float32.
    """
    network = network.to(device).eval()
    with (
        faster_network(network, device=device, channels_last=channels_last),
        autocast(device, autocast_dtype),
    ):
        yield NetworkPasses(network, mirroring_axes, images_per_pass, device, channels_last, memory or DeviceMemory())
