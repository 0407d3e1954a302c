"""Planes so large that their lines are worked on one by one, as the planes of a volume otherwise are.

A slide of 20000 x 20000 pixels is a volume of one plane: its logits must not be held at once at the output's
resolution, and one plane would be the work of one thread.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from nnunet_lite.preprocessing.interpolation import AxisMap, InterpolationPlan

LARGE_PLANE = 2**26  # logits of one plane: 128 MiB in half precision

_ONE = AxisMap("identity", 1, 1, 1)


class Lines(NamedTuple):
    """A plane as a volume whose first axis are the plane's rows."""

    plan: InterpolationPlan
    labels: NDArray[Any]  # (rows, 1, columns)
    probabilities: NDArray[Any] | None  # (heads, rows, 1, columns)


def has_large_planes(heads: int, plan: InterpolationPlan) -> bool:
    """Whether planes are to be cut into lines: they are large, and each becomes one plane of the result."""
    first, rows, columns = plan.axes
    larger = max(rows.size_in * columns.size_in, rows.size_out * columns.size_out)
    return first.mode == "identity" and heads * larger > LARGE_PLANE


def lines_of_plane(
    plan: InterpolationPlan, index: int, labels: NDArray[Any], probabilities: NDArray[Any] | None
) -> Lines:
    """Plan and targets of one plane.

    Args:
        plan: of the volume, see `has_large_planes`.
        index: of the plane.
        labels: (x, y, z) of the volume, and probabilities (heads, x, y, z); the result has views of them.
    """
    _, rows, columns = plan.axes
    return Lines(
        InterpolationPlan((rows, _ONE, columns), None),
        labels[index][:, None],
        None if probabilities is None else probabilities[:, index][:, :, None],
    )


def logits_of_plane(logits: Tensor, index: int) -> Tensor:
    """Logits (heads, rows, 1, columns) of a plane of (heads, x, y, z), a view."""
    return logits[:, index][:, :, None]
