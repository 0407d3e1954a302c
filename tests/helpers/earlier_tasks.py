"""Tiny tasks of the Decathlon (4D images, no channel numbers) and of nnU-Net v1."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

SHAPE = (4, 6, 5)  # (z, y, x)
DIRECTION = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def write(path: Path, volumes: Sequence[np.ndarray]) -> None:
    """Write one volume as 3D, several as 4D, with a geometry that is not the default one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = []
    for volume in volumes:
        image = sitk.GetImageFromArray(volume)
        image.SetSpacing((0.5, 0.75, 3.0))
        image.SetOrigin((-10.0, 20.0, 5.5))
        image.SetDirection(DIRECTION)
        images.append(image)
    sitk.WriteImage(images[0] if len(images) == 1 else sitk.JoinSeries(images), str(path), True)


def _volume(seed: int, maximum: int = 1000) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, maximum, SHAPE).astype(np.int16)


def _document(folder: Path, channels: int, cases: Sequence[str], tests: Sequence[str], **changes: Any) -> None:
    document: dict[str, Any] = {
        "name": "Tiny",
        "tensorImageSize": "3D",
        "modality": {str(i): f"MR{i}" for i in range(channels)},
        "labels": {"0": "background", "1": "organ", "2": "lesion"},
        "numTraining": len(cases),
        "numTest": len(tests),
        "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in cases],
        "test": [f"./imagesTs/{c}.nii.gz" for c in tests],
    }
    document = {key: value for key, value in {**document, **changes}.items() if value is not None}
    (folder / "dataset.json").write_text(json.dumps(document))


def make_msd_task(parent: Path, name: str = "Task77_Foo", channels: int = 2, **changes: Any) -> Path:
    """A Decathlon task: cases foo_1 and foo_2, test case foo_3, and what macOS leaves beside them."""
    folder = parent / name
    for index, part in enumerate(("Tr", "Tr", "Ts"), start=1):
        volumes = [_volume(10 * index + channel) for channel in range(channels)]
        write(folder / f"images{part}" / f"foo_{index}.nii.gz", volumes)
        if part == "Tr":
            write(folder / "labelsTr" / f"foo_{index}.nii.gz", [_volume(index, 3).astype(np.uint8)])
    for junk in ("imagesTr/._foo_1.nii.gz", "labelsTr/._foo_1.nii.gz", "imagesTr/_foo.nii.gz", "imagesTr/notes.txt"):
        (folder / junk).write_text("junk")
    _document(folder, channels, ["foo_1", "foo_2"], ["foo_3"], **changes)
    return folder


def make_v1_task(parent: Path, name: str = "Task501_Foo", channels: int = 2, **changes: Any) -> Path:
    """A v1 task as in the public tutorials: foo_1 and foo_2, test case foo_3 with its label, one validation case."""
    folder = parent / name
    for index, part in enumerate(("Tr", "Tr", "Ts", "Val"), start=1):
        for channel in range(channels):
            write(folder / f"images{part}" / f"foo_{index}_{channel:04d}.nii.gz", [_volume(10 * index + channel)])
        write(folder / f"labels{part}" / f"foo_{index}.nii.gz", [_volume(index, 3).astype(np.uint8)])
    (folder / "imagesTr" / "._foo_1_0000.nii.gz").write_text("junk")
    _document(folder, channels, ["foo_1", "foo_2"], ["foo_3"], **changes)
    return folder
