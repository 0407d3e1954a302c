"""Decathlon tasks: files, geometry and dataset.json as upstream makes them; everything wrong is said before a start."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.commands import complaint, files_below, succeed
from helpers.earlier_tasks import DIRECTION, make_msd_task, write

from nnunet_lite.dataset_conversion.convert_MSD_dataset import convert_msd_dataset, split_4d_nifti
from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

COMMAND = "nnUNetv2_convert_MSD_dataset"


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_golden_conversion_of_a_task(tmp_path, nnunet_folders):
    """Spec 01, 9.9: 4D training and test images become one file per channel; junk stays behind."""
    task = make_msd_task(tmp_path)
    succeed(COMMAND, "-i", f"{task}/", "-np", 0)
    target = nnunet_folders.raw / "Dataset077_Foo"
    assert _names(target) == [
        "dataset.json",
        *(f"imagesTr/foo_{case}_000{channel}.nii.gz" for case in (1, 2) for channel in (0, 1)),
        *(f"imagesTs/foo_3_000{channel}.nii.gz" for channel in (0, 1)),
        *(f"labelsTr/foo_{case}.nii.gz" for case in (1, 2)),
    ]
    document = json.loads((target / "dataset.json").read_text())
    assert list(document.items()) == [
        ("name", "Tiny"),
        ("tensorImageSize", "3D"),
        ("labels", {"background": 0, "organ": 1, "lesion": 2}),
        ("numTraining", 2),
        ("numTest", 1),
        ("file_ending", ".nii.gz"),
        ("channel_names", {"0": "MR0", "1": "MR1"}),
    ]
    assert list(nnunet_folders.raw.iterdir()) == [target]
    verify_dataset_integrity(target, 0, show_progress=False)


def test_every_volume_keeps_voxels_type_and_spatial_geometry(tmp_path, nnunet_folders):
    task = make_msd_task(tmp_path)
    target = convert_msd_dataset(task, num_processes=0)
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(task / "imagesTr" / "foo_2.nii.gz")))
    for channel, volume in enumerate(stored):
        image = sitk.ReadImage(str(target / "imagesTr" / f"foo_2_{channel:04d}.nii.gz"))
        assert np.array_equal(sitk.GetArrayFromImage(image), volume)
        assert (image.GetPixelID(), image.GetSize()) == (sitk.sitkInt16, (5, 6, 4))
        assert image.GetSpacing() == pytest.approx((0.5, 0.75, 3.0))
        assert image.GetOrigin() == pytest.approx((-10.0, 20.0, 5.5))
        assert image.GetDirection() == pytest.approx(DIRECTION)
    label = (target / "labelsTr" / "foo_1.nii.gz").read_bytes()
    assert label == (task / "labelsTr" / "foo_1.nii.gz").read_bytes()


def test_images_of_one_channel_are_copied_whether_3d_or_4d(tmp_path, nnunet_folders):
    task = make_msd_task(tmp_path, channels=1)
    volume = sitk.ReadImage(str(task / "imagesTr" / "foo_1.nii.gz"))
    sitk.WriteImage(sitk.JoinSeries([volume]), str(task / "imagesTr" / "foo_1.nii.gz"), True)
    target = convert_msd_dataset(task, num_processes=2)
    for case in ("foo_1", "foo_2"):
        assert sitk.ReadImage(str(target / "imagesTr" / f"{case}_0000.nii.gz")).GetDimension() == 3
    copied = (target / "imagesTr" / "foo_2_0000.nii.gz").read_bytes()
    assert copied == (task / "imagesTr" / "foo_2.nii.gz").read_bytes()


def test_underscores_missing_test_images_and_keys_and_another_id(tmp_path, nnunet_folders):
    task = make_msd_task(tmp_path, "Task05_Foo_Bar", training=None, test=None, numTest=None, numTraining=99)
    for file in (task / "imagesTs").iterdir():
        file.unlink()
    (task / "imagesTs").rmdir()
    succeed(COMMAND, "-i", task, "-overwrite_id", 1234, "-np", 0)
    document = json.loads((nnunet_folders.raw / "Dataset1234_Foo_Bar" / "dataset.json").read_text())
    assert document["numTraining"] == 2
    assert not (nnunet_folders.raw / "Dataset1234_Foo_Bar" / "imagesTs").exists()


def test_links_are_followed(tmp_path, nnunet_folders):
    task = make_msd_task(tmp_path / "elsewhere", "anything")
    moved = (task / "labelsTr" / "foo_1.nii.gz").rename(tmp_path / "label.nii.gz")
    (task / "labelsTr" / "foo_1.nii.gz").symlink_to(moved)
    (tmp_path / "Task77_Foo").symlink_to(task)
    target = convert_msd_dataset(tmp_path / "Task77_Foo", num_processes=0)
    copied = target / "labelsTr" / "foo_1.nii.gz"
    assert not copied.is_symlink() and copied.read_bytes() == moved.read_bytes()


def _break(task: Path, how: str) -> None:
    images, labels = task / "imagesTr", task / "labelsTr"
    if how == "no document":
        (task / "dataset.json").unlink()
    elif how == "no JSON":
        (task / "dataset.json").write_text("{")
    elif how == "no labels folder":
        labels.rename(task / "labels")
    elif how == "label missing":
        (labels / "foo_2.nii.gz").unlink()
    elif how == "image missing":
        (images / "foo_2.nii.gz").unlink()
    elif how == "dead link":
        (images / "foo_2.nii.gz").unlink()
        (images / "foo_2.nii.gz").symlink_to(task / "nowhere")
    elif how == "too few volumes":
        write(images / "foo_2.nii.gz", [np.zeros((4, 6, 5), np.int16)])
    elif how == "too many volumes":
        write(task / "imagesTs" / "foo_3.nii.gz", [np.zeros((4, 6, 5), np.int16)] * 3)
    elif how == "garbage":
        (labels / "foo_1.nii.gz").write_bytes(b"garbage")
    elif how == "truncated":
        file = images / "foo_1.nii.gz"
        file.write_bytes(file.read_bytes()[:-40])
    elif how == "empty":
        for file in images.iterdir():
            file.unlink()
    elif how == "v1":
        for file in images.glob("foo*"):
            file.rename(images / file.name.replace(".nii.gz", "_0000.nii.gz"))


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("no document", "holds no dataset.json"),
        ("no JSON", "is no valid JSON"),
        ("no labels folder", "holds no labelsTr"),
        ("label missing", "there is no label map"),
        ("image missing", "there is no image"),
        ("dead link", "is a link that leads nowhere"),
        ("too few volumes", "foo_2.nii.gz has 1 volume, but dataset.json names 2 channels (MR0, MR1)"),
        ("too many volumes", "foo_3.nii.gz has 3 volumes"),
        ("garbage", "foo_1.nii.gz cannot be read"),
        ("empty", "imagesTr holds no files ending in .nii.gz"),
        ("v1", "nnUNetv2_convert_old_nnUNet_dataset"),
    ],
)
def test_a_broken_task_is_one_line_and_leaves_nothing(tmp_path, nnunet_folders, capfd, how, named):
    task = make_msd_task(tmp_path)
    _break(task, how)
    assert named in complaint(capfd, COMMAND, "-i", task, "-np", 0)
    assert files_below(nnunet_folders.raw) == {}


def test_an_image_that_turns_out_truncated_leaves_nothing(tmp_path, nnunet_folders):
    task = make_msd_task(tmp_path)
    _break(task, "truncated")
    with pytest.raises(DatasetError, match=r"foo_1.nii.gz is truncated or damaged"):
        convert_msd_dataset(task, num_processes=0, show_progress=False)
    assert list(nnunet_folders.raw.iterdir()) == []


def test_several_faults_are_all_listed(tmp_path, nnunet_folders):
    task = make_msd_task(tmp_path)
    _break(task, "too few volumes")
    _break(task, "garbage")
    with pytest.raises(DatasetError, match="2 faults") as error:
        convert_msd_dataset(task, num_processes=0)
    assert "foo_2" in str(error.value) and "foo_1" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"modality": None}, 'there is no "modality"'),
        ({"modality": {"1": "MR"}}, '"modality" is'),
        ({"modality": 3}, '"modality" is 3'),
        ({"labels": None}, 'there is no "labels"'),
        ({"labels": {"0": "background", "1": "a", "2": "a"}}, "labels 1 and 2 are both called 'a'"),
        ({"labels": ["background", "a"]}, '"labels" is'),
    ],
)
def test_a_document_that_cannot_be_converted(tmp_path, nnunet_folders, capfd, changes, named):
    assert named in complaint(capfd, COMMAND, "-i", make_msd_task(tmp_path, **changes), "-np", 0)
    assert files_below(nnunet_folders.raw) == {}


def test_wrong_names_and_ids(tmp_path, nnunet_folders, capfd):
    task = make_msd_task(tmp_path)
    assert "is no folder" in complaint(capfd, COMMAND, "-i", tmp_path / "nothing")
    other = make_msd_task(tmp_path, "Hippocampus")
    assert "expected a folder called TaskNN_NAME" in complaint(capfd, COMMAND, "-i", other)
    (nnunet_folders.results / "Dataset077_Other").mkdir()
    (nnunet_folders.raw / "Dataset078_Other").mkdir()
    assert "id 77 is taken by Dataset077_Other" in (line := complaint(capfd, COMMAND, "-i", task))
    assert line.endswith("for example 79")
    assert "-1 processes" in complaint(capfd, COMMAND, "-i", task, "-overwrite_id", 5, "-np", -1)
    with pytest.raises(ArgumentError, match="-1"):
        convert_msd_dataset(task, -1)
    assert "nnUNet_raw" in _without_raw(task, capfd)


def _without_raw(task: Path, capfd) -> str:
    value = os.environ.pop("nnUNet_raw")
    try:
        return complaint(capfd, COMMAND, "-i", task)
    finally:
        os.environ["nnUNet_raw"] = value


def test_split_4d_nifti(tmp_path):
    write(tmp_path / "a.nii.gz", [np.full((4, 6, 5), value, np.int16) for value in (1, 2)])
    write(tmp_path / "b.nii.gz", [np.full((4, 6, 5), 3, np.int16)])
    for name in ("a", "b"):
        split_4d_nifti(str(tmp_path / f"{name}.nii.gz"), str(tmp_path / "out"))
    found = {
        file.name: sitk.GetArrayFromImage(sitk.ReadImage(str(file))).max() for file in (tmp_path / "out").iterdir()
    }
    assert found == {"a_0000.nii.gz": 1, "a_0001.nii.gz": 2, "b_0000.nii.gz": 3}
