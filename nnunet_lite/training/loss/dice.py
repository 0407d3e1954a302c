"""Soft Dice losses and hard counts of true and false voxels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from nnunet_lite.utilities.distributed import is_distributed, rank, world_size

_EPSILON = 1e-8  # keeps the denominator away from zero

Nonlinearity = Callable[[torch.Tensor], torch.Tensor]


def softmax_helper_dim1(x: torch.Tensor) -> torch.Tensor:
    """Probabilities over the channels (axis 1), in float32."""
    return torch.softmax(x.float(), 1)


class AllGatherGrad(torch.autograd.Function):
    """Stack a tensor over all ranks (new first axis); the gradient is summed over ranks and sliced back."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        """Gather; every rank gives the same shape."""
        parts = [torch.empty_like(tensor) for _ in range(world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> torch.Tensor:
        """Sum the gradients of all ranks and keep one's own part."""
        gradient = grad_outputs[0].contiguous()
        dist.all_reduce(gradient)
        return gradient[rank()]


def sum_over_ranks(statistics: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all ranks, through which gradients flow to each of them."""
    gather: Callable[[torch.Tensor], torch.Tensor] = AllGatherGrad.apply
    return gather(statistics).sum(0)


def one_hot(target: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Boolean one-hot (b, c, ...) of integer labels (b, 1, ...) or (b, ...); a target shaped as `like` is returned."""
    if target.shape == like.shape:
        return target if target.dtype == torch.bool else target.bool()
    if target.ndim == like.ndim - 1:
        target = target.unsqueeze(1)
    encoded = torch.zeros(like.shape, device=like.device, dtype=torch.bool)
    return encoded.scatter_(1, target.long(), True)


class MemoryEfficientSoftDiceLoss(nn.Module):
    """Negative mean soft Dice, all sums in float32 (spec 02, 5.1).

    Dice = (2 I + smooth) / max(G + P + smooth, 1e-8) with I, P, G the sums of intersection, prediction and reference
    over space, and over the batch too with `batch_dice`. Between -1 (perfect) and 0.

    Args:
        apply_nonlin: makes probabilities of logits (b, c, ...).
        batch_dice: one Dice per class for the whole batch (and all ranks), not one per sample.
        do_bg: whether channel 0 counts.
        smooth: added to numerator and denominator.
        ddp: with batch_dice, add the sums of all ranks up.
    """

    def __init__(
        self,
        apply_nonlin: Nonlinearity | None = None,
        batch_dice: bool = False,
        do_bg: bool = True,
        smooth: float = 1.0,
        ddp: bool = True,
    ) -> None:
        super().__init__()
        self.apply_nonlin = apply_nonlin
        self.batch_dice = batch_dice
        self.do_bg = do_bg
        self.smooth = smooth
        self.ddp = ddp

    def forward(self, x: torch.Tensor, y: torch.Tensor, loss_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Loss of logits x (b, c, ...) against labels y (b, 1, ...) or one-hot y (b, c, ...); mask (b, 1, ...)."""
        probabilities = x.float() if self.apply_nonlin is None else self.apply_nonlin(x.float())
        with torch.no_grad():
            reference = one_hot(y, x)
            if loss_mask is not None:
                reference = reference & loss_mask.bool()
            if not self.do_bg:
                reference = reference[:, 1:]
            reference_sum = reference.flatten(2).sum(2, dtype=torch.float32)
        if not self.do_bg:
            probabilities = probabilities[:, 1:]
        intersection = (probabilities * reference).flatten(2).sum(2)
        if loss_mask is not None:
            probabilities = probabilities * loss_mask
        return self._loss(intersection, probabilities.flatten(2).sum(2), reference_sum)

    def _loss(self, intersection: torch.Tensor, predicted: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        if self.batch_dice:
            intersection, predicted, reference = intersection.sum(0), predicted.sum(0), reference.sum(0)
            if self.ddp and is_distributed():
                intersection, predicted, reference = sum_over_ranks(torch.stack((intersection, predicted, reference)))
        denominator = (reference + predicted + self.smooth).clamp_min(_EPSILON)
        return -((2 * intersection + self.smooth) / denominator).mean()


class SoftDiceLoss(MemoryEfficientSoftDiceLoss):
    """The older wording by true and false positives; equal in value, with an optional lower bound on 2 tp."""

    def __init__(
        self,
        apply_nonlin: Nonlinearity | None = None,
        batch_dice: bool = False,
        do_bg: bool = True,
        smooth: float = 1.0,
        ddp: bool = True,
        clip_tp: float | None = None,
    ) -> None:
        super().__init__(apply_nonlin, batch_dice, do_bg, smooth, ddp)
        self.clip_tp = clip_tp

    def _loss(self, intersection: torch.Tensor, predicted: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        if self.clip_tp is None:
            return super()._loss(intersection, predicted, reference)
        false = (predicted - intersection) + (reference - intersection)
        clipped = intersection.clamp_min(self.clip_tp)
        return super()._loss(clipped, clipped + false, clipped)


def get_tp_fp_fn_tn(
    net_output: torch.Tensor,
    gt: torch.Tensor,
    axes: tuple[int, ...] | list[int] | None = None,
    mask: torch.Tensor | None = None,
    square: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Soft or hard counts of true positives, false positives, false negatives and true negatives, in float32.

    Args:
        net_output: probabilities or one-hot predictions (b, c, ...).
        gt: labels (b, 1, ...) or (b, ...), or one-hot (b, c, ...).
        axes: summed over (default: space); include 0 to sum over the batch.
        mask: (b, 1, ...), 0 where a voxel does not count.
        square: square the products before summing.
    """
    axes = tuple(axes) if axes is not None else tuple(range(2, net_output.ndim))
    with torch.no_grad():
        reference = one_hot(gt, net_output)
    predicted = net_output.float()
    rest, elsewhere = 1 - predicted, ~reference
    products = [predicted * reference, predicted * elsewhere, rest * reference, rest * elsewhere]
    if mask is not None:
        with torch.no_grad():
            weights = mask.float()
        products = [product * weights for product in products]
    sums = [(product**2 if square else product).sum(dim=axes) if axes else product for product in products]
    return sums[0], sums[1], sums[2], sums[3]
