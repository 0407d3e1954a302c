"""From logits at network resolution to labels at image resolution, block by block.

Classes x voxels never exist at the image's resolution: a few rows of a plane are interpolated, reduced to labels and
forgotten. Each thread works on its own blocks with plain single-threaded kernels: what it touches stays in its cache,
and threads never wait for one another. Memory depends neither on the number of classes nor on the size of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.preprocessing.interpolation import AxisMap, InterpolationPlan
from nnunet_lite.utilities.device import num_threads

_BLOCK = 2**18  # logits that are blended, rounded and reduced at once: 1 MiB in float32, what a core's cache holds
_PLANES = 64  # that a block of rows passes through: the source of a task stays small, whatever the image's size

Reduction = Callable[[Tensor], NDArray[Any]]  # logits (heads, rows, columns) -> labels (rows, columns)
Block = Callable[[int, slice, Tensor], None]  # index of the plane, its rows, logits (heads, rows, columns)
Repeat = Callable[[int, slice], None]  # the same rows of a plane that equals the one before it


def is_linear(plan: InterpolationPlan) -> bool:
    """Whether the plan asks for nothing but linear interpolation and index selection, which is what is done here."""
    return all(axis.mode != "spline" or axis.order == 1 for axis in plan.axes)


def type_of_interpolation(plan: InterpolationPlan) -> torch.dtype:
    """What logits are interpolated in.

    Where the result is rounded to the type of the logits that is float64, as upstream has it: with float32 one logit in
    a hundred is rounded to the other neighbour in half precision.
    """
    return torch.float64 if plan.keeps_type and not plan.is_identity else torch.float32


def reduction_to_labels(label_manager: LabelManager) -> Reduction:
    """What turns a block of logits into labels: the largest logit (the lowest index on ties), or painted regions."""
    own = type(label_manager).convert_logits_to_segmentation is not LabelManager.convert_logits_to_segmentation
    if own or label_manager.has_regions:
        return lambda block: np.asarray(label_manager.convert_logits_to_segmentation(block.numpy()))
    table = label_manager.labels_of_channels
    if table is None:
        return lambda block: index_of_largest(block.numpy())
    return lambda block: table[index_of_largest(block.numpy())]


def index_of_largest(block: NDArray[np.float32]) -> NDArray[Any]:
    """`block.argmax(0)`, ten times faster: the maximum first, then the lowest index that has it; both vectorise.

    Args:
        block: (heads, rows, columns).
    """
    heads = len(block)
    dtype = np.uint8 if heads <= 255 else np.uint16 if heads <= 65535 else np.uint32
    countdown = np.arange(heads, 0, -1, dtype=dtype)[:, None, None]
    is_largest = block == block.max(0)
    found = (is_largest.view(np.uint8) * countdown).max(0)
    if not found.all():  # NaN equals nothing
        index: NDArray[Any] = block.argmax(0)
        return index
    labels: NDArray[Any] = dtype(heads) - found
    return labels


class InterpolatedRows:
    """Some rows of the logits (heads, x, y, z) at output resolution, one index of the first axis at a time.

    Values are rounded to the type of the logits if the plan keeps it, so that ties are those of an array that was
    resized as a whole.
    """

    def __init__(self, logits: Tensor, plan: InterpolationPlan, rows: slice) -> None:
        lower, upper, fraction = (tap[rows] for tap in taps_of(plan.axes[1]))
        upper = upper if fraction.any() else lower
        self._source_rows = slice(int(lower.min()), int(upper.max()) + 1)
        self._lower_row, self._upper_row = (torch.from_numpy(tap - self._source_rows.start) for tap in (lower, upper))
        self._type = type_of_interpolation(plan)
        self._row_fraction = torch.tensor(fraction, dtype=self._type)[:, None] if fraction.any() else None
        self._keeps_rows = self._row_fraction is None and np.array_equal(np.diff(lower), np.ones(len(lower) - 1))
        self._columns = plan.axes[2]
        self._planes = taps_of(plan.axes[0])
        self._logits = logits
        self._resized: dict[int, Tensor] = {}  # source index -> these rows at output resolution, the two in use
        shape = (len(logits), len(lower), self._columns.size_out)
        self._blend = torch.empty(shape, dtype=self._type)
        self._rounded = torch.empty(shape, dtype=logits.dtype) if self._type == torch.float64 else None
        self._values = torch.empty(shape)

    def sources(self, index: int) -> tuple[int, int, float]:
        """The two source planes of an output plane and the weight of the second."""
        lower, upper, fraction = self._planes
        return int(lower[index]), int(upper[index]), float(fraction[index])

    def plane(self, index: int) -> Tensor:
        """Float32 logits (heads, rows, columns) of an output plane; the tensor is reused."""
        lower, upper, fraction = self.sources(index)
        wanted = (lower, upper) if fraction else (lower,)
        for source in self._resized.keys() - wanted:
            del self._resized[source]
        for source in wanted:
            if source not in self._resized:
                self._resized[source] = self._resize(source)
        values = self._resized[lower]
        if fraction:
            values = torch.lerp(values, self._resized[upper], fraction, out=self._blend)
        return values if self._rounded is None else self._values.copy_(self._rounded.copy_(values))

    def _resize(self, source: int) -> Tensor:
        values = self._logits[:, source, self._source_rows].to(self._type)
        columns = self._columns
        if columns.mode == "nearest":
            values = values.index_select(2, torch.from_numpy(columns.index.copy()))
        elif columns.mode == "spline":
            values = F.interpolate(values, size=columns.size_out, mode="linear", align_corners=False)
        if self._keeps_rows:
            return values
        lower = values.index_select(1, self._lower_row)
        if self._row_fraction is None:
            return lower
        return lower.lerp_(values.index_select(1, self._upper_row), self._row_fraction)


def taps_of(axis: AxisMap) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Per output position the two source indices and the weight of the second, whatever is done along the axis."""
    if axis.mode == "spline":
        return axis.taps
    index = axis.index if axis.mode == "nearest" else np.arange(axis.size_out)
    return index, index, np.zeros(axis.size_out)


