"""Trainers with other losses; all of them leave ignored voxels out."""

from __future__ import annotations

from typing import Any

from torch import nn

from nnunet_lite.exceptions import PlansError
from nnunet_lite.training.loss.compound_losses import DC_and_CE_loss, DC_and_topk_loss, default_loss
from nnunet_lite.training.loss.robust_ce_loss import TopKLoss
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class _LabelLossTrainer(nnUNetTrainer):
    """Base of the losses that compare labels, so cannot learn regions."""

    def _build_loss(self) -> nn.Module:
        if self.label_manager.has_regions:
            raise PlansError(
                f"{type(self).__name__} learns labels, but dataset.json of {self.plans_manager.dataset_name} defines "
                "regions; use nnUNetTrainer or nnUNetTrainerDiceLoss"
            )
        return self._deeply_supervised(self._label_loss())

    def _label_loss(self) -> nn.Module:
        raise NotImplementedError

    def _dice_arguments(self) -> dict[str, Any]:
        return {
            "batch_dice": self.configuration_manager.batch_dice,
            "do_bg": False,
            "smooth": 1e-5,
            "ddp": self.is_ddp,
        }


class nnUNetTrainerCELoss(_LabelLossTrainer):
    """Cross entropy alone."""

    def _label_loss(self) -> nn.Module:
        return DC_and_CE_loss(self._dice_arguments(), {}, weight_dice=0, ignore_label=self.label_manager.ignore_label)


class nnUNetTrainerCELoss_5epochs(nnUNetTrainerCELoss):
    """5 epochs."""

    num_epochs = 5


class nnUNetTrainerDiceLoss(nnUNetTrainer):
    """Soft Dice alone, of labels or regions."""

    def _build_loss(self) -> nn.Module:
        loss = default_loss(self.label_manager, self.configuration_manager.batch_dice, self.is_ddp)
        loss.weight_ce = 0
        return self._deeply_supervised(loss)


class nnUNetTrainerDiceCELoss_noSmooth(nnUNetTrainer):
    """The default loss without smoothing of the Dice, as one wants where small structures are often absent."""

    def _build_loss(self) -> nn.Module:
        return self._deeply_supervised(
            default_loss(self.label_manager, self.configuration_manager.batch_dice, self.is_ddp, smooth=0)
        )


class nnUNetTrainerTopk10Loss(_LabelLossTrainer):
    """Cross entropy of the worst tenth of the voxels."""

    label_smoothing = 0.0

    def _label_loss(self) -> nn.Module:
        arguments: dict[str, Any] = {"k": 10, "label_smoothing": self.label_smoothing}
        if self.label_manager.has_ignore_label:
            arguments["ignore_index"] = self.label_manager.ignore_label
        return TopKLoss(**arguments)


class nnUNetTrainerTopk10LossLS01(nnUNetTrainerTopk10Loss):
    """The same with labels smoothed by 0.1."""

    label_smoothing = 0.1


class nnUNetTrainerDiceTopK10Loss(_LabelLossTrainer):
    """Soft Dice plus cross entropy of the worst tenth of the voxels."""

    def _label_loss(self) -> nn.Module:
        return DC_and_topk_loss(self._dice_arguments(), {"k": 10}, ignore_label=self.label_manager.ignore_label)
