"""Logits of an image too large for sums over all of it: band by band, each handed on when no later tile touches it.

Tiles come in the order of `SlidingWindow.windows`, in the same passes and with the same rounding as where the sums of
the whole image are held, so the logits are the same, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from nnunet_lite.exceptions import NumericalError
from nnunet_lite.inference.logit_prediction import PredictionSettings, Weights
from nnunet_lite.inference.sliding_window_prediction import (
    SlidingWindow,
    Window,
    add_predictions,
    all_finite,
    pad_to_tile,
)
from nnunet_lite.inference.test_time_augmentation import mirror_combinations, predict_mirrored
from nnunet_lite.utilities.device import autocast, empty_cache
from nnunet_lite.utilities.logging import logger

Receiver = Callable[[int, Tensor], None]  # number of the slice (0 where bands are planes), finished logits

_HALF_MAX = 65504.0
_PIECE = 2**24  # logits that are divided, rounded and handed on at once: 32 MiB in half precision


class _Overflow(Exception):
    """Sums in half precision left its range."""


class RollingSums:
    """Sums over tiles, of which only a band along one axis exists.

    Args:
        shape: (channels, x, y, z) of the whole.
        axis: along which the band moves, of the four.
    """

    def __init__(self, shape: Sequence[int], axis: int, dtype: torch.dtype, device: torch.device) -> None:
        self._shape = tuple(shape)
        self._axis = axis
        self._band = torch.zeros((*shape[:axis], 0, *shape[axis + 1 :]), dtype=dtype, device=device)
        self.first = 0  # index of the band's first entry

    def reach(self, stop: int) -> Tensor:
        """The band from `first` to `stop` at least; what is new in it is zero."""
        held = self._band.shape[self._axis]
        if stop - self.first > held:
            shape = (*self._shape[: self._axis], stop - self.first, *self._shape[self._axis + 1 :])
            longer = self._band.new_zeros(shape)
            longer.narrow(self._axis, 0, held).copy_(self._band)
            self._band = longer
        return self._band

    def part(self, start: int, stop: int) -> Tensor:
        """A view of what is held of [start, stop)."""
        return self._band.narrow(self._axis, start - self.first, stop - start)

    def forget(self, stop: int) -> None:
        """Drop everything before `stop`."""
        self._band = self.part(stop, self.first + self._band.shape[self._axis]).clone()
        self.first = stop


def predict_in_bands(
    network: nn.Module,
    image: Tensor,
    settings: PredictionSettings,
    members: Sequence[Weights | None],
    load: Callable[[Weights | None], None],
    start: Callable[[], Receiver],
    *,
    lines: bool,
    show_progress: bool = False,
    name: str = "",
) -> None:
    """Predict as `predict_logits` does, and hand the logits on in order instead of returning them.

    An ensemble's sums are held member by member for the band, and weights change once per member and band.

    Args:
        network, image, settings, members, load, show_progress, name: as for `predict_logits`.
        start: called at the start and whenever all must be done again, with smaller passes or in float32; what it
            returns is called with the number of a slice and its next logits.
        lines: a band is a range of lines of one slice, (heads, n, 1, z), which 2D tiles allow; else a range of planes
            of the volume, (heads, n, y, z). Both in half precision on the CPU.

    Raises:
        NumericalError: the network put out NaN or infinity; names the tile.
    """
    network = network.to(settings.device).eval()
    while True:
        try:
            with tqdm(desc=name or None, disable=not show_progress, leave=False, unit="tile") as bar:
                finished = _Bands(network, image.float(), settings, members, load, lines).run(bar)
                _hand_on(finished, start(), in_background=settings.device.type != "cpu")
            return
        except torch.cuda.OutOfMemoryError:
            empty_cache(settings.device)
            frugal = settings.for_less_memory()
            if frugal is None:
                raise
            logger.warning("The GPU's memory does not suffice: one image per pass, sums on %s", frugal.device_of_sums)
            settings = frugal
        except _Overflow:
            settings = replace(settings, dtype_of_sums=torch.float32)  # every output was finite: the sums overflowed


def _hand_on(finished: Iterator[tuple[int, Tensor]], receive: Receiver, in_background: bool) -> None:
    """Give every piece to the receiver; in a thread while the device goes on, at most one piece waiting."""
    if not in_background:
        for number, logits in finished:
            receive(number, logits)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="reduction") as executor:
        last: Future[None] | None = None
        for number, logits in finished:
            if last is not None:
                last.result()
            last = executor.submit(receive, number, logits)
        if last is not None:
            last.result()


class _Bands:
    """One pass over the tiles of an image."""

    def __init__(
        self,
        network: nn.Module,
        image: Tensor,
        settings: PredictionSettings,
        members: Sequence[Weights | None],
        load: Callable[[Weights | None], None],
        lines: bool,
    ) -> None:
        self._network, self._settings, self._members, self._load = network, settings, members, load
        device = settings.device_of_sums
        image, self._original = pad_to_tile(image.to(device), settings.patch_size)
        whole = SlidingWindow.over(
            image.shape[1:], settings.patch_size, settings.tile_step_size, settings.use_gaussian, device
        )
        self._lines_per_slice = image.shape[2] if lines else 0
        if lines:  # all slices one below the other: a tile touches one of them only
            height = image.shape[2]
            image = image.reshape(image.shape[0], 1, -1, image.shape[3])
            windows: list[Window] = [
                (slice(0, 1), slice(x.start * height + y.start, x.start * height + y.stop), z)
                for x, y, z in whole.windows
            ]
            whole = replace(whole, image_size=tuple(image.shape[1:]), windows=windows)
        self._image, self._sliding = image, whole
        self._axis = 1 if lines else 0  # of the spatial ones

    @torch.inference_mode()
    def run(self, bar: Any) -> Iterator[tuple[int, Tensor]]:
        """Yield finished logits in order, see `Receiver`."""
        bar.reset(total=len(self._sliding.windows) * len(self._members))
        settings, size = self._settings, self._sliding.image_size
        like = (self._axis + 1, settings.dtype_of_sums, settings.device_of_sums)
        totals = [RollingSums((settings.heads, *size), *like) for _ in self._members]
        weight = RollingSums((1, *size), *like)
        groups = self._groups()
        for group, following in zip(groups, [*groups[1:], None], strict=True):
            self._add(group, totals, weight, bar)
            end = size[self._axis] if following is None else following[0][self._axis].start
            yield from self._finish(end, totals, weight)

    def _groups(self) -> list[list[Window]]:
        """Windows that begin at the same line or plane, cut where passes end: those stay as they are without bands."""
        groups: list[list[Window]] = []
        for windows in self._sliding.batches(self._tiles_per_pass):
            if groups and windows[0][self._axis].start == groups[-1][0][self._axis].start:
                groups[-1].extend(windows)
            else:
                groups.append(list(windows))
        return groups

    @property
    def _mirrorings(self) -> list[tuple[int, ...]]:
        return mirror_combinations(self._settings.mirroring_axes)

    @property
    def _tiles_per_pass(self) -> int:
        return max(1, self._settings.limit // len(self._mirrorings))

    def _add(self, windows: list[Window], totals: list[RollingSums], weight: RollingSums, bar: Any) -> None:
        """Predict some tiles with every member and add them."""
        first, stop = weight.first, max(window[self._axis].stop for window in windows)
        moved = [
            tuple(
                slice(part.start - first, part.stop - first) if axis == self._axis else part
                for axis, part in enumerate(window)
            )
            for window in windows
        ]
        image = self._image.narrow(self._axis + 1, first, stop - first)
        sliding = replace(self._sliding, image_size=tuple(image.shape[1:]), windows=moved)
        weights = weight.reach(stop)[0]
        for window in moved:
            weights[window] += sliding.weights
        settings, mirrorings = self._settings, self._mirrorings
        for member, total in zip(self._members, totals, strict=True):
            self._load(member)
            try:
                with autocast(settings.device, settings.autocast_dtype):
                    add_predictions(
                        total.reach(stop),
                        image,
                        sliding,
                        lambda tiles: predict_mirrored(self._network, tiles, mirrorings, settings.limit),
                        device=settings.device,
                        tiles_per_pass=self._tiles_per_pass,
                        on_tile=bar.update,
                    )
            except NumericalError as error:
                raise NumericalError(f"{error} (axis {self._axis} of this part begins at {first})") from error

    def _finish(self, end: int, totals: list[RollingSums], weight: RollingSums) -> Iterator[tuple[int, Tensor]]:
        """Divide what no later tile touches and yield it without the padding."""
        for number, start, stop in self._originals(weight.first, end):
            entry = totals[0].part(start, start + 1)
            step = max(1, _PIECE // entry.numel())
            for low in range(start, stop, step):
                high = min(low + step, stop)
                yield number, self._mean([total.part(low, high) for total in totals], weight.part(low, high))
        for sums in (*totals, weight):
            sums.forget(end)

    def _originals(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(slice, first, one past the last) of the parts of [first, end) that are no padding."""
        own = self._original[self._axis]
        length = self._lines_per_slice
        for number in range(first // length, -(-end // length)) if length else (0,):
            start, stop = max(first, number * length + own.start), min(end, number * length + own.stop)
            if start < stop:
                yield number, start, stop

    def _mean(self, totals: list[Tensor], weight: Tensor) -> Tensor:
        """The members' mean logits (heads, n, y, z), as `weighted_mean` and the sum over members have them."""
        mean: Tensor | None = None
        for total in totals:
            logits = total.div_(weight)
            mean = logits if mean is None else mean.add_(logits)
        assert mean is not None
        if len(totals) > 1:
            mean.div_(len(totals))
        _, rows, columns = self._original
        mean = mean[..., columns].transpose(1, 2) if self._lines_per_slice else mean[:, :, rows, columns]
        if self._settings.dtype_of_sums != torch.float32 and not all_finite(mean):
            raise _Overflow
        return mean.clamp(-_HALF_MAX, _HALF_MAX).half().cpu()
