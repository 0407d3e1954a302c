"""Integrity check: each kind of fault alone, all together in one list."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from helpers.datasets import make_dataset

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.experiment_planning.case_examination import count_labels
from nnunet_lite.experiment_planning.verify_dataset_integrity import check_dataset, verify_dataset_integrity


def rewrite(file: Path, change: Callable[[np.ndarray], np.ndarray], **geometry) -> None:
    image = sitk.ReadImage(str(file))
    changed = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
    changed.CopyInformation(image) if changed.GetSize() == image.GetSize() else changed.SetSpacing(image.GetSpacing())
    for name, value in geometry.items():
        getattr(changed, f"Set{name}")(value)
    sitk.WriteImage(changed, str(file), True)


def edit(folder: Path, **changes) -> None:
    document = json.loads((folder / "dataset.json").read_text())
    document.update(changes)
    (folder / "dataset.json").write_text(json.dumps({k: v for k, v in document.items() if v is not None}))


def put(array: np.ndarray, value: float) -> np.ndarray:
    array = array.astype(np.result_type(array, type(value)))
    array[2, 3, 3] = value
    return array


@pytest.fixture
def folder(nnunet_folders) -> Path:
    return make_dataset(nnunet_folders.raw, n=3, shape=(6, 8, 7), channels=("a", "b"), vary=0)


def image(folder: Path, channel: int = 1) -> Path:
    return folder / "imagesTr" / f"case_01_{channel:04d}.nii.gz"


def label(folder: Path) -> Path:
    return folder / "labelsTr" / "case_01.nii.gz"


def same(array: np.ndarray) -> np.ndarray:
    return array


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "NaN": (lambda f: rewrite(image(f), lambda a: put(a, np.nan)), r"case_01_0001\.nii\.gz: 1 voxel is NaN"),
    "infinity": (lambda f: rewrite(image(f), lambda a: put(a, np.inf)), r"_0001\.nii\.gz: 1 voxel is NaN or"),
    "unknown label": (lambda f: rewrite(label(f), lambda a: put(a, 9)), r"9 \(1 voxel\), expected 0, 1, 2"),
    "binary mask": (lambda f: rewrite(label(f), lambda a: (a > 0).astype(np.uint8) * 255), "store its foreground as 1"),
    "label 0.5": (lambda f: rewrite(label(f), lambda a: put(a, 0.5)), r"case_01\.nii\.gz: holds 0\.5 \(1 voxel\)"),
    "channel shape": (lambda f: rewrite(image(f), lambda a: a[1:]), r"\[1, 5, 8, 7\].*expected \[1, 6, 8, 7\]"),
    "channel spacing": (
        lambda f: rewrite(image(f), same, Spacing=(1, 1, 2)),
        r"spacing \[2\.0, 1\.0.*expected \[1",
    ),
    "label shape": (lambda f: rewrite(label(f), lambda a: a[1:]), r"shape \[5, 8, 7\], expected \[6, 8, 7\]"),
    "label spacing": (lambda f: rewrite(label(f), same, Spacing=(1, 1, 2)), r"spacing \[2\.0, 1.*expected \[1\.0, 1"),
    "truncated image": (lambda f: image(f).write_bytes(image(f).read_bytes()[:-30]), r"_0001\.nii\.gz: is truncated"),
    "truncated label": (lambda f: label(f).write_bytes(label(f).read_bytes()[:50]), r"case_01\.nii\.gz"),
    "missing channel": (lambda f: image(f).unlink(), r"case_01_0001\.nii\.gz: this channel is missing"),
    "missing label": (lambda f: label(f).unlink(), r"case_01\.nii\.gz: there is no label map"),
}
FAULTS_OF_DATASET: dict[str, tuple[Callable[[Path], object], str]] = {
    "number": (lambda f: edit(f, numTraining=4), "numTraining 4, but there are 3"),
    "missing key": (lambda f: edit(f, labels=None), 'lacks "labels"'),
    "old key": (lambda f: edit(f, channel_names=None, modality={"0": "a", "1": "b"}), 'rename "modality"'),
    "label gap": (lambda f: edit(f, labels={"background": 0, "a": 2}), "consecutive"),
    "ignore": (lambda f: edit(f, labels={"background": 0, "a": 1, "ignore": 5}), "ignore"),
    "no background": (lambda f: edit(f, labels={"a": 1, "b": 2}), "background"),
    "channels": (lambda f: edit(f, channel_names={"0": "a"}), "2 channels in 2 files, expected 1"),
    "ending": (lambda f: edit(f, file_ending=".mha"), r"'\.mha'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_of_a_case(folder, name):
    break_it, message = FAULTS[name]
    break_it(folder)
    with pytest.raises(DatasetError, match=message) as error:
        verify_dataset_integrity(folder, 0, show_progress=False)
    assert "Dataset901_Tiny: case_01: " in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", FAULTS_OF_DATASET)
def test_fault_of_the_dataset(folder, name):
    break_it, message = FAULTS_OF_DATASET[name]
    break_it(folder)
    with pytest.raises(DatasetError, match=message):
        verify_dataset_integrity(folder, 0, show_progress=False)


def test_all_faults_of_all_cases_in_one_list(folder):
    edit(folder, numTraining=4)
    rewrite(folder / "labelsTr/case_00.nii.gz", lambda a: put(a, 7))
    rewrite(folder / "imagesTr/case_00_0000.nii.gz", lambda a: put(a, np.nan))
    image(folder).write_bytes(b"nothing")
    (folder / "labelsTr/case_02.nii.gz").unlink()
    with pytest.raises(DatasetError) as error:
        verify_dataset_integrity(folder, 2, show_progress=False)
    first, *lines = str(error.value).splitlines()
    assert "5 faults" in first and "3 of 3 cases" in first
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["case_02", "case_00", "case_00", "case_01"]


def test_sound_dataset_with_ignore_label_and_regions(nnunet_folders, caplog):
    with caplog.at_level(logging.INFO, "nnunet_lite"):
        verify_dataset_integrity(make_dataset(nnunet_folders.raw, 1, n=2, shape=(6, 8, 7), ignore=True), 0)
        verify_dataset_integrity(make_dataset(nnunet_folders.raw, 2, n=2, shape=(6, 8, 7), regions=True), 0)
    assert caplog.text.count("no faults found") == 2
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_warnings(folder, caplog):
    rewrite(label(folder), np.zeros_like, Origin=(0, 0, 5))
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        verify_dataset_integrity(folder, 2, show_progress=False)
    assert "all background" in caplog.text and "origin" in caplog.text and "5.0" in caplog.text


def test_empty_dataset(folder):
    for file in (folder / "imagesTr").iterdir():
        file.unlink()
    with pytest.raises(DatasetError, match="no training cases"):
        verify_dataset_integrity(folder, 0, show_progress=False)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_count_labels(dtype):
    seg = np.random.default_rng(0).integers(0, 5, (1, 3, 40, 50)).astype(dtype)
    if dtype != np.uint8:
        seg[0, 0, 0, :2] = -3, np.iinfo(dtype).max
    values, counts = np.unique(seg, return_counts=True)
    assert count_labels(seg) == dict(zip(values.tolist(), counts.tolist(), strict=True))


def kinds(folder):
    found = check_dataset(folder, 0, show_progress=False).examination.findings
    return [(finding.kind, finding.case) for finding in found]


def test_what_a_reader_remarks_is_a_warning(nnunet_folders):
    folder = make_dataset(nnunet_folders.raw, n=1, shape=(6, 8, 7), file_ending=".nii.gz")
    for part, name in (("imagesTr", "case_00_0000"), ("labelsTr", "case_00")):
        file = folder / part / f"{name}.nii.gz"
        tifffile.imwrite(file.with_name(f"{name}.tif"), sitk.GetArrayFromImage(sitk.ReadImage(str(file))))
        file.unlink()
    edit(folder, file_ending=".tif")
    assert kinds(folder) == [("reader-warning", "case_00")] * 2


READER = """
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO
class StrangeIO(SimpleITKIO):
    def read_images(self, files):
        if "case_01" in files[0]:
            raise KeyError("no such header")
        data, properties = super().read_images(files)
        return data, {**properties, "spacing": [0.0, 1.0, 1.0]}
    read_images_unaltered = read_images
"""


def test_a_reader_of_ones_own_that_fails(folder, tmp_path, monkeypatch):
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes" / "strange.py").write_text(READER)
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "classes"))
    edit(folder, overwrite_image_reader_writer="StrangeIO")
    found = kinds(folder)
    assert ("case-failed", "case_01") in found
    assert ("spacing-not-positive", "case_00") in found


def test_orders_and_medians_do_not_mix_dimensions(folder):
    for case in ("case_00", "case_02"):
        for file in folder.rglob(f"{case}*.nii.gz"):
            rewrite(file, lambda a: a[3:4], Spacing=(1, 1, 500))
    assert kinds(folder) == [("dimension-mixture", "case_01")]
