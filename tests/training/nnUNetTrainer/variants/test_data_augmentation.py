"""Trainers that augment less."""

from __future__ import annotations

import math
from typing import Any

import pytest

from nnunet_lite.training.data_augmentation.spatial_transforms import SpatialTransform

NO_DUMMY = "nnUNetTrainer_noDummy2DDA"


def _geometry(trainer: Any) -> tuple[Any, bool, tuple[int, ...], Any]:
    rotation, dummy, patch, mirror = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    return rotation, dummy, tuple(patch), mirror


def _pipeline(trainer: Any) -> Any:
    return trainer.get_training_transforms((8, 8, 8), (-0.5, 0.5), None, (0, 1), False)


@pytest.mark.parametrize(
    ("name", "nearest", "mirror_axes"),
    [
        ("nnUNetTrainer", False, (0, 1, 2)),
        ("nnUNetTrainer_DASegOrd0", True, (0, 1, 2)),
        ("nnUNetTrainer_DASegOrd0_NoMirroring", True, None),
        ("nnUNetTrainer_onlyMirror01_DASegOrd0", True, (0, 1)),
    ],
)
def test_labels_by_nearest_neighbour(make: Any, name: str, nearest: bool, mirror_axes: Any) -> None:
    trainer = make(name)
    assert _geometry(trainer)[3] == mirror_axes == trainer.inference_allowed_mirroring_axes
    spatial = _pipeline(trainer).transforms[0]
    assert isinstance(spatial, SpatialTransform)
    assert (spatial.mode_seg == "nearest") == nearest


def test_every_label_of_a_previous_stage_is_corrupted(make: Any) -> None:
    shares = {}
    for name in ("nnUNetTrainer", "nnUNetTrainer_DASegOrd0"):
        transforms = make(name).get_training_transforms(
            (8, 8, 8), 0.5, None, None, False, is_cascaded=True, foreground_labels=(1, 2)
        )
        inner = [getattr(transform, "transform", None) for transform in transforms.transforms]
        shares[name] = {transform.p_per_label for transform in inner if hasattr(transform, "p_per_label")}
    assert shares == {"nnUNetTrainer": {0.5}, "nnUNetTrainer_DASegOrd0": {1}}


def test_no_dummy_2d(make: Any) -> None:
    patch = [28, 256, 256]
    rotation, dummy, size, _ = _geometry(make("nnUNetTrainer", patch_size=patch))
    assert (dummy, size[0]) == (True, 28)
    rotation, dummy, size, mirror_axes = _geometry(make(NO_DUMMY, patch_size=patch))
    assert not dummy
    assert rotation == pytest.approx((-math.pi / 6, math.pi / 6))
    assert size[0] > 28
    assert mirror_axes == (0, 1, 2)
    assert _geometry(make(NO_DUMMY, "2d", patch_size=[256, 256]))[2] == (301, 301)


def test_no_augmentation(make: Any) -> None:
    trainer = make("nnUNetTrainerNoDA")
    _, dummy, size, mirror_axes = _geometry(trainer)
    assert (dummy, size, mirror_axes, trainer.inference_allowed_mirroring_axes) == (False, (8, 8, 8), None, None)
    trainer.override(epochs=1, iterations=1, seed=0)
    trainer.initialize()
    (batch, _), again = (trainer.get_dataloaders() for _ in range(2))
    first, second = next(batch), next(again[0])
    assert (first["data"] == second["data"]).all()
    names = {type(transform).__name__ for transform in _pipeline(trainer).transforms}
    assert names == {"RemoveLabelTransform"}


@pytest.mark.parametrize(
    ("patch", "enlarged"),
    [([128, 128, 128], (249, 249, 249)), ([20, 320, 256], (20, 457, 457)), ([512, 512], (731, 731))],
)
def test_heavy_augmentation_reads_more(make: Any, patch: list[int], enlarged: tuple[int, ...]) -> None:
    """Spec 02, section 12."""
    configuration = "2d" if len(patch) == 2 else "3d_fullres"
    assert _geometry(make("nnUNetTrainerDA5", configuration, patch_size=patch))[2] == enlarged


@pytest.mark.parametrize(
    ("name", "modes", "mirror_axes"),
    [
        ("nnUNetTrainerDA5", ("bilinear", "bilinear"), (0, 1, 2)),
        ("nnUNetTrainerDA5Segord0", ("bilinear", "nearest"), (0, 1, 2)),
        ("nnUNetTrainerDA5ord0", ("nearest", "nearest"), (0, 1, 2)),
        ("nnUNetTrainerDA5_10epochs", ("bilinear", "bilinear"), (0, 1, 2)),
        ("nnUNetTrainer_onlyMirror01_DA5", ("bilinear", "bilinear"), (0, 1)),
    ],
)
def test_heavy_augmentation(make: Any, name: str, modes: tuple[str, str], mirror_axes: tuple[int, ...]) -> None:
    trainer = make(name)
    assert trainer.num_epochs == (10 if "10epochs" in name else 1000)
    geometry = _geometry(trainer)
    assert geometry[3] == mirror_axes == trainer.inference_allowed_mirroring_axes
    spatial = _pipeline(trainer).transforms[0]
    assert (spatial.mode_image, spatial.mode_seg) == modes
    trainer.override(epochs=1, iterations=2, seed=0)
    trainer.initialize()
    batch = next(trainer.get_dataloaders()[0])
    assert batch["data"].shape == (2, 1, 8, 8, 8)
