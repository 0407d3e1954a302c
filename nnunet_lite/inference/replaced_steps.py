"""Predictors whose logits are somebody's own: subclasses, or objects, that replace one of the public steps by theirs.

What they replace is then used for files and arrays, too, at the price of logits of the whole image in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from nnunet_lite.exceptions import ExtensionError
from nnunet_lite.inference.device_memory import Weights
from nnunet_lite.inference.logit_prediction import Progress
from nnunet_lite.inference.sum_of_members import rounded

SLIDING_WINDOW = "predict_sliding_window_return_logits"
LOGITS = "predict_logits_from_preprocessed_data"


def replaces(predictor: Any, base: type, *methods: str) -> bool:
    """Whether a predictor, by its class or itself, has its own of any of these methods of the base class."""
    return any(getattr(getattr(predictor, name), "__func__", None) is not getattr(base, name) for name in methods)


def mean_over_members(
    predict: Callable[[Tensor], Tensor],
    image: Tensor,
    members: Sequence[Weights | None],
    load: Callable[[Weights | None], None],
) -> Tensor:
    """Mean of what a sliding window of one's own puts out with the weights of each member, in half precision."""
    total: Tensor | None = None
    for member in members:
        load(member)
        logits = predict(image).cpu()
        total = logits.float() if total is None else total.add_(logits)
    assert total is not None
    return rounded(total, len(members))


def checked(logits: Any, image: Tensor, heads: int) -> Tensor:
    """Logits of one's own (heads, x, y, z) as they are exported: in half precision on the CPU.

    Raises:
        ExtensionError: they are not of that shape, or no tensor.
    """
    expected = (heads, *image.shape[1:])
    if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ExtensionError(f"The predictor's own {LOGITS} or {SLIDING_WINDOW} returned {given}, expected {expected}")
    return rounded(logits.detach().cpu(), 1)


class SeveralPasses:
    """Progress of a case that is predicted in passes nobody knows the number of: tiles add up, nothing starts over."""

    def __init__(self, progress: Progress, passes: int) -> None:
        self._progress = progress
        self._passes = passes
        self._begun = False

    def reset(self, total: float | None = None) -> None:
        """A pass of so many tiles begins."""
        if not self._begun:
            self._progress.reset((total or 0) * self._passes)
        self._begun = True

    def update(self, n: float | None = 1) -> object:
        """So many tiles are done."""
        return self._progress.update(n)
