"""Logits that come plane by plane or line by line and are reduced to labels as soon as their neighbours are there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_lite.inference.device_reduction import BUDGET, reduce_logits_on_device, reduces_on
from nnunet_lite.inference.logit_reduction import reduce_logits, taps_of
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.preprocessing.interpolation import AxisMap, InterpolationPlan, LinearTaps


@dataclass(frozen=True)
class AxisPart(AxisMap):
    """Outputs [start, start + size_out) of an axis, with inputs counted from `first_input`."""

    whole: AxisMap
    start: int
    first_input: int

    @property
    def index(self) -> NDArray[np.int64]:
        """As that of the whole axis."""
        return self.whole.index[self.start : self.start + self.size_out] - self.first_input

    @property
    def taps(self) -> LinearTaps:
        """As those of the whole axis."""
        part = slice(self.start, self.start + self.size_out)
        lower, upper, fraction = self.whole.taps
        return LinearTaps(lower[part] - self.first_input, upper[part] - self.first_input, fraction[part])


class PlaneStream:
    """Reduces a volume whose planes (or lines) come in order; the result equals that of `reduce_logits` on the whole.

    Args:
        plan: of the whole volume, linear.
        label_manager: what the heads mean.
        labels: (x_out, y_out, z_out), written; may be a view.
        probabilities: (heads, x_out, y_out, z_out), written; may be a view or memory-mapped.
        threads: default is torch's number.
        axis: along which pieces follow one another: 0 for planes, 1 for lines.
    """

    def __init__(
        self,
        plan: InterpolationPlan,
        label_manager: LabelManager,
        labels: NDArray[Any],
        probabilities: NDArray[np.float32] | None = None,
        threads: int | None = None,
        axis: int = 0,
    ) -> None:
        self._plan = plan
        self._axis = axis
        self._label_manager = label_manager
        self._labels = labels
        self._probabilities = probabilities
        self._threads = threads
        self._firsts, self._lasts, _ = taps_of(plan.axes[axis])  # inputs of every output; neither ever falls
        self._held: Tensor | None = None  # what later outputs need, too
        self._received = 0  # planes or lines, in all
        self._written = 0  # of the output

    @torch.inference_mode()
    def feed(self, piece: Tensor) -> None:
        """Take the next planes (heads, n, y, z) or lines (heads, x, n, z); write what needs no others.

        Where probabilities are wanted they must be on the CPU; else they are reduced where they are.
        """
        dimension = self._axis + 1
        held = piece if self._held is None else torch.cat([self._held, piece], dimension)
        self._received += piece.shape[dimension]
        first = self._received - held.shape[dimension]
        start, stop = self._written, int(np.searchsorted(self._lasts, self._received))
        if stop > start:
            low, high = int(self._firsts[start]), int(self._lasts[stop - 1]) + 1
            whole = self._plan.axes[self._axis]
            part = AxisPart(whole.mode, high - low, stop - start, whole.order, whole, start, low)
            before, after = self._plan.axes[: self._axis], self._plan.axes[self._axis + 1 :]
            axes = cast("tuple[AxisMap, AxisMap, AxisMap]", (*before, part, *after))
            written: tuple[Any, ...] = (
                ...,
                *[slice(None)] * self._axis,
                slice(start, stop),
                *[slice(None)] * (2 - self._axis),
            )
            of_model = (replace(self._plan, axes=axes), self._label_manager, self._labels[written])
            logits = held.narrow(dimension, low - first, high - low)
            if self._probabilities is None and reduces_on(held.device):
                reduce_logits_on_device(logits, *of_model, BUDGET)  # not of what is free: the network allocates now
            else:
                probabilities = None if self._probabilities is None else self._probabilities[written]
                reduce_logits(logits, *of_model, probabilities, self._threads)
            self._written = stop
        needed = int(self._firsts[stop]) if stop < len(self._firsts) else self._received
        kept = max(0, self._received - needed)
        self._held = held.narrow(dimension, held.shape[dimension] - kept, kept).clone() if kept else None
