"""A dataset appears complete under its name or not at all, and an interrupted conversion goes on where it stopped."""

from __future__ import annotations

import os

import pytest
from helpers.earlier_tasks import make_msd_task

from nnunet_lite.dataset_conversion import new_dataset
from nnunet_lite.dataset_conversion.convert_MSD_dataset import convert_msd_dataset
from nnunet_lite.dataset_conversion.new_dataset import files_of, require_free
from nnunet_lite.exceptions import DatasetError, StorageError

UNFINISHED = ".unfinished_Dataset077_Foo"


@pytest.fixture
def interrupted(tmp_path, nnunet_folders, monkeypatch):
    """A conversion that was stopped after a label map and all volumes of one image; the task's folder."""
    task = make_msd_task(tmp_path)
    original = new_dataset._transfer

    def stop(transfer, folder):
        if transfer.source.endswith("foo_2.nii.gz"):
            raise KeyboardInterrupt
        original(transfer, folder)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(new_dataset, "_transfer", stop)
        convert_msd_dataset(task, num_processes=0, show_progress=False)
    return task


def test_an_interruption_leaves_no_dataset_and_is_gone_on_with(interrupted, nnunet_folders, monkeypatch):
    assert [entry.name for entry in nnunet_folders.raw.iterdir()] == [UNFINISHED]
    (nnunet_folders.raw / UNFINISHED / "imagesTr" / "stale.nii.gz").write_bytes(b"of another time")
    made = []
    original = new_dataset.split
    monkeypatch.setattr(new_dataset, "split", lambda source, targets: (made.append(source), original(source, targets)))
    target = convert_msd_dataset(interrupted, num_processes=0, show_progress=False)
    assert [os.path.basename(source) for source in made] == ["foo_2.nii.gz", "foo_3.nii.gz"]
    assert [entry.name for entry in nnunet_folders.raw.iterdir()] == ["Dataset077_Foo"]
    assert not (target / "imagesTr" / "stale.nii.gz").exists()
    assert len(list((target / "imagesTr").iterdir())) == 4


def test_a_source_that_has_changed_is_taken_again(interrupted, nnunet_folders, monkeypatch):
    os.utime(interrupted / "imagesTr" / "foo_1.nii.gz", (1, 1))
    made = []
    original = new_dataset.split
    monkeypatch.setattr(new_dataset, "split", lambda source, targets: (made.append(source), original(source, targets)))
    convert_msd_dataset(interrupted, num_processes=0, show_progress=False)
    assert len(made) == 3


def test_a_full_disk_is_one_line_and_keeps_what_is_finished(tmp_path, nnunet_folders, monkeypatch):
    def full(source, targets):
        raise StorageError("No space left")

    monkeypatch.setattr(new_dataset, "split", full)
    with pytest.raises(StorageError, match="No space left"):
        convert_msd_dataset(make_msd_task(tmp_path), num_processes=0, show_progress=False)
    assert [entry.name for entry in nnunet_folders.raw.iterdir()] == [UNFINISHED]


def test_what_planning_will_refuse_is_warned_about(tmp_path, nnunet_folders, caplog):
    task = make_msd_task(tmp_path, labels={"0": "background", "1": "organ", "5": "lesion"})
    convert_msd_dataset(task, num_processes=0, show_progress=False)
    assert "expected consecutive numbers" in caplog.text


@pytest.mark.parametrize("name", ["Foo", "Dataset12_Foo", "Dataset012", "Dataset012_", "Dataset012_a/b", "Task012_Foo"])
def test_names_that_are_none(nnunet_folders, name):
    with pytest.raises(DatasetError, match="expected DatasetXXX_NAME"):
        require_free(name)


def test_an_existing_file_or_dead_link_is_in_the_way(nnunet_folders):
    (nnunet_folders.raw / "Dataset012_Foo").symlink_to("nowhere")
    with pytest.raises(DatasetError, match="exists already"):
        require_free("Dataset012_Foo")
    require_free("Dataset1012_Foo")


def test_files_of_a_folder(tmp_path):
    for name in ("b.nii.gz", "._b.nii.gz", "_c.nii.gz", "d.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "a.nii.gz").symlink_to(tmp_path / "b.nii.gz")
    (tmp_path / "e.nii.gz").symlink_to(tmp_path / "nowhere")
    assert files_of(tmp_path, (".", "_"), ".nii.gz") == (["a.nii.gz", "b.nii.gz"], ["e.nii.gz"])
    assert files_of(tmp_path).files == ["_c.nii.gz", "a.nii.gz", "b.nii.gz", "d.txt"]
