"""Polynomial decay of the learning rate."""

from __future__ import annotations

from torch.optim import Optimizer


class PolyLRScheduler:
    """lr(e) = initial_lr * (1 - e / max_steps) ** exponent; a function of the epoch, so nothing of it is stored."""

    def __init__(
        self,
        optimizer: Optimizer,
        initial_lr: float,
        max_steps: int,
        exponent: float = 0.9,
        current_step: int | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.initial_lr = initial_lr
        self.max_steps = max_steps
        self.exponent = exponent
        self.ctr = 0
        self.step(current_step)

    def step(self, current_step: int | None = None) -> None:
        """Set the learning rate of all parameter groups for this step (default: one after the last)."""
        if current_step is None or current_step == -1:
            current_step = self.ctr
        self.ctr = current_step + 1
        new_lr = self.learning_rate(current_step)
        for group in self.optimizer.param_groups:
            group["lr"] = new_lr
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def learning_rate(self, current_step: int) -> float:
        """Learning rate of an epoch."""
        return float(self.initial_lr * (1 - current_step / self.max_steps) ** self.exponent)

    def get_last_lr(self) -> list[float]:
        """Learning rate of each parameter group."""
        return self._last_lr
