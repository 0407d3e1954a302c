"""From logits that are still on a GPU to labels at image resolution: interpolation and argmax there, labels come back.

The same steps as on the CPU (see `logit_reduction`), a box of planes and rows at a time, as large as the device's
memory allows. Any device will do; whether a GPU is faster than copying the logits is for the caller to decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_lite.inference.logit_reduction import reduce_logits, taps_of, type_of_interpolation
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.preprocessing.interpolation import AxisMap, InterpolationPlan
from nnunet_lite.utilities.device import empty_cache, free_memory, in_main_memory, is_out_of_memory
from nnunet_lite.utilities.logging import logger

BUDGET = 2**28  # bytes for intermediate values, where the device does not tell what it has or others take it, too
_COPIES = 6  # of a box that may exist at once: both neighbours, their blend, what rounding needs


def reduces_on(device: torch.device) -> bool:
    """Whether logits that are on a device are to be reduced there: a GPU that tells how much memory it has left."""
    return free_memory(device) is not None


def can_reduce_on_device(label_manager: LabelManager) -> bool:
    """Whether labels are found in the usual way; a label manager of somebody's own may need arrays or the CPU."""
    return type(label_manager).convert_logits_to_segmentation is LabelManager.convert_logits_to_segmentation


@torch.inference_mode()
def reduce_logits_on_device(
    logits: Tensor,
    plan: InterpolationPlan,
    label_manager: LabelManager,
    labels: NDArray[Any],
    budget: int | None = None,
) -> None:
    """Interpolate logits where they are and write labels; what the device has no memory for is done on the CPU.

    Args:
        logits: (heads, x, y, z) on any device, any float type.
        plan: linear or nearest per axis, see `logit_reduction.is_linear`.
        label_manager: see `can_reduce_on_device`.
        labels: (x_out, y_out, z_out), written; may be a view.
        budget: bytes for intermediate values; by default half of what the device has left.
    """
    budget = (free_memory(logits.device) or 2 * BUDGET) // 2 if budget is None else budget
    while True:
        try:
            for planes, rows in _boxes(plan, len(logits), budget):
                values = _interpolated(logits, plan, planes, rows)
                found = label_manager.convert_logits_to_segmentation(values)
                labels[planes, rows] = found.to(_wire_type(label_manager)).cpu().numpy()
            return
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            empty_cache(logits.device)
            if budget < BUDGET:
                logger.warning("The GPU's memory does not suffice to resize logits; this is done on the CPU")
                break
            budget //= 4
    reduce_logits(in_main_memory(logits), plan, label_manager, labels)


def _boxes(plan: InterpolationPlan, heads: int, budget: int) -> Iterator[tuple[slice, slice]]:
    """Planes and rows of the output whose values fit the budget together; one row of one plane at least."""
    planes, rows, _ = (axis.size_out for axis in plan.axes)
    x, y, z = (max(axis.size_in, axis.size_out) for axis in plan.axes)  # where logits are finer, more of them are read
    size = _COPIES * type_of_interpolation(plan).itemsize * heads * y * z
    at_once = max(1, budget * planes // (size * x))
    height = min(rows, max(1, budget * rows // size)) if at_once == 1 else rows
    for plane in range(0, planes, at_once):
        for row in range(0, rows, height):
            yield slice(plane, min(plane + at_once, planes)), slice(row, min(row + height, rows))


def _interpolated(logits: Tensor, plan: InterpolationPlan, planes: slice, rows: slice) -> Tensor:
    """Float32 logits (heads, planes, rows, columns) of a box, rounded to the type of the logits."""
    x, y, z = plan.axes
    sources = _sources(x, planes), _sources(y, rows)
    values = logits[:, sources[0], sources[1]].to(type_of_interpolation(plan))
    values = _along(values, 3, z, slice(None), 0)
    values = _along(values, 2, y, rows, sources[1].start)
    values = _along(values, 1, x, planes, sources[0].start)
    return values.to(logits.dtype).float() if values.dtype == torch.float64 else values


def _sources(axis: AxisMap, part: slice) -> slice:
    lower, upper, _ = taps_of(axis)
    return slice(int(lower[part].min()), int(upper[part].max()) + 1)


def _along(values: Tensor, dimension: int, axis: AxisMap, part: slice, first: int) -> Tensor:
    """Interpolate one axis; `first` is the source index at which the values begin."""
    if axis.mode == "identity":
        return values
    lower, upper, fraction = (tap[part] for tap in taps_of(axis))
    at_lower = values.index_select(dimension, torch.from_numpy(lower - first).to(values.device))
    if not np.any(fraction):
        return at_lower
    at_upper = values.index_select(dimension, torch.from_numpy(upper - first).to(values.device))
    shape = [-1 if number == dimension else 1 for number in range(values.ndim)]
    weight = torch.tensor(fraction, dtype=values.dtype).to(values.device).view(shape)
    return at_lower.lerp_(at_upper, weight)


def _wire_type(label_manager: LabelManager) -> torch.dtype:
    return torch.uint8 if label_manager.output_dtype is np.uint8 else torch.int32
