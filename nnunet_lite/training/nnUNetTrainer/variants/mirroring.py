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


class nnUNetTrainer_onlyMirror01(nnUNetTrainer):
    """Mirrors all axes but the last, which in many datasets is left and right."""

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(
        self,
    ) -> tuple[Any, bool, Sequence[int], tuple[int, ...] | None]:
        """As always, with mirror axes (0, 1) for 3D and (0,) for 2D patches."""
        rotation, dummy_2d, patch_size, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        mirror_axes = tuple(range(len(self.configuration_manager.patch_size) - 1))
        self.inference_allowed_mirroring_axes = mirror_axes
        return rotation, dummy_2d, patch_size, mirror_axes


class nnUNetTrainer_onlyMirror01_1500ep(nnUNetTrainer_onlyMirror01):
    """1500 epochs."""

    num_epochs = 1500
