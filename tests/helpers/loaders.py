"""Small loaders of random cases, and transforms of a user that misbehave; all of it can be sent to workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, NamedTuple

import numpy as np
import torch

from nnunet_lite.training.data_augmentation.augmentation_geometry import configure_augmentation
from nnunet_lite.training.data_augmentation.pipelines import get_training_transforms, get_validation_transforms
from nnunet_lite.training.data_loader import nnUNetDataLoader


class Labels(NamedTuple):
    """As much of a label manager as the loader needs."""

    has_ignore_label: bool = False
    all_labels: tuple[int, ...] = (0, 1, 2)


class MemoryDataset:
    """A few small random cases; a case named "broken" cannot be read, one named "deadly" ends its process."""

    def __init__(self, identifiers: list[str], shape: tuple[int, ...] = (18, 20, 22), cascade: bool = False) -> None:
        self.identifiers = identifiers
        self.shape = shape
        self.cascade = cascade

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, Any]:
        if identifier == "broken":
            raise ValueError("not a blosc2 file")
        if identifier == "deadly" and os.environ.get("IN_A_TEST") != str(os.getpid()):
            os.kill(os.getpid(), signal.SIGKILL)
        rng = np.random.default_rng(sum(identifier.encode()))
        data = rng.standard_normal((2, *self.shape), dtype=np.float32)
        seg = rng.integers(-1, 3, (1, *self.shape)).astype(np.int16)
        previous = rng.integers(0, 3, self.shape).astype(np.uint8) if self.cascade else None
        return data, seg, previous, {"class_locations": {1: np.argwhere(seg == 1)[:50], 2: []}}


def make_loader(patch: tuple[int, ...], final: tuple[int, ...], **options: Any) -> nnUNetDataLoader:
    dataset = options.pop("dataset", None) or MemoryDataset(["a", "b", "c"])
    return nnUNetDataLoader(dataset, options.pop("batch_size", 2), patch, final, Labels(), **options)


def default_loader(seed: int = 7, identifiers: tuple[str, ...] = ("a", "b", "c"), batch_size: int = 2) -> Any:
    final = (12, 14, 12)
    geometry = configure_augmentation(final)
    transforms = get_training_transforms(
        final, geometry.rotation_for_DA, [[1, 1, 1], [0.5, 0.5, 0.5]], geometry.mirror_axes, False, [True, False]
    )
    return make_loader(
        geometry.initial_patch_size,
        final,
        dataset=MemoryDataset(list(identifiers)),
        batch_size=batch_size,
        oversample_foreground_percent=0.33,
        transforms=transforms,
        seed=seed,
    )


def validation_loader(seed: int = 9) -> nnUNetDataLoader:
    """Batches as they are validated on, of deep supervision, regions and a cascade."""
    transforms = get_validation_transforms([[1, 1, 1], [0.5, 0.5, 0.5]], True, [1, 2], [(1, 2), 2], 3)
    dataset = MemoryDataset(["a", "b"], cascade=True)
    return make_loader((8, 8, 8), (8, 8, 8), dataset=dataset, transforms=transforms, seed=seed)


class Misbehaving:
    """A user's transform; "raises", "exits", "ends" (os._exit) or "hangs"; "noise" draws from every generator."""

    released = False

    def __init__(self, how: str) -> None:
        self.how = how

    def __call__(self, image: torch.Tensor, segmentation: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.how == "raises":
            raise ZeroDivisionError("my own mistake")
        if self.how == "exits":
            sys.exit(3)
        if self.how == "ends":
            os._exit(0)
        while self.how == "hangs" and not self.released:
            time.sleep(0.05)
        return {
            "image": image + torch.randn(image.shape) + float(np.random.rand()),
            "segmentation": segmentation,
        }


def misbehaving_loader(how: str) -> nnUNetDataLoader:
    """A loader with this transform and nothing else."""
    return make_loader((8, 8, 8), (8, 8, 8), transforms=Misbehaving(how), seed=1)
