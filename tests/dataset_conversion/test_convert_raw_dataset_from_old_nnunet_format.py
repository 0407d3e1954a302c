"""v1 tasks: copied as upstream does, hidden files apart; everything wrong is said before a start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.commands import complaint, files_below, succeed
from helpers.earlier_tasks import make_v1_task

from nnunet_lite.dataset_conversion.convert_raw_dataset_from_old_nnunet_format import convert
from nnunet_lite.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

COMMAND = "nnUNetv2_convert_old_nnUNet_dataset"
TARGET = "Dataset501_Foo"


def test_conversion_of_a_task(tmp_path, nnunet_folders):
    task = make_v1_task(tmp_path)
    (task / "imagesTr" / "notes.txt").write_text("kept")
    succeed(COMMAND, task, TARGET)
    target = nnunet_folders.raw / TARGET
    before = {Path(file).relative_to(task).as_posix(): Path(file).read_bytes() for file in files_below(task)}
    after = {Path(file).relative_to(target).as_posix(): Path(file).read_bytes() for file in files_below(target)}
    document = json.loads(after.pop("dataset.json"))
    assert after == {name: content for name, content in before.items() if "/._" not in name and "/" in name}
    assert document == {
        "name": "Tiny",
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "channel_names": {"0": "MR0", "1": "MR1"},
    }
    verify_dataset_integrity(target, 0, show_progress=False)


def test_keys_that_are_missing_are_not_missed(tmp_path, nnunet_folders):
    absent = dict.fromkeys(("tensorImageSize", "numTest", "training", "test", "numTraining"))
    target = convert(make_v1_task(tmp_path, **absent), TARGET, show_progress=False)
    assert json.loads((target / "dataset.json").read_text())["numTraining"] == 2


def _break(task: Path, how: str) -> None:
    images = task / "imagesTr"
    if how == "label missing":
        (task / "labelsTr" / "foo_1.nii.gz").unlink()
    elif how == "image missing":
        for file in images.glob("foo_1*"):
            file.unlink()
    elif how == "channel missing everywhere":
        for file in images.glob("*_0001.nii.gz"):
            file.unlink()
    elif how == "channel missing":
        (images / "foo_1_0000.nii.gz").unlink()
    elif how == "misnamed":
        (images / "foo_1_0.nii.gz").write_bytes((images / "foo_1_0000.nii.gz").read_bytes())
    elif how == "garbage":
        (task / "imagesTs" / "foo_3_0001.nii.gz").write_bytes(b"garbage")
    elif how == "dead link":
        (task / "labelsTs" / "link.nii.gz").symlink_to("nowhere")
    elif how == "Decathlon":
        for file in images.glob("foo*"):
            file.rename(images / file.name.replace("_0000", ""))
    elif how == "empty":
        for part in ("imagesTr", "labelsTr"):
            for file in (task / part).iterdir():
                file.unlink()


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("label missing", "foo_1: there is no label map"),
        ("image missing", "foo_1: there is no image"),
        ("channel missing", "foo_1_0000.nii.gz: this channel is missing"),
        ("misnamed", "foo_1_0.nii.gz"),
        ("garbage", "foo_3_0001.nii.gz cannot be read"),
        ("dead link", "link.nii.gz is a link that leads nowhere"),
        ("Decathlon", "nnUNetv2_convert_MSD_dataset -i"),
        ("empty", "holds no files ending in .nii.gz"),
    ],
)
def test_a_broken_task_is_one_line_and_leaves_nothing(tmp_path, nnunet_folders, capfd, how, named):
    task = make_v1_task(tmp_path)
    _break(task, how)
    assert named in complaint(capfd, COMMAND, task, TARGET)
    assert files_below(nnunet_folders.raw) == {}


def test_channels_that_the_document_does_not_know(tmp_path, nnunet_folders, capfd):
    task = make_v1_task(tmp_path, modality={"0": "CT"})
    (task / "imagesTr" / "foo_2_0001.nii.gz").unlink()
    (task / "imagesTr" / "foo_2_0000.nii.gz").unlink()
    (task / "labelsTr" / "foo_2.nii.gz").unlink()
    line = complaint(capfd, COMMAND, task, TARGET)
    assert "foo_1: it has 2 image files, but dataset.json names 1 channel (CT)" in line


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("Task501_Foo", "expected DatasetXXX_NAME"),
        ("/somewhere/Dataset501_Foo", "expected DatasetXXX_NAME"),
        ("Dataset004_Taken", "exists already"),
        ("Dataset004_Foo", "id 4 is taken by Dataset004_Taken"),
    ],
)
def test_a_name_that_cannot_be(tmp_path, nnunet_folders, capfd, name, named):
    (nnunet_folders.raw / "Dataset004_Taken").mkdir()
    assert named in complaint(capfd, COMMAND, make_v1_task(tmp_path), name)
    assert files_below(nnunet_folders.raw) == {}
