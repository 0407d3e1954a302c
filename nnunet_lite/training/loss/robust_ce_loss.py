"""Cross entropy that takes labels with a channel axis, and its top-k variant."""

from __future__ import annotations

import torch
from torch import nn


class RobustCrossEntropyLoss(nn.CrossEntropyLoss):
    """Cross entropy in float32; the target is (b, 1, ...) or (b, ...) of any integer type."""

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (b, c, ...)."""
        if target.ndim == input.ndim:
            target = target[:, 0]
        return super().forward(input.float(), target.long())


class TopKLoss(RobustCrossEntropyLoss):
    """Mean over the k percent of voxels of the batch with the largest cross entropy.

    Ignored voxels have a loss of 0 but count among the voxels. Fewer than 100/k voxels select nothing: NaN.
    """

    def __init__(
        self, weight: torch.Tensor | None = None, ignore_index: int = -100, k: float = 10, label_smoothing: float = 0
    ) -> None:
        super().__init__(weight, ignore_index=ignore_index, reduction="none", label_smoothing=label_smoothing)
        self.k = k

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (b, c, ...)."""
        losses = super().forward(input, target).flatten()
        largest, _ = torch.topk(losses, int(losses.numel() * self.k / 100), sorted=False)
        return largest.mean()
