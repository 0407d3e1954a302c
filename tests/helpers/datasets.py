"""Tiny datasets in nnU-Net raw layout: a few blobs per case, labels that the images really show, fixed seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from skimage.io import imsave

Labels = Mapping[str, int | list[int]]


def write_image(path: Path, array: np.ndarray, spacing: Sequence[float]) -> None:
    """Write an array (z, y, x) or (y, x), spacing in the same order; .png takes it as it is, without spacing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        imsave(path, array.astype(np.uint8), check_contrast=False)
        return
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(value) for value in reversed(spacing)])
    sitk.WriteImage(image, str(path), True)


def make_case(
    shape: Sequence[int], num_channels: int, values: Sequence[int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Images (c, ...) float32 in 0 ... 255 and labels (...) uint8: for each value an ellipsoid inside the last one."""
    grid = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    center = rng.uniform(-0.15, 0.15, len(shape))
    stretch = rng.uniform(0.85, 1.15, len(shape))
    radius = np.sqrt(sum(((axis - c) / s) ** 2 for axis, c, s in zip(grid, center, stretch, strict=True)))
    seg = np.zeros(tuple(shape), np.uint8)
    for value, edge in zip(values, np.linspace(0.7, 0.25, len(values)), strict=True):
        seg[radius < edge] = value
    steps = 120 * seg.astype(np.float32) / max(1, max(values, default=1))
    images = np.stack(
        [
            60 + (steps if channel % 2 == 0 else 120 - steps) + rng.normal(0, 8, tuple(shape))
            for channel in range(num_channels)
        ]
    )
    return np.clip(images, 1, 255).astype(np.float32), seg


def make_dataset(
    raw_folder: Path | str,
    dataset_id: int = 901,
    name: str = "Tiny",
    n: int = 6,
    shape: Sequence[int] = (16, 24, 20),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    labels: Labels | None = None,
    channels: Sequence[str] = ("MRI",),
    regions: bool = False,
    ignore: bool = False,
    file_ending: str = ".nii.gz",
    seed: int = 0,
    n_test: int = 0,
    vary: int = 2,
) -> Path:
    """Write DatasetXXX_NAME with cases case_00 ... and return its folder.

    Args:
        shape, spacing: array axis order, (z, y, x) or (y, x); the sizes vary by up to `vary` voxels per case.
        labels: name -> value as in dataset.json (default background 0, outer 1, inner 2).
        regions: declare whole [1, 2] and core 2 instead, painted in the order 1, 2.
        ignore: declare the next free value as ignore label and paint a strip of it.
        n_test: test cases test_00 ... in imagesTs, their labels in labelsTs.
    """
    rng = np.random.default_rng(seed)
    declared: dict[str, Any] = dict(labels or {"background": 0, "outer": 1, "inner": 2})
    if regions:
        declared = {"background": 0, "whole": [1, 2], "core": 2}
    values = sorted({v for value in declared.values() for v in (value if isinstance(value, list) else [value]) if v})
    document: dict[str, Any] = {
        "channel_names": {str(i): channel for i, channel in enumerate(channels)},
        "labels": declared,
        "numTraining": n,
        "file_ending": file_ending,
    }
    if regions:
        document["regions_class_order"] = [1, 2]
    if ignore:
        declared["ignore"] = max(values) + 1
    folder = Path(raw_folder) / f"Dataset{dataset_id:03d}_{name}"
    cases = [(f"case_{i:02d}", "Tr") for i in range(n)] + [(f"test_{i:02d}", "Ts") for i in range(n_test)]
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for identifier, part in cases:
        sizes = [int(size + rng.integers(0, vary + 1)) for size in shape]
        images, seg = make_case(sizes, len(channels), values, rng)
        if ignore:
            seg[..., : sizes[-1] // 4] = max(values) + 1
        for channel, image in enumerate(images):
            write_image(folder / f"images{part}" / f"{identifier}_{channel:04d}{file_ending}", image, spacing)
        write_image(folder / f"labels{part}" / f"{identifier}{file_ending}", seg, spacing)
    (folder / "dataset.json").write_text(json.dumps(document, indent=4))
    return folder


def make_fixture_a(raw_folder: Path | str, dataset_id: int = 11, name: str = "Tiny3D") -> Path:
    """Fixture A of spec 01, 9.8: three anisotropic two-channel 3D cases whose every number upstream was asked for."""
    folder = Path(raw_folder) / f"Dataset{dataset_id:03d}_{name}"
    rng = np.random.RandomState(0)
    shapes = ((12, 40, 36), (14, 44, 40), (12, 40, 38))
    spacings = ((3.5, 1.0, 1.0), (3.5, 1.0, 1.0), (3.0, 1.1, 1.1))
    for index, (shape, spacing) in enumerate(zip(shapes, spacings, strict=True)):
        inside = np.zeros(shape, bool)
        inside[1:-1, 4:-4, 3:-5] = True
        images = [rng.normal(100, 20, shape), rng.uniform(0, 1000, shape)]
        seg = np.zeros(shape, np.uint8)
        seg[3:8, 10:25, 10:20] = 1
        seg[4:6, 12:20, 12:16] = 2
        for channel, image in enumerate(images):
            values = np.where(inside, image, 0).astype(np.float32)
            write_image(folder / "imagesTr" / f"case_{index:02d}_{channel:04d}.nii.gz", values, spacing)
        write_image(folder / "labelsTr" / f"case_{index:02d}.nii.gz", seg, spacing)
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "CT", "1": "T2"},
                "labels": {"background": 0, "organ": 1, "lesion": 2},
                "numTraining": 3,
                "file_ending": ".nii.gz",
            },
            indent=4,
        )
    )
    return folder


def make_fixture_b(raw_folder: Path | str, dataset_id: int = 12, name: str = "Tiny2D") -> Path:
    """Fixture B of spec 01, 6.12: four RGB PNGs, 64x80 twice and 72x80 twice; channels R, G and rgb_to_0_1."""
    folder = Path(raw_folder) / f"Dataset{dataset_id:03d}_{name}"
    rng = np.random.RandomState(0)
    for index, rows in enumerate((64, 64, 72, 72)):
        image = rng.randint(0, 256, (rows, 80, 3)).astype(np.uint8)
        seg = np.zeros((rows, 80), np.uint8)
        seg[20:40, 20:50] = 1
        write_image(folder / "imagesTr" / f"case_{index:02d}_0000.png", image, (1, 1))
        write_image(folder / "labelsTr" / f"case_{index:02d}.png", seg, (1, 1))
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "R", "1": "G", "2": "rgb_to_0_1"},
                "labels": {"background": 0, "object": 1},
                "numTraining": 4,
                "file_ending": ".png",
            },
            indent=4,
        )
    )
    return folder
