"""The tiny datasets are what they promise to be, above all fixture A with upstream's numbers (spec 01, 9.8)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.datasets import make_dataset, make_fixture_a, make_fixture_b
from skimage.io import imread


def _array(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_fixture_a_has_upstreams_label_counts_and_crops(tmp_path: Path) -> None:
    folder = make_fixture_a(tmp_path)
    assert folder.name == "Dataset011_Tiny3D"
    crops = [(10, 32, 28), (12, 36, 32), (10, 32, 30)]
    for index, crop in enumerate(crops):
        seg = _array(folder / "labelsTr" / f"case_{index:02d}.nii.gz")
        assert np.bincount(seg.ravel())[1:].tolist() == [686, 64]
        nonzero = np.argwhere(_array(folder / "imagesTr" / f"case_{index:02d}_0001.nii.gz"))
        assert tuple(nonzero.max(0) - nonzero.min(0) + 1) == crop


def test_fixture_b_is_rgb(tmp_path: Path) -> None:
    folder = make_fixture_b(tmp_path)
    assert [imread(f).shape for f in sorted((folder / "imagesTr").iterdir())] == [(64, 80, 3)] * 2 + [(72, 80, 3)] * 2


@pytest.mark.parametrize(("shape", "ending"), [((6, 12, 10), ".nii.gz"), ((20, 24), ".png")])
def test_make_dataset_writes_what_it_declares(tmp_path: Path, shape: tuple[int, ...], ending: str) -> None:
    spacing = (3.0, 1.0, 0.5)[: len(shape)]
    folder = make_dataset(
        tmp_path, n=2, n_test=1, shape=shape, spacing=spacing, channels=("T1", "T2"), ignore=True, file_ending=ending
    )
    document = json.loads((folder / "dataset.json").read_text())
    assert document["labels"] == {"background": 0, "outer": 1, "inner": 2, "ignore": 3}
    assert len(list((folder / "imagesTr").iterdir())) == 4
    assert [f.name for f in (folder / "labelsTs").iterdir()] == [f"test_00{ending}"]
    read = imread if ending == ".png" else _array
    for file in (folder / "labelsTr").iterdir():
        assert np.unique(read(file)).tolist() == [0, 1, 2, 3]
    if ending == ".nii.gz":
        image = sitk.ReadImage(str(folder / "imagesTr" / "case_00_0001.nii.gz"))
        assert image.GetSpacing() == pytest.approx(spacing[::-1])
