"""The demo's dataset: in nnU-Net's layout, reproducible, and nothing a threshold could solve."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from scipy.ndimage import binary_dilation

from nnunet_lite.demo.dataset import DATASET_NAME, LABELS, make_case, make_dataset
from nnunet_lite.utilities.files import load_json


@pytest.fixture(scope="module")
def case():
    return make_case(1000)


def test_case_is_small_anisotropic_and_has_both_structures(case):
    assert case.image.shape == case.segmentation.shape
    assert 30_000 < case.image.size < 100_000
    assert case.spacing[0] > 2 * case.spacing[1] == 2 * case.spacing[2]
    organ, core = (np.sum(case.segmentation == LABELS[name]) for name in ("organ", "core"))
    assert organ > 3 * core > 300


def test_core_lies_within_the_organ(case):
    around = binary_dilation(case.segmentation == LABELS["core"])
    assert np.all(case.segmentation[around] > 0)


@pytest.mark.parametrize("seed", [1000, 1003, 1013])
def test_no_range_of_brightness_finds_the_structures(seed):
    image, segmentation, _ = make_case(seed)
    limits = np.percentile(image, np.linspace(0, 100, 60))
    for target in (segmentation > 0, segmentation == LABELS["core"]):
        masks = [(image >= low) & (image <= high) for low in limits for high in limits if high > low]
        best = max(2 * np.sum(mask & target) / (np.sum(mask) + np.sum(target)) for mask in masks)
        assert best < 0.6


def test_cases_differ_and_repeat(case):
    again, other = make_case(1000), make_case(1001)
    np.testing.assert_array_equal(again.image, case.image)
    assert other.spacing != case.spacing


def test_layout_on_disk(tmp_path):
    folder = make_dataset(tmp_path, training_cases=2, test_cases=1, scale=0.5)
    assert folder.name == DATASET_NAME
    assert load_json(folder / "dataset.json")["numTraining"] == 2
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.nii.gz"))
    assert names == [
        "imagesTr/demo_000_0000.nii.gz",
        "imagesTr/demo_001_0000.nii.gz",
        "imagesTs/demo_002_0000.nii.gz",
        "labelsTr/demo_000.nii.gz",
        "labelsTr/demo_001.nii.gz",
        "labelsTs/demo_002.nii.gz",
    ]
    image, label = (SimpleITK.ReadImage(str(folder / name)) for name in (names[0], names[3]))
    assert image.GetSize() == label.GetSize()
    np.testing.assert_allclose(image.GetSpacing(), make_case(1000, 0.5).spacing[::-1], rtol=1e-6)


def test_an_existing_dataset_is_left_alone(tmp_path):
    folder = make_dataset(tmp_path, training_cases=1, test_cases=0, scale=0.5)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.nii.gz")}
    assert make_dataset(tmp_path, training_cases=1, test_cases=0, scale=0.5) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.nii.gz")} == before
