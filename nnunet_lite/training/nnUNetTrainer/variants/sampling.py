"""Trainers that fill their batches differently."""

from __future__ import annotations

from typing import Any

from nnunet_lite.training.batch_distribution import share_of_batch
from nnunet_lite.training.data_loader import is_forced_foreground
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_lite.utilities.distributed import world_size


class nnUNetTrainer_probabilisticOversampling(nnUNetTrainer):
    """Chance decides for each sample whether it must contain foreground, with the share that the fixed rule gives."""

    probabilistic_oversampling = True
    oversampling_probability: float | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        size, share = self.configuration_manager.batch_size, self.oversample_foreground_percent
        forced = sum(is_forced_foreground(position, size, share) for position in range(size))
        probability = self.oversampling_probability
        self.oversample_foreground_percent = forced / size if probability is None else probability

    def _set_batch_size_and_oversample(self) -> None:
        """All ranks use the same probability."""
        self.batch_size = self.configuration_manager.batch_size
        if self.is_ddp:
            self.batch_size, _ = share_of_batch(self.batch_size, world_size(), self.local_rank, 0)


class nnUNetTrainer_probabilisticOversampling_033(nnUNetTrainer_probabilisticOversampling):
    """With probability 0.33."""

    oversampling_probability = 0.33


class nnUNetTrainer_probabilisticOversampling_010(nnUNetTrainer_probabilisticOversampling):
    """With probability 0.1."""

    oversampling_probability = 0.1


class nnUNet_Trainer_BS8(nnUNetTrainer):
    """Batches of 8, whatever is planned."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.configuration_manager.configuration["batch_size"] = 8
