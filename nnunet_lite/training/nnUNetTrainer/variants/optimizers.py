"""Trainers with other optimizers and learning rate schedules."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from nnunet_lite.exceptions import ExtensionError
from nnunet_lite.training.lr_scheduler.cosine import CosineLRScheduler
from nnunet_lite.training.lr_scheduler.polylr import PolyLRScheduler
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerCosAnneal(nnUNetTrainer):
    """The learning rate falls along half a cosine to 0."""

    def configure_optimizers(self) -> tuple[Any, Any]:
        """The default optimizer with this schedule."""
        optimizer, _ = super().configure_optimizers()
        return optimizer, CosineLRScheduler(optimizer, self.initial_lr, self.num_epochs)


class nnUNetTrainerAdam(nnUNetTrainer):
    """AdamW with amsgrad."""

    def configure_optimizers(self) -> tuple[Any, Any]:
        """AdamW, polynomial decay."""
        settings: dict[str, Any] = {"lr": self.initial_lr, "weight_decay": self.weight_decay, "fused": self._fused}
        optimizer = torch.optim.AdamW(self.network.parameters(), amsgrad=True, **settings)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)


class nnUNetTrainerAdam1en3(nnUNetTrainerAdam):
    """Learning rate 1e-3."""

    initial_lr = 1e-3


class nnUNetTrainerAdam3en4(nnUNetTrainerAdam):
    """Learning rate 3e-4."""

    initial_lr = 3e-4


class nnUNetTrainerVanillaAdam(nnUNetTrainer):
    """Adam as first published."""

    def configure_optimizers(self) -> tuple[Any, Any]:
        """Adam, polynomial decay."""
        settings: dict[str, Any] = {"lr": self.initial_lr, "weight_decay": self.weight_decay, "fused": self._fused}
        optimizer = torch.optim.Adam(self.network.parameters(), **settings)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)


class nnUNetTrainerVanillaAdam1en3(nnUNetTrainerVanillaAdam):
    """Learning rate 1e-3."""

    initial_lr = 1e-3


class nnUNetTrainerVanillaAdam3en4(nnUNetTrainerVanillaAdam):
    """Learning rate 3e-4."""

    initial_lr = 3e-4


class nnUNetTrainerAdan(nnUNetTrainer):
    """Adan, from the package adan-pytorch."""

    def configure_optimizers(self) -> tuple[Any, Any]:
        """Adan, polynomial decay.

        Raises:
            ExtensionError: the package is not installed.
        """
        try:
            Adan = import_module("adan_pytorch").Adan
        except ImportError:
            raise ExtensionError(
                f"{type(self).__name__} needs a package that is not installed: pip install adan-pytorch"
            ) from None
        optimizer = Adan(self.network.parameters(), lr=self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)


class nnUNetTrainerAdan1en3(nnUNetTrainerAdan):
    """Learning rate 1e-3."""

    initial_lr = 1e-3


class nnUNetTrainerAdan3en4(nnUNetTrainerAdan):
    """Learning rate 3e-4."""

    initial_lr = 3e-4


class nnUNetTrainerAdan1en1(nnUNetTrainerAdan):
    """Learning rate 1e-1, which diverges; here because upstream has it."""

    initial_lr = 1e-1


class nnUNetTrainerAdanCosAnneal(nnUNetTrainerAdan):
    """Adan with a learning rate that falls along half a cosine."""

    def configure_optimizers(self) -> tuple[Any, Any]:
        """Adan with this schedule."""
        optimizer, _ = super().configure_optimizers()
        return optimizer, CosineLRScheduler(optimizer, self.initial_lr, self.num_epochs)
