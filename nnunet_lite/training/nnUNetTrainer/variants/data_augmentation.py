"""Trainers that augment less, or interpolate labels differently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunet_lite.training.data_augmentation import pipelines
from nnunet_lite.training.data_augmentation.augmentation_geometry import AugmentationGeometry, configure_augmentation
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_lite.training.nnUNetTrainer.variants.mirroring import nnUNetTrainer_onlyMirror01, nnUNetTrainerNoMirroring


class nnUNetTrainer_DASegOrd0(nnUNetTrainer):
    """Labels are rotated and zoomed by nearest neighbour; every label of a previous stage is corrupted."""

    @staticmethod
    def get_training_transforms(*args: Any, **kwargs: Any) -> Any:
        """The default pipeline with these two differences."""
        return pipelines.get_training_transforms(*args, **{**kwargs, "mode_seg": "nearest", "p_per_label": 1})


class nnUNetTrainer_DASegOrd0_NoMirroring(nnUNetTrainer_DASegOrd0, nnUNetTrainerNoMirroring):
    """The same without mirroring."""


class nnUNetTrainer_onlyMirror01_DASegOrd0(nnUNetTrainer_onlyMirror01, nnUNetTrainer_DASegOrd0):
    """The same, mirroring all axes but the last."""


class nnUNetTrainer_noDummy2DDA(nnUNetTrainer):
    """Rotates and zooms anisotropic patches in all three dimensions, too."""

    def _augmentation_geometry(self) -> AugmentationGeometry:
        """As for isotropic patches: rotation up to 30 degrees, the patch enlarged along all axes."""
        return configure_augmentation(self.configuration_manager.patch_size, allow_dummy_2d=False)


class nnUNetTrainerNoDA(nnUNetTrainer):
    """No augmentation at all, no mirroring in prediction."""

    @staticmethod
    def get_training_transforms(
        patch_size: Sequence[int],
        rotation_for_DA: Any,
        deep_supervision_scales: Sequence[Sequence[float]] | None,
        mirror_axes: Sequence[int] | None,
        do_dummy_2d_data_aug: bool,
        use_mask_for_norm: Sequence[bool] | None = None,
        is_cascaded: bool = False,
        foreground_labels: Sequence[int] | None = None,
        regions: Sequence[Any] | None = None,
        ignore_label: int | None = None,
    ) -> Any:
        """The validation transforms."""
        return nnUNetTrainerNoDA.get_validation_transforms(
            deep_supervision_scales, is_cascaded, foreground_labels, regions, ignore_label
        )

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(
        self,
    ) -> tuple[Any, bool, Sequence[int], tuple[int, ...] | None]:
        """Patches are read at their final size."""
        rotation, _, _, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None
        return rotation, False, self.configuration_manager.patch_size, None


class nnUNetTrainerDA5(nnUNetTrainer):
    """Heavy augmentation: more and stronger transforms (spec 02, 8.3)."""

    @staticmethod
    def get_training_transforms(*args: Any, **kwargs: Any) -> Any:
        """The heavy pipeline."""
        return pipelines.get_heavy_training_transforms(*args, **kwargs)

    def _augmentation_geometry(self) -> AugmentationGeometry:
        """Patches are read large enough for a zoom of 0.7."""
        return configure_augmentation(self.configuration_manager.patch_size, scale_range=(0.7, 1.43))


class nnUNetTrainerDA5Segord0(nnUNetTrainerDA5):
    """Labels are rotated and zoomed by nearest neighbour."""

    @staticmethod
    def get_training_transforms(*args: Any, **kwargs: Any) -> Any:
        """The heavy pipeline with this difference."""
        return pipelines.get_heavy_training_transforms(*args, **{**kwargs, "mode_seg": "nearest"})


class nnUNetTrainerDA5ord0(nnUNetTrainerDA5):
    """Labels and images are rotated and zoomed by nearest neighbour."""

    @staticmethod
    def get_training_transforms(*args: Any, **kwargs: Any) -> Any:
        """The heavy pipeline with this difference."""
        modes = {"mode_seg": "nearest", "mode_image": "nearest"}
        return pipelines.get_heavy_training_transforms(*args, **{**kwargs, **modes})


class nnUNetTrainerDA5_10epochs(nnUNetTrainerDA5):
    """10 epochs."""

    num_epochs = 10


class nnUNetTrainer_onlyMirror01_DA5(nnUNetTrainer_onlyMirror01, nnUNetTrainerDA5):
    """Heavy augmentation, mirroring all axes but the last."""
