"""The mean of an ensemble's logits: added up in the type of each, which in half precision must not overflow."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nnunet_lite.inference.sliding_window_prediction import HALF_MAX


class SumOfMembers:
    """Logits (heads, x, y, z) of members that come one after the other; those of the first are overwritten.

    Where a sum could exceed half precision, a power of two is taken out of all of them. That changes no digit but of
    numbers that are next to nothing beside such logits.

    Args:
        members: how many will come.
    """

    def __init__(self, members: int) -> None:
        self._members = members
        self._sum: Tensor | None = None
        self._factor = 1.0

    def add(self, logits: Tensor) -> None:
        """The logits of the next member, which may be overwritten."""
        if self._sum is None:
            self._sum = logits
            return
        if self._factor == 1 and logits.dtype == torch.float16 and _largest(self._sum) + _largest(logits) > HALF_MAX:
            self._factor = 2.0 ** -math.ceil(math.log2(self._members))
            self._sum.mul_(self._factor)
        self._sum.add_(logits if self._factor == 1 else logits.mul_(self._factor))

    def mean(self) -> Tensor:
        """Their mean in half precision; the sum is overwritten."""
        assert self._sum is not None
        mean, self._sum = self._sum, None
        mean = rounded(mean, self._members * self._factor)
        return mean if self._factor == 1 else mean.clamp_(-HALF_MAX, HALF_MAX)  # the sum may have been rounded up


def rounded(logits: Tensor, members: float) -> Tensor:
    """The mean in half precision of logits that were added up over members; overwrites them."""
    if members != 1:
        logits.div_(members)
    return logits if logits.dtype == torch.float16 else logits.clamp_(-HALF_MAX, HALF_MAX).half()


def _largest(logits: Tensor) -> float:
    """The largest absolute value; not by `aminmax`, which would copy a view."""
    axes = tuple(range(1, logits.ndim))
    largest: list[float] = torch.cat([logits.amax(axes), -logits.amin(axes)]).tolist()
    return max(largest)
