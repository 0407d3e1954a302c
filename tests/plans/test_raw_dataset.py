"""Ids, names and files of raw datasets (spec 01, sections 2.1 to 2.3)."""

from __future__ import annotations

import json

import pytest

from nnunet_lite.exceptions import DatasetError, PathError
from nnunet_lite.plans.raw_dataset import (
    RawDataset,
    dataset_id_to_name,
    dataset_name_to_id,
    existing_datasets,
    get_filenames_of_train_images_and_targets,
    list_image_cases,
    maybe_convert_to_dataset_name,
    raw_folder,
)


def make(folder, cases=("a", "b"), channels=1, ending=".nii.gz", **document):
    """Empty files in raw layout: nothing here reads them."""
    for case in cases:
        for channel in range(channels):
            touch(folder / "imagesTr" / f"{case}_{channel:04d}{ending}")
        touch(folder / "labelsTr" / f"{case}{ending}")
    document = {
        "channel_names": {str(c): "x" for c in range(channels)},
        "labels": {"background": 0, "a": 1},
        "numTraining": len(cases),
        "file_ending": ending,
        **document,
    }
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def touch(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def test_ids_match_exactly(nnunet_folders):
    for name in ("Dataset100_A", "Dataset1000_B", "Dataset010_C", "Dataset004_D"):
        (nnunet_folders.raw / name).mkdir()
    assert dataset_id_to_name(100) == "Dataset100_A"
    assert dataset_id_to_name(1000) == "Dataset1000_B"
    assert dataset_id_to_name(10) == "Dataset010_C"
    assert dataset_name_to_id("Dataset1000_B") == 1000 and dataset_name_to_id("Dataset004_D") == 4
    assert [maybe_convert_to_dataset_name(given) for given in (4, "4", "004", "Dataset004_D")] == ["Dataset004_D"] * 4
    assert type(maybe_convert_to_dataset_name(4)) is str
    assert existing_datasets() == ["Dataset004_D", "Dataset010_C", "Dataset1000_B", "Dataset100_A"]


def test_unknown_id_lists_those_that_exist(nnunet_folders):
    (nnunet_folders.raw / "Dataset004_D").mkdir()
    (nnunet_folders.results / "Dataset007_E").mkdir()
    with pytest.raises(DatasetError, match="id 5 .*Dataset004_D, Dataset007_E"):
        maybe_convert_to_dataset_name(5)
    with pytest.raises(DatasetError, match="Dataset009_X.*Dataset004_D"):
        raw_folder("Dataset009_X")
    with pytest.raises(DatasetError, match="no dataset Dataset009_X in nnUNet_raw=.*Dataset004_D, Dataset007_E"):
        maybe_convert_to_dataset_name("Dataset009_X")
    with pytest.raises(DatasetError, match="'hippocampus'"):
        maybe_convert_to_dataset_name("hippocampus")
    with pytest.raises(DatasetError, match="DatasetXXX_NAME"):
        dataset_name_to_id("Task004_D")


def test_two_names_with_one_id_are_both_named(nnunet_folders):
    (nnunet_folders.raw / "Dataset004_A").mkdir()
    (nnunet_folders.preprocessed / "Dataset004_B").mkdir()
    with pytest.raises(DatasetError, match="Dataset004_A.*Dataset004_B|Dataset004_B.*Dataset004_A"):
        maybe_convert_to_dataset_name(4)
    assert maybe_convert_to_dataset_name("Dataset004_A") == "Dataset004_A"


def test_same_name_in_several_folders_is_one_dataset(nnunet_folders):
    for folder in nnunet_folders:
        (folder / "Dataset004_A").mkdir()
    assert dataset_id_to_name(4) == "Dataset004_A"


def test_unset_variable_is_named(monkeypatch):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(PathError, match="nnUNet_raw"):
        RawDataset.load("Dataset004_A")


def test_cases_and_channels(nnunet_folders):
    make(nnunet_folders.raw / "Dataset004_A", cases=("b", "a_0001", "a"), channels=2)
    touch(nnunet_folders.raw / "Dataset004_A" / "imagesTr" / "._a_0000.nii.gz")
    touch(nnunet_folders.raw / "Dataset004_A" / "imagesTr" / "readme.txt")
    dataset = RawDataset.load(4)
    folder = nnunet_folders.raw / "Dataset004_A"
    assert list(dataset.cases) == ["a", "a_0001", "b"]
    assert dataset.cases["a"].images == [str(folder / f"imagesTr/a_000{c}.nii.gz") for c in (0, 1)]
    assert dataset.cases["a"].label == str(folder / "labelsTr/a.nii.gz")
    assert get_filenames_of_train_images_and_targets(folder)["b"] == {
        "images": dataset.cases["b"].images,
        "label": dataset.cases["b"].label,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: touch(f / "imagesTr/c.nii.gz"), r"c\.nii\.gz.*CASE_0000\.nii\.gz"),
        (lambda f: (f / "imagesTr/a_0000.nii.gz").unlink(), r"a: imagesTr/a_0000\.nii\.gz: this channel is missing"),
        (lambda f: (f / "imagesTr/a_0001.nii.gz").unlink(), r"a: imagesTr/a_0001\.nii\.gz: this channel is missing"),
        (lambda f: (f / "labelsTr/b.nii.gz").unlink(), r"b: labelsTr/b\.nii\.gz: there is no label map"),
        (lambda f: [file.unlink() for file in (f / "imagesTr").iterdir()], "no training cases .*, it is empty"),
        (
            lambda f: [file.rename(file.with_name(file.name.upper())) for file in (f / "imagesTr").iterdir()],
            r"it holds .* expected files CASE_0000\.nii\.gz",
        ),
        (lambda f: (f / "labelsTr").rename(f / "labels"), "labelsTr does not exist"),
    ],
)
def test_faults_are_named(nnunet_folders, change, message):
    folder = make(nnunet_folders.raw / "Dataset004_A", cases=("a", "b", "c2"), channels=2)
    change(folder)
    with pytest.raises(DatasetError, match=message) as error:
        RawDataset.load(4)
    assert "Dataset004_A" in str(error.value)


