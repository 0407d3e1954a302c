"""Logits of an image too large for sums over all of it: band by band, each handed on when no later tile touches it.

Tiles come in the order of `SlidingWindow.windows`, in the same passes and with the same rounding as where the sums of
the whole image are held, so the logits are the same, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from nnunet_lite.inference.logit_prediction import Ensemble, out_of_memory
from nnunet_lite.inference.memory_of_sums import PIECE
from nnunet_lite.inference.sliding_window_prediction import TileNotANumber, Window, weighted_mean
from nnunet_lite.inference.sum_of_members import SumOfMembers
from nnunet_lite.utilities.device import is_out_of_memory, on_this_stream

Receiver = Callable[[int, Tensor], None]  # number of the slice (0 where bands are planes), finished logits


class RollingSums:
    """Sums over tiles, of which only a band along one axis exists.

    Args:
        shape: (channels, x, y, z) of the whole.
        axis: along which the band moves, of the four.
    """

    def __init__(self, shape: Sequence[int], axis: int, dtype: torch.dtype, device: torch.device) -> None:
        self._shape = tuple(shape)
        self._axis = axis
        self._room = torch.zeros((*shape[:axis], 0, *shape[axis + 1 :]), dtype=dtype, device=device)
        self._held = 0  # entries in use; all others are zero
        self.first = 0  # index of the band's first entry

    def reach(self, stop: int) -> Tensor:
        """The band from `first` to `stop`; what is new in it is zero."""
        wanted = stop - self.first
        if wanted > self._room.shape[self._axis]:
            larger = self._room.new_zeros((*self._shape[: self._axis], wanted, *self._shape[self._axis + 1 :]))
            larger.narrow(self._axis, 0, self._held).copy_(self._room.narrow(self._axis, 0, self._held))
            self._room = larger
        self._held = max(self._held, wanted)
        return self._room.narrow(self._axis, 0, wanted)

    def part(self, start: int, stop: int) -> Tensor:
        """A view of what is held of [start, stop)."""
        return self._room.narrow(self._axis, start - self.first, stop - start)

    def forget(self, stop: int) -> None:
        """Drop everything before `stop`; what is left moves to the front, channel by channel."""
        axis, gone = self._axis - 1, stop - self.first
        left = max(0, self._held - gone)
        for channel in self._room:
            if left:
                channel.narrow(axis, 0, left).copy_(channel.narrow(axis, gone, left).clone())
            channel.narrow(axis, left, self._held - left).zero_()
        self._held, self.first = left, stop


def predict_in_bands(
    ensemble: Ensemble, image: Tensor, start: Callable[[], Receiver], *, lines: bool, on_device: bool = False
) -> None:
    """Predict as `predict_logits` does, and hand the logits on in order instead of returning them.

    An ensemble's sums are held member by member for the band, and weights change once per member and band.

    Args:
        ensemble: how to predict.
        image: (c, x, y, z), preprocessed.
        start: called at the start, and again if all must be done anew with sums in main memory; what it returns is
            called with the number of a slice and its next logits.
        lines: a band is a range of lines of one slice, (heads, 1, n, z), which 2D tiles allow; else a range of planes
            of the volume, (heads, n, y, z). Both in half precision.
        on_device: leave what is handed on where the sums are, else bring it to the CPU.

    Raises:
        NumericalError: the network put out NaN or infinity; names the tile.
        OutOfMemory: one tile at a time, and a band in main memory, are still too much.
    """
    settings = ensemble.settings
    sums = settings.memory_of_sums(image.shape[1:], len(ensemble.members))
    size = sums.image(len(image)) + sums.band(lines=lines, tiles_per_pass=settings.tiles_per_pass)
    if settings.sums_on_device and settings.memory.holds_sums(size, settings.device):
        try:
            _run_bands(ensemble, image, start(), lines, on_device)
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        settings.memory.refuse_sums(size, settings.device, "beside one image in the network")  # the band's are gone
    settings = replace(settings, sums_on_device=False)
    try:
        _run_bands(replace(ensemble, settings=settings), image, start(), lines, on_device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(image, settings, size) from error


def _run_bands(ensemble: Ensemble, image: Tensor, receive: Receiver, lines: bool, on_device: bool) -> None:
    """Predict all bands where the settings say."""
    bands = _Bands(ensemble, image, lines, on_device)
    finished = bands.run()
    try:
        receive = on_this_stream(ensemble.settings.device, receive)
        _hand_on(finished, receive, in_background=bands.computes_elsewhere)
    finally:
        finished.close()  # the generator must not keep its sums


def _hand_on(finished: Iterator[tuple[int, Tensor]], receive: Receiver, in_background: bool) -> None:
    """Give every piece to the receiver; in a thread while the device goes on, at most one piece waiting."""
    if not in_background:
        for number, logits in finished:
            receive(number, logits)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="reduction") as executor:
        last: Future[None] | None = None
        try:
            for number, logits in finished:
                if last is not None:
                    last.result()
                last = executor.submit(receive, number, logits)
            if last is not None:
                last.result()
        finally:
            last = None  # its error leads here: a cycle, which would keep all that is held


class _Bands:
    """One pass over the tiles of an image."""

    def __init__(self, ensemble: Ensemble, image: Tensor, lines: bool, on_device: bool) -> None:
        self._ensemble, self._settings = ensemble, ensemble.settings
        self._to = self._settings.device_of_sums if on_device else torch.device("cpu")
        image, self._original, whole = ensemble.tiles_of(image)
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
        self.computes_elsewhere = self._settings.device.type != "cpu"

    @torch.inference_mode()
    def run(self) -> Generator[tuple[int, Tensor], None, None]:
        """Yield finished logits in order, see `Receiver`."""
        settings, size = self._settings, self._sliding.image_size
        like = (self._axis + 1, settings.dtype_of_sums, settings.device_of_sums)
        totals = [RollingSums((settings.heads, *size), *like) for _ in self._ensemble.members]
        weight = RollingSums((1, *size), *like)
        weighed = 0  # windows whose weights are in the sum: all that touch the band, before any of its tiles is added
        groups = self._groups()
        for group, following in zip(groups, [*groups[1:], None], strict=True):
            stop = max(window[self._axis].stop for window in group)
            weighed = self._weigh(weighed, stop, weight)
            self._add(group, stop, totals, weight)
            end = size[self._axis] if following is None else following[0][self._axis].start
            yield from self._finish(end, totals, weight)

    def _groups(self) -> list[list[Window]]:
        """Windows that begin at the same line or plane, cut where passes end: those stay as they are without bands."""
        groups: list[list[Window]] = []
        for windows in self._sliding.batches(self._settings.tiles_per_pass):
            if groups and windows[0][self._axis].start == groups[-1][0][self._axis].start:
                groups[-1].extend(windows)
            else:
                groups.append(list(windows))
        return groups

    def _weigh(self, weighed: int, stop: int, weight: RollingSums) -> int:
        """Add the weights of all tiles that begin before `stop`; returns the number of windows that are done."""
        windows = self._sliding.windows
        while weighed < len(windows) and windows[weighed][self._axis].start < stop:
            (moved,) = self._moved(windows[weighed : weighed + 1], weight.first)
            weight.reach(windows[weighed][self._axis].stop)[0][moved] += self._sliding.weights
            weighed += 1
        return weighed

    def _moved(self, windows: Sequence[Window], first: int) -> list[Window]:
        """Windows in a band that begins at `first`."""
        return [
            tuple(
                slice(part.start - first, part.stop - first) if axis == self._axis else part
                for axis, part in enumerate(window)
            )
            for window in windows
        ]

    def _in_image(self, window: Window, first: int) -> Window:
        """A window of a band that begins at `first`, as it lies in the padded image."""
        (window,) = self._moved([window], -first)
        if not self._lines_per_slice:
            return window
        number, line = divmod(window[1].start, self._lines_per_slice)
        return slice(number, number + 1), slice(line, line + window[1].stop - window[1].start), window[2]

    def _add(self, windows: list[Window], stop: int, totals: list[RollingSums], weight: RollingSums) -> None:
        """Predict some tiles with every member and add them."""
        first, ensemble = weight.first, self._ensemble
        image = self._image.narrow(self._axis + 1, first, stop - first)
        sliding = replace(self._sliding, image_size=tuple(image.shape[1:]), windows=self._moved(windows, first))
        scale = ensemble.scale_of(weight.part(first, stop)[0])
        for member, total in zip(ensemble.members, totals, strict=True):
            try:
                ensemble.add_predictions(member, total.reach(stop), image, sliding, scale)
            except TileNotANumber as error:
                raise TileNotANumber(self._in_image(error.tile, first)) from error

    def _finish(self, end: int, totals: list[RollingSums], weight: RollingSums) -> Iterator[tuple[int, Tensor]]:
        """Divide what no later tile touches and yield it without the padding."""
        for number, start, stop in self._originals(weight.first, end):
            step = max(1, PIECE // totals[0].part(start, start + 1).numel())
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
        """The members' mean logits without padding."""
        weight = weight[0].clone()
        scale = self._ensemble.scale_of(weight)
        if scale is not None:
            weight *= scale
        everything = slice(None)
        _, rows, columns = self._original
        original = (everything, everything if self._lines_per_slice else rows, columns)
        members = SumOfMembers(len(totals))
        for total in totals:
            members.add(weighted_mean(total, weight, original))
        return members.mean().to(self._to, copy=True)
