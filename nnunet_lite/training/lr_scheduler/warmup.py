"""A linear rise of the learning rate, and the polynomial decay after it."""

from __future__ import annotations

from torch.optim import Optimizer

from nnunet_lite.training.lr_scheduler.polylr import PolyLRScheduler


class Lin_incr_LRScheduler(PolyLRScheduler):
    """lr(e) = max_lr / max_steps * (1 + e): reaches max_lr in the last epoch of the rise."""

    def __init__(self, optimizer: Optimizer, max_lr: float, max_steps: int, current_step: int | None = None) -> None:
        super().__init__(optimizer, max_lr, max_steps, current_step=current_step)

    def learning_rate(self, current_step: int) -> float:
        """Learning rate of an epoch."""
        return self.initial_lr / self.max_steps * (1 + current_step)


class PolyLRScheduler_offset(PolyLRScheduler):
    """Polynomial decay that begins at epoch `start_step` and reaches 0 at `max_steps`."""

    def __init__(
        self,
        optimizer: Optimizer,
        initial_lr: float,
        max_steps: int,
        start_step: int,
        exponent: float = 0.9,
        current_step: int | None = None,
    ) -> None:
        self.start_step = start_step
        super().__init__(optimizer, initial_lr, max_steps, exponent, current_step)

    def learning_rate(self, current_step: int) -> float:
        """Learning rate of an epoch."""
        passed = max(0, current_step - self.start_step) / (self.max_steps - self.start_step)
        return float(self.initial_lr * (1 - passed) ** self.exponent)
