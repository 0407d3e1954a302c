"""One loss over the outputs of all resolutions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn


class DeepSupervisionWrapper(nn.Module):
    """Weighted sum of a loss over lists of outputs and targets; terms of weight 0 are not computed.

    Args:
        loss: takes (output, target) of one resolution.
        weight_factors: one per output, full resolution first (default: all 1).
    """

    def __init__(self, loss: nn.Module, weight_factors: Sequence[float] | None = None) -> None:
        super().__init__()
        if weight_factors is not None and not any(weight != 0 for weight in weight_factors):
            raise ValueError(f"deep supervision needs at least one weight other than 0, got {list(weight_factors)}")
        self.weight_factors = None if weight_factors is None else tuple(float(weight) for weight in weight_factors)
        self.loss = loss

    def forward(self, *args: Sequence[torch.Tensor]) -> torch.Tensor:
        """Loss of (outputs, targets, ...), lists of equal length."""
        weights = self.weight_factors or (1.0,) * len(args[0])
        levels = zip(weights, zip(*args, strict=True), strict=True)
        terms = [weight * self.loss(*inputs) for weight, inputs in levels if weight != 0]
        total: torch.Tensor = sum(terms[1:], start=terms[0])
        return total


def deep_supervision_weights(number: int, lowest: float = 0.0) -> list[float]:
    """Weights 2^-i of `number` outputs, the last one `lowest`, divided by their sum (spec 02, 5.5).

    A single output has weight 1 (upstream divides 0 by 0 there). `lowest` is 1e-6 where every parameter needs a
    gradient (DDP without compilation).
    """
    if number == 1:
        return [1.0]
    weights = [2.0**-i for i in range(number - 1)] + [lowest]
    return [weight / sum(weights) for weight in weights]


def deep_supervision_scales(strides: Sequence[Sequence[int]]) -> list[list[float]]:
    """Size of each output relative to the patch, per axis: strides [[1,1],[2,2],[2,2]] give [[1,1],[.5,.5]]."""
    reciprocal = 1 / np.cumprod(np.asarray(strides), axis=0)
    return [[float(factor) for factor in level] for level in reciprocal[:-1]]
