"""A trainer whose learning rate rises before it decays."""

from __future__ import annotations

from typing import Any

from nnunet_lite.models.checkpoint import load_checkpoint
from nnunet_lite.training.lr_scheduler.warmup import Lin_incr_LRScheduler, PolyLRScheduler_offset
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainer_warmup(nnUNetTrainer):
    """The learning rate rises for `warmup_duration_whole_net` epochs, then decays as always (spec 02, 8.4)."""

    warmup_duration_whole_net: int = 50
    training_stage: str | None = None

    def configure_optimizers(self, stage: str = "warmup_all") -> tuple[Any, Any]:
        """Optimizer and schedule of a stage; the optimizer, and so its momentum, is kept from one to the next.

        Args:
            stage: "warmup_all" or "train".
        """
        if self.training_stage == stage:
            return self.optimizer, self.lr_scheduler
        optimizer = self.optimizer if self.training_stage == "warmup_all" else self.make_optimizer()
        self.training_stage = stage
        if stage == "warmup_all":
            return optimizer, Lin_incr_LRScheduler(optimizer, self.initial_lr, self.warmup_duration_whole_net)
        return optimizer, PolyLRScheduler_offset(
            optimizer, self.initial_lr, self.num_epochs, self.warmup_duration_whole_net
        )

    def make_optimizer(self) -> Any:
        """The optimizer of the whole training; the default trainer's."""
        return super().configure_optimizers()[0]

    def stage_of(self, epoch: int) -> str:
        """Stage of an epoch; asked anew in each, so that continuing anywhere is right."""
        return "warmup_all" if epoch < self.warmup_duration_whole_net else "train"

    def on_train_epoch_start(self) -> None:
        """Switch stages where it is time."""
        self.optimizer, self.lr_scheduler = self.configure_optimizers(self.stage_of(self.current_epoch))
        super().on_train_epoch_start()

    def load_checkpoint(self, checkpoint: dict[str, Any] | str) -> None:
        """Select the stage before the optimizer's state is restored: a subclass may use another optimizer in each."""
        if not self.was_initialized:
            self.initialize()
        content = checkpoint if isinstance(checkpoint, dict) else load_checkpoint(checkpoint, self.device)
        epoch = int(content.get("current_epoch", 0))
        self.optimizer, self.lr_scheduler = self.configure_optimizers(self.stage_of(epoch))
        super().load_checkpoint(content)
