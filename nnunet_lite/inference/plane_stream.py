"""Logits that come plane by plane, in order, and are reduced to labels as soon as their neighbours are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_lite.inference.logit_reduction import reduce_logits
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


def first_and_last_inputs(axis: AxisMap) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first and the last input of every output along a linear axis, neither ever falls; (size_out,) each."""
    if axis.mode == "spline":
        return axis.taps.lower, axis.taps.upper
    index = axis.index if axis.mode == "nearest" else np.arange(axis.size_out)
    return index, index


class PlaneStream:
    """Reduces a volume whose planes come in order; the result equals that of `reduce_logits` on the whole.

    Args:
        plan: of the whole volume, linear.
        label_manager: what the heads mean.
        labels: (x_out, y_out, z_out), written; may be a view.
        probabilities: (heads, x_out, y_out, z_out), written; may be a view or memory-mapped.
        threads: default is torch's number.
    """

    def __init__(
        self,
        plan: InterpolationPlan,
        label_manager: LabelManager,
        labels: NDArray[Any],
        probabilities: NDArray[np.float32] | None = None,
        threads: int | None = None,
    ) -> None:
        self._plan = plan
        self._label_manager = label_manager
        self._labels = labels
        self._probabilities = probabilities
        self._threads = threads
        self._firsts, self._lasts = first_and_last_inputs(plan.axes[0])
        self._held: Tensor | None = None  # (heads, n, y, z), planes that later outputs need, too
        self._received = 0  # planes, in all
        self._written = 0  # output planes

    @torch.inference_mode()
    def feed(self, planes: Tensor) -> None:
        """Take the next planes (heads, n, y, z), on the CPU, and write every output that needs no further ones."""
        held = planes if self._held is None else torch.cat([self._held, planes], 1)
        self._received += planes.shape[1]
        first = self._received - held.shape[1]
        start, stop = self._written, int(np.searchsorted(self._lasts, self._received))
        if stop > start:
            low, high = int(self._firsts[start]), int(self._lasts[stop - 1]) + 1
            axis, *others = self._plan.axes
            part = AxisPart(axis.mode, high - low, stop - start, axis.order, axis, start, low)
            reduce_logits(
                held[:, low - first : high - first],
                InterpolationPlan((part, others[0], others[1]), self._plan.separate_axis),
                self._label_manager,
                self._labels[start:stop],
                None if self._probabilities is None else self._probabilities[:, start:stop],
                self._threads,
            )
            self._written = stop
        needed = int(self._firsts[stop]) if stop < len(self._firsts) else self._received
        kept = max(0, self._received - needed)
        self._held = held[:, held.shape[1] - kept :].clone() if kept else None
