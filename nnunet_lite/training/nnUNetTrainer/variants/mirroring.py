"""Trainers that mirror less, in training and in prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerNoMirroring(nnUNetTrainer):
    """No mirroring, for structures whose side matters."""

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(
        self,
    ) -> tuple[Any, bool, Sequence[int], tuple[int, ...] | None]:
        """As always, without mirror axes."""
        rotation, dummy_2d, patch_size, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None
        return rotation, dummy_2d, patch_size, None