def test_all_faults_are_listed_at_once(nnunet_folders):
    folder = make(nnunet_folders.raw / "Dataset004_A", cases=("a", "b", "c"), channels=2)
    (folder / "labelsTr/b.nii.gz").unlink()
    (folder / "imagesTr/a_0001.nii.gz").unlink()
    dataset = RawDataset.scan(folder)
    assert sorted((fault.case, fault.kind) for fault in dataset.faults) == [
        ("a", "image-missing"),
        ("b", "label-missing"),
    ]
    with pytest.raises(DatasetError) as error:
        RawDataset.load(4)
    assert len(str(error.value).splitlines()) == 3 and "2 faults" in str(error.value)


def test_list_image_cases(tmp_path):
    for name in ("a_0000.png", "b_0000.png", "b_0001.png"):
        touch(tmp_path / "in" / name)
    with pytest.raises(DatasetError, match="a_0001|b"):
        (tmp_path / "in" / "b_0000.png").unlink()
        list_image_cases(tmp_path / "in", ".png")
    with pytest.raises(DatasetError, match="does not exist"):
        list_image_cases(tmp_path / "nowhere", ".png")


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (("a.png", "a_0000.png"), "a.png: .*; it looks like a segmentation of case a; move it out of the folder$"),
        (("a_1.png",), "rename it to a_1_0000.png if it is channel 0 of case a_1, to a_0001.png if 1 is its channel$"),
        (("a_1.png", "a_0000.png", "a_0001.png"), "rename it to a_1_0000.png if it is channel 0 of case a_1$"),
    ],
)
def test_a_name_that_exists_is_never_proposed(tmp_path, names, advice):
    for name in names:
        touch(tmp_path / name)
    with pytest.raises(DatasetError, match=advice):
        list_image_cases(tmp_path, ".png")


def test_segmentations_among_images(tmp_path, caplog):
    for name in ("a.png", "a_0000.png", "b_0000.png"):
        touch(tmp_path / name)
    for say_so in (False, True):
        assert list(list_image_cases(tmp_path, ".png", True, say_so)) == ["a", "b"]
        assert ("segmentations among the images are passed over: a.png" in caplog.text) == say_so
    for name in ("c.png", "d.png"):
        touch(tmp_path / name)
    with pytest.raises(DatasetError, match="has 2 faults; correct them") as error:  # no "0 of 2 cases"
        list_image_cases(tmp_path, ".png", True, True)
    assert "a.png" not in str(error.value)


def test_explicit_list_of_files(nnunet_folders, tmp_path, monkeypatch):
    monkeypatch.setenv("ELSEWHERE", str(tmp_path / "elsewhere"))
    folder = nnunet_folders.raw / "Dataset004_A"
    touch(tmp_path / "elsewhere" / "i.nii.gz")
    touch(folder / "l.nii.gz")
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "x"},
                "labels": {"background": 0, "a": 1},
                "numTraining": 1,
                "file_ending": ".nii.gz",
                "dataset": {"z": {"images": ["$ELSEWHERE/i.nii.gz"], "label": "l.nii.gz"}},
            }
        )
    )
    case = RawDataset.load(4).cases["z"]
    assert case.images == [str(tmp_path / "elsewhere" / "i.nii.gz")] and case.label == str(folder / "l.nii.gz")
    (folder / "l.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"z: .*l\.nii\.gz"):
        RawDataset.load(4)
