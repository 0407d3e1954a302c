"""The pseudo Dice of an epoch: hard counts of the validation batches, and how step results are put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

StepOutput = dict[str, Any]


def hard_counts(
    output: torch.Tensor, target: torch.Tensor, has_regions: bool, ignore_label: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """True positives, false positives and false negatives per foreground class or region, over batch and space.

    Counted in int64 where upstream sums float32, so that they stay exact beyond 2^24 voxels.

    Args:
        output: logits (b, c, ...) at full resolution.
        target: labels (b, 1, ...), or regions (b, r, ...) with the ignore channel last if there is one.
        has_regions: whether heads are regions (sigmoid) rather than labels (softmax; background is left out).
        ignore_label: None without one.
    """
    if has_regions:
        predicted = output > 0  # sigmoid above 0.5
        valid = None if ignore_label is None else ~target[:, -1:].bool()
        reference = (target if ignore_label is None else target[:, :-1]).bool()
        if valid is not None:
            predicted, reference = predicted & valid, reference & valid
    else:
        classes = torch.arange(1, output.shape[1], device=output.device).view(1, -1, *(1,) * (output.ndim - 2))
        labels = output.argmax(1, keepdim=True)
        if ignore_label is not None:
            labels = torch.where(target == ignore_label, -1, labels)
        predicted, reference = labels == classes, target == classes
    axes = (0, *range(2, output.ndim))
    true_positives = (predicted & reference).sum(axes)
    return true_positives, predicted.sum(axes) - true_positives, reference.sum(axes) - true_positives


def dice_from_counts(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> tuple[float, list[float]]:
    """Mean over classes (NaN ones left out) and Dice per class; NaN where a class neither exists nor is predicted."""
    denominator = (2 * tp + fp + fn).astype(np.float64)
    per_class = np.divide(2 * tp, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)
    finite = per_class[~np.isnan(per_class)]
    return float(finite.mean()) if finite.size else float("nan"), [float(value) for value in per_class]


def collate_outputs(outputs: Sequence[StepOutput]) -> dict[str, Any]:
    """Step results of an epoch by key: numbers as a list, arrays stacked on a new first axis, lists joined.

    Raises:
        ValueError: a value of any other kind.
    """
    collated: dict[str, Any] = {}
    for key in outputs[0]:
        # of an epoch that was continued, the first results may be tensors where a user's step returns arrays
        values = [_on_host(output[key]) for output in outputs]
        first = values[0]
        if np.isscalar(first) or (isinstance(first, np.ndarray) and first.ndim == 0):
            collated[key] = values
        elif isinstance(first, np.ndarray):
            collated[key] = np.stack(values)
        elif isinstance(first, list):
            collated[key] = [item for value in values for item in value]
        else:
            raise ValueError(f"step result {key!r} is a {type(first).__name__}: expected a number, an array or a list")
    return collated


def _on_host(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def to_host(outputs: Sequence[StepOutput]) -> list[StepOutput]:
    """The same results with tensors as numpy arrays, fetched from the device in one go per key."""
    fetched = [dict(output) for output in outputs]
    for key in outputs[0] if outputs else ():
        values = [output.get(key) for output in outputs]
        tensors = [value.detach() for value in values if isinstance(value, torch.Tensor)]
        if len(tensors) == len(values):
            for output, array in zip(fetched, torch.stack(tensors).cpu().numpy(), strict=True):
                output[key] = np.asarray(array)
    return fetched
