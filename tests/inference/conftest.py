"""A tiny model of two folds, and images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.models import write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "results" / "Dataset001_X" / "nnUNetTrainer__nnUNetPlans__3d_fullres")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three cases of different sizes, one of them anisotropic."""
    sitk = pytest.importorskip("SimpleITK")
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, shape, spacing in (
        ("a", (9, 10, 11), (1, 1, 1)),
        ("b", (5, 12, 8), (0.7, 0.8, 4)),
        ("c", (8, 8, 8), (1, 1, 1)),
    ):
        image = sitk.GetImageFromArray(random.normal(size=shape).astype(np.float32))
        image.SetSpacing(spacing)
        sitk.WriteImage(image, str(folder / f"{name}_0000.nii.gz"))
    return folder