def for_each_block(logits: Tensor, plan: InterpolationPlan, block: Block, repeat: Repeat, threads: int | None) -> None:
    """Interpolate logits as `plan` says and hand every block of the result to a consumer, once.

    Args:
        logits: (heads, x, y, z) on the CPU, any float type.
        plan: linear or nearest per axis, see `is_linear`.
        block: takes the logits, which are overwritten when it returns; called in several threads.
        repeat: called instead where they would equal those of the plane before.
        threads: default is torch's number.
    """
    threads = threads or torch.get_num_threads()
    planes, rows, columns = (axis.size_out for axis in plan.axes)
    height = min(rows, max(1, _BLOCK // (len(logits) * columns)))
    row_ranges = _ranges(rows, math.ceil(rows / height))
    wanted = math.ceil(4 * threads / len(row_ranges)) if threads > 1 else 1  # threads end at about the same time
    tasks = [
        (part, slice(first, last))
        for part in _ranges(planes, min(planes, max(wanted, math.ceil(planes / _PLANES))))
        for first, last in row_ranges
    ]

    @torch.inference_mode()
    def work(task: tuple[tuple[int, int], slice]) -> None:
        part, rows = task
        interpolated = InterpolatedRows(logits, plan, rows)
        previous: tuple[int, int, float] | None = None
        for index in range(*part):
            sources = interpolated.sources(index)
            if sources == previous:  # thick slices: the same plane again
                repeat(index, rows)
            else:
                block(index, rows, interpolated.plane(index))
            previous = sources

    with num_threads(1):
        _run(work, tasks, min(threads, len(tasks)))


def _ranges(total: int, parts: int) -> list[tuple[int, int]]:
    bounds = np.linspace(0, total, parts + 1).astype(int).tolist()
    return list(zip(bounds[:-1], bounds[1:], strict=True))


def _run(work: Callable[[Any], None], tasks: Iterable[Any], threads: int) -> None:
    if threads <= 1:
        for task in tasks:
            work(task)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="export") as executor:
        try:
            for _ in executor.map(work, tasks):
                pass
        except BaseException:
            executor.shutdown(wait=True, cancel_futures=True)
            raise


def reduce_logits(
    logits: Tensor,
    plan: InterpolationPlan,
    label_manager: LabelManager,
    labels: NDArray[Any],
    probabilities: NDArray[np.float32] | None = None,
    threads: int | None = None,
    log_of_sum: NDArray[np.float32] | None = None,
) -> None:
    """Interpolate logits as `plan` says, and write labels and, if asked for, probabilities.

    Args:
        logits: (heads, x, y, z) on the CPU, any float type.
        plan: linear or nearest per axis, see `is_linear`.
        label_manager: what the heads mean.
        labels: (x_out, y_out, z_out), written; any integer type, may be a view.
        probabilities: (heads, x_out, y_out, z_out), written; may be a view or memory-mapped.
        threads: default is torch's number.
        log_of_sum: (x_out, y_out, z_out), written: the logarithm of the sum of the exponentials of all heads.
    """
    label_manager.convert_logits_to_segmentation(np.zeros((len(logits), 1, 1), np.float32))  # heads and labels fit
    reduce = reduction_to_labels(label_manager)

    def block(index: int, rows: slice, values: Tensor) -> None:
        labels[index, rows] = reduce(values)
        if probabilities is not None:
            probabilities[:, index, rows] = label_manager.apply_inference_nonlin(values).numpy()
        if log_of_sum is not None:
            log_of_sum[index, rows] = values.logsumexp(0).numpy()

    def repeat(index: int, rows: slice) -> None:
        labels[index, rows] = labels[index - 1, rows]
        if probabilities is not None:
            probabilities[:, index, rows] = probabilities[:, index - 1, rows]
        if log_of_sum is not None:
            log_of_sum[index, rows] = log_of_sum[index - 1, rows]

    for_each_block(logits, plan, block, repeat, threads)
