"""Where batches are augmented: sample by sample in the workers, or whole batches on the GPU."""

from __future__ import annotations

from typing import Any

import torch

from nnunet_lite.configuration import augmentation_device_requested
from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.training.data_augmentation.transforms import ComposeTransforms, RandomTransform, Transform


def augmentation_device(wanted: str, device: torch.device, transforms: Any) -> torch.device | None:
    """The device on which whole batches are augmented, or None for the workers.

    Args:
        wanted: the trainer's attribute: auto, cpu or gpu; nnUNet_DA_device overrules it.
        device: that of the training.
        transforms: `auto` takes the GPU only if all of them work on batches, for others expect samples on the CPU.

    Raises:
        ArgumentError: an unknown value; "gpu" without a GPU, or with a callable that is no pipeline.
    """
    choice = augmentation_device_requested(wanted)
    if choice == "cpu" or (choice == "auto" and not (device.type == "cuda" and works_on_batches(transforms))):
        return None
    if choice == "auto":
        return device
    if device.type == "cpu":
        raise ArgumentError(
            "Augmentation on the GPU (nnUNet_DA_device=gpu) and -device cpu do not go together; unset nnUNet_DA_device"
        )
    if not isinstance(transforms, Transform):
        raise ArgumentError(
            f"Augmentation on the GPU (nnUNet_DA_device=gpu) needs a pipeline of nnunet_lite's transforms, and the "
            f"trainer gives {type(transforms).__name__}; set nnUNet_DA_device=cpu, or wrap it in ComposeTransforms"
        )
    return device


def works_on_batches(transforms: Any) -> bool:
    """Whether a pipeline holds no callable of single samples."""
    if isinstance(transforms, ComposeTransforms):
        return all(works_on_batches(transform) for transform in transforms.transforms)
    if isinstance(transforms, RandomTransform):
        return works_on_batches(transforms.transform)
    return isinstance(transforms, Transform)
