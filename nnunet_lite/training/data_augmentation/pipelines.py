"""Upstream's default training and validation pipelines (spec 02, 4.3), row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunet_lite.training.data_augmentation.cascade_transforms import (
    ApplyRandomBinaryOperatorTransform,
    MoveSegAsOneHotToDataTransform,
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
)
from nnunet_lite.training.data_augmentation.heavy_transforms import (
    BlankRectangleTransform,
    BrightnessAdditiveTransform,
    BrightnessGradientAdditiveTransform,
    LocalGammaTransform,
    MedianFilterTransform,
    OneOfTransform,
    Rot90Transform,
    SharpeningTransform,
    TransposeAxesTransform,
    equal_axes,
)
from nnunet_lite.training.data_augmentation.intensity_transforms import (
    ContrastTransform,
    GammaTransform,
    GaussianBlurTransform,
    GaussianNoiseTransform,
    MultiplicativeBrightnessTransform,
    SimulateLowResolutionTransform,
)
from nnunet_lite.training.data_augmentation.segmentation_transforms import (
    ConvertSegmentationToRegionsTransform,
    DownsampleSegForDSTransform,
    MaskImageTransform,
    MirrorTransform,
    RemoveLabelTransform,
)
from nnunet_lite.training.data_augmentation.spatial_transforms import SpatialTransform
from nnunet_lite.training.data_augmentation.transforms import ComposeTransforms, RandomTransform, Transform

Scales = Sequence[Sequence[float] | float] | None
Regions = Sequence[int | Sequence[int]] | None


def get_training_transforms(
    patch_size: Sequence[int],
    rotation_for_DA: float | Sequence[float],
    deep_supervision_scales: Scales,
    mirror_axes: Sequence[int] | None,
    do_dummy_2d_data_aug: bool,
    use_mask_for_norm: Sequence[bool] | None = None,
    is_cascaded: bool = False,
    foreground_labels: Sequence[int] | None = None,
    regions: Regions = None,
    ignore_label: int | None = None,
    mode_seg: str = "bilinear",
    p_per_label: float = 0.5,
) -> ComposeTransforms:
    """The default training pipeline, with upstream's arguments and what its variants change.

    Args:
        patch_size: final size; whatever is given in is cropped to it.
        rotation_for_DA: angle range in radians, or its upper end.
        deep_supervision_scales: per output its size relative to the patch; None for a single target.
        mirror_axes: spatial axes that may be flipped; None or empty for none.
        do_dummy_2d_data_aug: leave the first axis out of rotation, zoom and low-resolution simulation.
        use_mask_for_norm: per image channel, whether it is set to zero outside the nonzero mask.
        is_cascaded: whether segmentation channel 1 is the previous stage's result.
        foreground_labels: labels of the one-hot channels of a cascade.
        regions: regions to predict instead of labels.
        ignore_label: label whose voxels do not count.
        mode_seg: how labels are rotated and zoomed, "bilinear" or "nearest".
        p_per_label: probability of each label of a previous stage to be corrupted, where one is.
    """
    transforms: list[Any] = [
        SpatialTransform(
            patch_size,
            rotation=_angle_range(rotation_for_DA),
            scaling=(0.7, 1.4),
            dummy_2d=do_dummy_2d_data_aug,
            mode_seg=mode_seg,
        ),
        *_intensity_transforms((0,) if do_dummy_2d_data_aug else ()),
    ]
    if mirror_axes:
        transforms.append(MirrorTransform(mirror_axes))
    transforms += _labels_only(use_mask_for_norm, is_cascaded, foreground_labels, p_per_label)
    return ComposeTransforms(transforms + _targets(deep_supervision_scales, regions, ignore_label))


def get_validation_transforms(
    deep_supervision_scales: Scales,
    is_cascaded: bool = False,
    foreground_labels: Sequence[int] | None = None,
    regions: Regions = None,
    ignore_label: int | None = None,
) -> ComposeTransforms:
    """The default validation pipeline: only what makes targets; arguments as in `get_training_transforms`."""
    transforms: list[Any] = [RemoveLabelTransform(-1, 0)]
    if is_cascaded:
        transforms.append(MoveSegAsOneHotToDataTransform(1, foreground_labels or ()))
    return ComposeTransforms(transforms + _targets(deep_supervision_scales, regions, ignore_label))


def _labels_only(
    use_mask_for_norm: Sequence[bool] | None,
    is_cascaded: bool,
    foreground_labels: Sequence[int] | None,
    p_per_label: float,
) -> list[Any]:
    """What follows the augmentation of the image: the mask, the mark outside of it, the previous stage."""
    transforms: list[Any] = []
    if use_mask_for_norm is not None and any(use_mask_for_norm):
        transforms.append(MaskImageTransform([c for c, masked in enumerate(use_mask_for_norm) if masked]))
    transforms.append(RemoveLabelTransform(-1, 0))
    if is_cascaded:
        transforms += _cascade_transforms(foreground_labels or (), p_per_label)
    return transforms


def _angle_range(rotation: float | Sequence[float]) -> tuple[float, float]:
    if isinstance(rotation, Sequence):
        return float(rotation[0]), float(rotation[-1])
    return -float(rotation), float(rotation)


def _intensity_transforms(kept_axes: tuple[int, ...]) -> list[RandomTransform]:
    return [
        RandomTransform(GaussianNoiseTransform((0, 0.1)), 0.1),
        RandomTransform(GaussianBlurTransform((0.5, 1.0), p_per_channel=0.5), 0.2),
        RandomTransform(MultiplicativeBrightnessTransform((0.75, 1.25)), 0.15),
        RandomTransform(ContrastTransform((0.75, 1.25)), 0.15),
        RandomTransform(SimulateLowResolutionTransform((0.5, 1.0), kept_axes, p_per_channel=0.5), 0.25),
        RandomTransform(GammaTransform((0.7, 1.5), p_invert_image=1), 0.1),
        RandomTransform(GammaTransform((0.7, 1.5), p_invert_image=0), 0.3),
    ]


def _cascade_transforms(foreground_labels: Sequence[int], p_per_label: float) -> list[Any]:
    one_hot = list(range(-len(foreground_labels), 0))
    return [
        MoveSegAsOneHotToDataTransform(1, foreground_labels),
        RandomTransform(ApplyRandomBinaryOperatorTransform(one_hot, (1, 8), p_per_label), 0.4),
        RandomTransform(RemoveRandomConnectedComponentFromOneHotEncodingTransform(one_hot, 0.15, p_per_label), 0.2),
    ]


def get_heavy_training_transforms(
    patch_size: Sequence[int],
    rotation_for_DA: float | Sequence[float],
    deep_supervision_scales: Scales,
    mirror_axes: Sequence[int] | None,
    do_dummy_2d_data_aug: bool,
    use_mask_for_norm: Sequence[bool] | None = None,
    is_cascaded: bool = False,
    foreground_labels: Sequence[int] | None = None,
    regions: Regions = None,
    ignore_label: int | None = None,
    mode_seg: str = "bilinear",
    mode_image: str = "bilinear",
) -> ComposeTransforms:
    """The training pipeline of nnUNetTrainerDA5 (spec 02, 8.3); arguments as in `get_training_transforms`."""
    transforms: list[Any] = [
        SpatialTransform(
            patch_size,
            p_rotation=0.4,
            rotation=_angle_range(rotation_for_DA),
            scaling=(0.7, 1.43),
            dummy_2d=do_dummy_2d_data_aug,
            mode_seg=mode_seg,
            mode_image=mode_image,
            p_rot_per_axis=0.5,
            synchronize_scaling=False,
        )
    ]
    if axes := equal_axes(patch_size):
        transforms += [RandomTransform(Rot90Transform(axes), 0.5), RandomTransform(TransposeAxesTransform(axes), 0.5)]
    transforms += _heavy_intensity_transforms((0,) if do_dummy_2d_data_aug else ())
    if mirror_axes:
        transforms.append(MirrorTransform(mirror_axes))
    transforms += [
        RandomTransform(BlankRectangleTransform(), 0.4),
        RandomTransform(BrightnessGradientAdditiveTransform(0.5), 0.3),
        RandomTransform(LocalGammaTransform(0.5), 0.3),
        RandomTransform(SharpeningTransform(), 0.2),
    ]
    transforms += _labels_only(use_mask_for_norm, is_cascaded, foreground_labels, p_per_label=1)
    return ComposeTransforms(transforms + _targets(deep_supervision_scales, regions, ignore_label))


def _heavy_intensity_transforms(kept_axes: tuple[int, ...]) -> list[Transform]:
    """Both gamma steps invert the image, as upstream's do."""
    gamma = RandomTransform(GammaTransform((0.7, 1.5), p_invert_image=1), 0.1)
    return [
        OneOfTransform(
            [
                RandomTransform(MedianFilterTransform(), 0.2),
                RandomTransform(GaussianBlurTransform((0.3, 1.5), p_per_channel=0.5, synchronize_axes=True), 0.2),
            ]
        ),
        RandomTransform(GaussianNoiseTransform((0, 0.1)), 0.1),
        RandomTransform(BrightnessAdditiveTransform(), 0.1),
        OneOfTransform(
            [
                RandomTransform(ContrastTransform((0.5, 2), p_per_channel=0.5, preserve_range=preserve), 0.2)
                for preserve in (True, False)
            ]
        ),
        RandomTransform(SimulateLowResolutionTransform((0.25, 1), kept_axes, p_per_channel=0.5), 0.15),
        gamma,
        gamma,
    ]


def _targets(scales: Scales, regions: Regions, ignore_label: int | None) -> list[Any]:
    targets: list[Any] = []
    if regions is not None:
        targets.append(ConvertSegmentationToRegionsTransform(regions, ignore_label))
    if scales is not None:
        targets.append(DownsampleSegForDSTransform(scales))
    return targets
