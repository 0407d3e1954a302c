"""Dice combined with cross entropy (labels), binary cross entropy (regions) or top-k cross entropy."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.training.loss.dice import (
    MemoryEfficientSoftDiceLoss,
    SoftDiceLoss,
    softmax_helper_dim1,
    sum_over_ranks,
)
from nnunet_lite.training.loss.robust_ce_loss import RobustCrossEntropyLoss, TopKLoss
from nnunet_lite.utilities.distributed import is_distributed


class DC_and_CE_loss(nn.Module):
    """weight_ce * cross entropy + weight_dice * soft Dice (spec 02, 5.2).

    Args:
        soft_dice_kwargs: for the Dice class, without apply_nonlin.
        ce_kwargs: for the cross entropy.
        weight_ce: 0 leaves the term out.
        weight_dice: 0 leaves the term out.
        ignore_label: voxels of this label count in neither term; a batch of nothing else has no cross entropy.
        dice_class: SoftDiceLoss or MemoryEfficientSoftDiceLoss.
    """

    def __init__(
        self,
        soft_dice_kwargs: dict[str, Any],
        ce_kwargs: dict[str, Any],
        weight_ce: float = 1,
        weight_dice: float = 1,
        ignore_label: int | None = None,
        dice_class: type[nn.Module] = SoftDiceLoss,
    ) -> None:
        super().__init__()
        self.weight_ce = weight_ce
        self.weight_dice = weight_dice
        self.ignore_label = ignore_label
        self.ddp: bool = soft_dice_kwargs.get("ddp", True)
        if ignore_label is not None:
            ce_kwargs = {**ce_kwargs, "ignore_index": ignore_label}
        self.ce: nn.Module = self._make_ce(ce_kwargs)
        self.dc: nn.Module = dice_class(apply_nonlin=softmax_helper_dim1, **soft_dice_kwargs)

    @staticmethod
    def _make_ce(kwargs: dict[str, Any]) -> nn.Module:
        return RobustCrossEntropyLoss(**kwargs)

    def forward(self, net_output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (b, c, ...) against labels (b, 1, ...)."""
        labels, mask = target, None
        if self.ignore_label is not None:
            if target.shape[1] != 1:
                raise ValueError(f"ignore label: expected labels of shape (b, 1, ...), got {tuple(target.shape)}")
            mask = target != self.ignore_label
            labels = torch.where(mask, target, 0)
        loss = net_output.new_zeros((), dtype=torch.float32)
        if self.weight_dice != 0:
            loss = loss + self.weight_dice * self.dc(net_output, labels, loss_mask=mask)
        if self.weight_ce != 0:
            loss = loss + self.weight_ce * self._cross_entropy(net_output, target, mask)
        return loss

    def _cross_entropy(self, net_output: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Cross entropy, 0 without valid voxels; decided on the device, so that the host does not wait."""
        loss: torch.Tensor = self.ce(net_output, target)
        if mask is None:
            return loss
        loss = torch.where(mask.any(), loss, 0.0)
        if not (self.ddp and is_distributed()) or isinstance(self.ce, TopKLoss):
            return loss
        valid = mask.sum(dtype=torch.float32)  # ranks have different numbers of them
        total, valid = sum_over_ranks(torch.stack((loss * valid, valid))).unbind()
        return total / valid.clamp_min(1)


class DC_and_topk_loss(DC_and_CE_loss):
    """Dice plus cross entropy of the worst k percent of voxels."""

    def __init__(
        self,
        soft_dice_kwargs: dict[str, Any],
        ce_kwargs: dict[str, Any],
        weight_ce: float = 1,
        weight_dice: float = 1,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__(soft_dice_kwargs, ce_kwargs, weight_ce, weight_dice, ignore_label)

    @staticmethod
    def _make_ce(kwargs: dict[str, Any]) -> nn.Module:
        return TopKLoss(**kwargs)


class DC_and_BCE_loss(nn.Module):
    """weight_ce * binary cross entropy + weight_dice * soft Dice of sigmoid heads (spec 02, 5.3).

    With `use_ignore_label` the last target channel marks ignored voxels. The masked cross entropy is then divided by
    voxels, not by voxels and channels: R times larger for R regions, as upstream has it.
    """

    def __init__(
        self,
        bce_kwargs: dict[str, Any],
        soft_dice_kwargs: dict[str, Any],
        weight_ce: float = 1,
        weight_dice: float = 1,
        use_ignore_label: bool = False,
        dice_class: type[nn.Module] = MemoryEfficientSoftDiceLoss,
    ) -> None:
        super().__init__()
        self.weight_ce = weight_ce
        self.weight_dice = weight_dice
        self.use_ignore_label = use_ignore_label
        self.ddp: bool = soft_dice_kwargs.get("ddp", True)
        self.ce = nn.BCEWithLogitsLoss(**({**bce_kwargs, "reduction": "none"} if use_ignore_label else bce_kwargs))
        self.dc: nn.Module = dice_class(apply_nonlin=torch.sigmoid, **soft_dice_kwargs)

    def forward(self, net_output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of logits (b, r, ...) against regions (b, r, ...), or (b, r + 1, ...) with the ignore channel."""
        logits, mask = net_output.float(), None
        if self.use_ignore_label:
            mask = ~target[:, -1:].bool()
            target = target[:, :-1]
        loss = logits.new_zeros(())
        if self.weight_dice != 0:
            loss = loss + self.weight_dice * self.dc(logits, target, loss_mask=mask)
        if self.weight_ce != 0:
            entropy: torch.Tensor = self.ce(logits, target.float())
            if mask is not None:
                total, valid = (entropy * mask).sum(), mask.sum(dtype=torch.float32)
                if self.ddp and is_distributed():
                    total, valid = sum_over_ranks(torch.stack((total, valid))).unbind()
                entropy = total / valid.clamp_min(1e-8)
            loss = loss + self.weight_ce * entropy
        return loss


def default_loss(
    label_manager: LabelManager, batch_dice: bool, ddp: bool, smooth: float = 1e-5
) -> DC_and_CE_loss | DC_and_BCE_loss:
    """nnU-Net's loss for one resolution: with BCE where heads are regions, else with cross entropy."""
    dice = {"batch_dice": batch_dice, "do_bg": label_manager.has_regions, "smooth": smooth, "ddp": ddp}
    ignore = label_manager.ignore_label
    if label_manager.has_regions:
        return DC_and_BCE_loss({}, dice, use_ignore_label=ignore is not None)
    return DC_and_CE_loss(dice, {}, ignore_label=ignore, dice_class=MemoryEfficientSoftDiceLoss)
