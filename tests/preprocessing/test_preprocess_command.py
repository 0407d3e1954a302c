"""The command that a message advises is the one that makes the folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.preprocessing.preprocess_command import preprocess_command
from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "Dataset004_Hippocampus"
    folder.mkdir()
    shared = {"3d_fullres": {"data_identifier": "nnUNetPlans_3d_fullres"}, "child": {"inherits_from": "3d_fullres"}}
    small = {**shared, "2d": {"data_identifier": "small_2d"}}
    for name, configurations in (("a_small", small), ("nnUNetPlans", shared)):
        (folder / f"{name}.json").write_text(json.dumps({"configurations": configurations}))
    (folder / "damaged.json").write_text("{")
    (folder / "wrong.json").write_text(json.dumps({"configurations": {"2d": 5}}))
    return folder


@pytest.mark.parametrize(
    ("folder", "flags"),
    [
        ("small_2d", " -plans_name a_small -c 2d"),
        ("nnUNetPlans_3d_fullres", " -c 3d_fullres"),
        ("elsewhere", ""),
    ],
)
def test_flags_come_from_the_plans(dataset: Path, folder: str, flags: str) -> None:
    assert preprocess_command(dataset / folder) == f"nnUNetv2_preprocess -d Dataset004_Hippocampus{flags}"


def test_of_other_folders_only_the_command_is_known(tmp_path: Path) -> None:
    assert preprocess_command(tmp_path / "folder") == "nnUNetv2_preprocess"
    assert preprocess_command("") == "nnUNetv2_preprocess"


def test_a_message_with_it(dataset: Path) -> None:
    with pytest.raises(DatasetError, match=r"; make it: nnUNetv2_preprocess -d Dataset004_Hippocampus -plans_name a_s"):
        nnUNetDatasetBlosc2(dataset / "small_2d")
