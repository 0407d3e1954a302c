"""From logits at network resolution to labels at image resolution, plane by plane.

Classes x voxels never exist at the image's resolution: a plane is interpolated, reduced to labels and forgotten. Each
thread works on its own planes with plain single-threaded kernels: what it touches stays in its cache, and threads
never wait for one another.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nnunet_lite.inference.large_planes import has_large_planes, lines_of_plane, logits_of_plane
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.preprocessing.interpolation import AxisMap, InterpolationPlan
from nnunet_lite.utilities.device import num_threads

_BLOCK = 2**18  # logits that are blended, rounded and reduced at once: 1 MiB in float32, what a core's cache holds

Reduction = Callable[[Tensor], NDArray[Any]]  # logits (heads, rows, columns) -> labels (rows, columns)


def is_linear(plan: InterpolationPlan) -> bool:
    """Whether the plan asks for nothing but linear interpolation and index selection, which is what is done here."""
    return all(axis.mode != "spline" or axis.order == 1 for axis in plan.axes)


def reduction_to_labels(label_manager: LabelManager) -> Reduction:
    """What turns a block of logits into labels: the largest logit (the lowest index on ties), or painted regions."""
    own = type(label_manager).convert_logits_to_segmentation is not LabelManager.convert_logits_to_segmentation
    if own or label_manager.has_regions:
        return lambda block: np.asarray(label_manager.convert_logits_to_segmentation(block.numpy()))
    return lambda block: block.max(0).indices.numpy()  # three times faster than argmax over the first axis


class InterpolatedPlanes:
    """Logits (heads, x, y, z) at output resolution, one index of the first axis at a time.

    Values are rounded to the type of the logits, so that ties are those of an array that was resized as a whole.
    """

    def __init__(self, logits: Tensor, plan: InterpolationPlan) -> None:
        self._logits = logits
        self._plan = plan
        self._resized: dict[int, Tensor] = {}  # source index -> plane at output resolution, the two in use
        self._lower, self._upper, self._fraction = _taps(plan.axes[0])

    def sources(self, index: int) -> tuple[int, int, float]:
        """The two source planes of an output plane and the weight of the second."""
        return int(self._lower[index]), int(self._upper[index]), float(self._fraction[index])

    def blocks(self, index: int) -> Any:
        """Yield (rows, float32 logits (heads, rows, columns)) of an output plane; the tensor is reused."""
        lower, upper, fraction = self.sources(index)
        wanted = (lower, upper) if fraction else (lower,)
        self._resized = {source: self._plane(source) for source in wanted}
        first, second = self._resized[lower], self._resized.get(upper)
        heads, rows, columns = first.shape
        step = max(1, _BLOCK // (heads * columns))
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            block = first[:, part]
            if second is not None and fraction:
                block = torch.lerp(block, second[:, part], fraction)
            if self._logits.dtype != torch.float32:
                block = block.to(self._logits.dtype).float()
            yield part, block

    def _plane(self, source: int) -> Tensor:
        if source in self._resized:
            return self._resized[source]
        plane = self._logits[:, source].float()
        rows, columns = self._plan.axes[1:]
        for dimension, axis in ((1, rows), (2, columns)):
            if axis.mode == "nearest":
                plane = plane.index_select(dimension, torch.from_numpy(axis.index.copy()))
        if "spline" in (rows.mode, columns.mode):
            size = [rows.size_out, columns.size_out]
            plane = F.interpolate(plane[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
        return plane


def _taps(axis: AxisMap) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    if axis.mode == "spline":
        return axis.taps
    index = axis.index if axis.mode == "nearest" else np.arange(axis.size_out)
    return index, index, np.zeros(axis.size_out)


def reduce_logits(
    logits: Tensor,
    plan: InterpolationPlan,
    label_manager: LabelManager,
    labels: NDArray[Any],
    probabilities: NDArray[np.float32] | None = None,
    threads: int | None = None,
) -> None:
    """Interpolate logits as `plan` says, and write labels and, if asked for, probabilities.

    Args:
        logits: (heads, x, y, z) on the CPU, any float type.
        plan: linear or nearest per axis, see `is_linear`.
        label_manager: what the heads mean.
        labels: (x_out, y_out, z_out), written; any integer type, may be a view.
        probabilities: (heads, x_out, y_out, z_out), written; may be a view or memory-mapped.
        threads: default is torch's number.
    """
    label_manager.convert_logits_to_segmentation(np.zeros((len(logits), 1, 1), np.float32))  # heads and labels fit
    if not has_large_planes(len(logits), plan):
        _reduce(logits, plan, label_manager, labels, probabilities, threads)
        return
    for index in range(len(labels)):
        lines = lines_of_plane(plan, index, labels, probabilities)
        _reduce(logits_of_plane(logits, index), lines.plan, label_manager, *lines[1:], threads)


def _reduce(
    logits: Tensor,
    plan: InterpolationPlan,
    label_manager: LabelManager,
    labels: NDArray[Any],
    probabilities: NDArray[np.float32] | None,
    threads: int | None,
) -> None:
    threads = min(threads or torch.get_num_threads(), len(labels))
    bounds = np.linspace(0, len(labels), threads + 1).astype(int).tolist()
    ranges = list(zip(bounds[:-1], bounds[1:], strict=True))

    def work(limits: tuple[int, int]) -> None:
        _reduce_planes(InterpolatedPlanes(logits, plan), range(*limits), label_manager, labels, probabilities)

    with num_threads(1):
        if threads <= 1:
            work(ranges[0])
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="export") as executor:
            list(executor.map(work, ranges))


@torch.inference_mode()
def _reduce_planes(
    planes: InterpolatedPlanes,
    indices: range,
    label_manager: LabelManager,
    labels: NDArray[Any],
    probabilities: NDArray[np.float32] | None,
) -> None:
    reduce = reduction_to_labels(label_manager)
    previous: tuple[int, int, float] | None = None
    for index in indices:
        sources = planes.sources(index)
        if sources == previous:  # thick slices: the same plane again
            labels[index] = labels[index - 1]
            if probabilities is not None:
                probabilities[:, index] = probabilities[:, index - 1]
            continue
        for rows, block in planes.blocks(index):
            labels[index, rows] = reduce(block)
            if probabilities is not None:
                probabilities[:, index, rows] = label_manager.apply_inference_nonlin(block).numpy()
        previous = sources
