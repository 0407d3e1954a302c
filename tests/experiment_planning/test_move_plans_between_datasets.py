"""Plans of one dataset for another: what changes (spec 01, 8.7 and 9.9), what is refused, what is warned about."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import complaint, succeed
from helpers.datasets import make_dataset
from helpers.fingerprints import write_fingerprint

from nnunet_lite.experiment_planning.move_plans_between_datasets import move_plans_between_datasets

MOVE = "nnUNetv2_move_plans_between_datasets"


@pytest.fixture
def plans(nnunet_folders: Any) -> dict[str, Any]:
    """Dataset 11 with plans (cascade and a configuration by hand included), Dataset 12 with images only."""
    cases = ([(256, 256, 256)] * 6, [(1, 1, 1)] * 6)
    name = write_fingerprint(nnunet_folders.raw, nnunet_folders.preprocessed, *cases, name="Dataset011_Eleven")
    succeed("nnUNetv2_plan_experiment", "-d", "11")
    file = nnunet_folders.preprocessed / name / "nnUNetPlans.json"
    content = json.loads(file.read_text())
    content["configurations"]["mine"] = {"inherits_from": "3d_fullres", "data_identifier": "own", "batch_size": 4}
    content["another key"] = {"b": 1, "a": 2}
    file.write_text(json.dumps(content))
    make_dataset(nnunet_folders.raw, 12, "Twelve", n=2, shape=(16, 20), file_ending=".png", spacing=(1, 1))
    return content


def moved(folders: Any, name: str) -> dict[str, Any]:
    return json.loads((folders.preprocessed / "Dataset012_Twelve" / f"{name}.json").read_text())


def test_what_changes_and_what_does_not(plans: dict[str, Any], nnunet_folders: Any) -> None:
    succeed(MOVE, "-s", "11", "-t", "Dataset012_Twelve", "-sp", "nnUNetPlans", "-tp", "fromEleven")
    found = moved(nnunet_folders, "fromEleven")
    identifiers = {name: c.get("data_identifier") for name, c in found["configurations"].items()}
    assert identifiers == {
        "2d": "fromEleven_2d",
        "3d_lowres": "fromEleven_3d_lowres",
        "3d_fullres": "fromEleven_3d_fullres",
        "3d_cascade_fullres": None,
        "mine": "fromEleven_own",
    }
    assert (found["dataset_name"], found["plans_name"]) == ("Dataset012_Twelve", "fromEleven")
    assert (plans["image_reader_writer"], found["image_reader_writer"]) == ("SimpleITKIO", "NaturalImage2DIO")
    assert list(found) == list(plans) and list(found["another key"]) == ["b", "a"]
    for document in (found, plans):
        for key in ("dataset_name", "plans_name", "image_reader_writer"):
            del document[key]
        for configuration in document["configurations"].values():
            configuration.pop("data_identifier", None)
    assert found == plans


def test_without_a_new_name_identifiers_stay(plans: dict[str, Any], nnunet_folders: Any) -> None:
    succeed(MOVE, "-s", "11", "-t", "12", "-sp", "nnUNetPlans")
    found = moved(nnunet_folders, "nnUNetPlans")
    assert found["configurations"] == plans["configurations"]


def test_the_target_can_be_preprocessed_at_once(nnunet_folders: Any) -> None:
    """Upstream leaves the target without the dataset.json that preprocessing asks for."""
    for number, name in ((21, "Source"), (22, "Target")):
        make_dataset(nnunet_folders.raw, number, name, n=2)
    succeed("nnUNetv2_plan_and_preprocess", "-d", "21", "-npfp", "0", "--no_pp", "--no_pbar")
    succeed(MOVE, "-s", "21", "-t", "22", "-sp", "nnUNetPlans", "-tp", "theirs")
    arguments = ["-plans_name", "theirs", "-c", "3d_fullres", "-np", "0", "--no_pbar"]
    succeed("nnUNetv2_preprocess", "-d", "22", *arguments)
    folder = nnunet_folders.preprocessed / "Dataset022_Target" / "theirs_3d_fullres"
    assert len(list(folder.glob("*.pkl"))) == 2


def test_the_targets_own_plans_are_not_replaced_silently(
    plans: dict[str, Any], nnunet_folders: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    file = move_plans_between_datasets(11, 12, "nnUNetPlans")
    move_plans_between_datasets(11, 12, "nnUNetPlans")  # the same again is no loss
    own = {**json.loads(file.read_text()), "plans_name": "edited"}
    file.write_text(json.dumps(own))
    line = complaint(capfd, MOVE, "-s", "11", "-t", "12", "-sp", "nnUNetPlans")
    assert "has plans 'nnUNetPlans' of its own" in line and "-tp" in line and "--overwrite" in line
    assert json.loads(file.read_text()) == own
    succeed(MOVE, "-s", "11", "-t", "12", "-sp", "nnUNetPlans", "--overwrite")
    assert moved(nnunet_folders, "nnUNetPlans")["plans_name"] == "nnUNetPlans"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-s", "11", "-t", "99", "-sp", "nnUNetPlans"), "There is no dataset with id 99"),
        (("-s", "98", "-t", "12", "-sp", "nnUNetPlans"), "There is no dataset with id 98"),
        (("-s", "11", "-t", "12", "-sp", "nobodys"), "no plans 'nobodys'"),
    ],
)
def test_what_is_refused(
    plans: dict[str, Any], arguments: tuple[str, ...], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert message in complaint(capfd, MOVE, *arguments)


def change_spacing(plans: dict[str, Any]) -> None:
    plans["configurations"]["2d"]["spacing"] = [2, 2]


def change_resampling(plans: dict[str, Any]) -> None:
    plans["configurations"]["2d"]["resampling_fn_seg_kwargs"] = {"order": 0}


def change_intensities(plans: dict[str, Any]) -> None:
    plans["foreground_intensity_properties_per_channel"] = {}


@pytest.mark.parametrize("change", [change_spacing, change_resampling, change_intensities])
def test_warnings(
    change: Callable[[dict[str, Any]], None],
    plans: dict[str, Any],
    nnunet_folders: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    document = Path(nnunet_folders.raw / "Dataset012_Twelve" / "dataset.json")
    document.write_text(document.read_text().replace('"MRI"', '"R", "1": "G"'))
    move_plans_between_datasets(11, 12, "nnUNetPlans")
    assert "has 2 channels, the plans are for 1" in caplog.text
    caplog.clear()
    file = nnunet_folders.preprocessed / "Dataset012_Twelve" / "other.json"
    other = moved(nnunet_folders, "nnUNetPlans")
    change(other)
    file.write_text(json.dumps({**other, "plans_name": "other"}))
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        move_plans_between_datasets(11, 12, "nnUNetPlans", overwrite=True)
    assert "Plans other store cases in nnUNetPlans_2d, " in caplog.text
