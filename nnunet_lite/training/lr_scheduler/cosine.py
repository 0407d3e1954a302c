"""Decay of the learning rate along half a cosine."""

from __future__ import annotations

from math import cos, pi

from nnunet_lite.training.lr_scheduler.polylr import PolyLRScheduler


class CosineLRScheduler(PolyLRScheduler):
    """lr(e) = initial_lr / 2 * (1 + cos(pi e / max_steps)); a function of the epoch, so nothing of it is stored."""

    def learning_rate(self, current_step: int) -> float:
        """Learning rate of an epoch."""
        return 0.5 * self.initial_lr * (1 + cos(pi * current_step / self.max_steps))
