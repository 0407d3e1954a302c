"""The commands of the pages on regions, ignore label, splits and cascade, run as they stand on tiny datasets."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import SimpleITK as sitk
from conftest import Folders
from helpers import cascade_training, tiny_training
from helpers.commands import succeed
from helpers.datasets import make_dataset
from helpers.pages import blocks

from nnunet_lite.models.checkpoint import load_checkpoint
from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2

DOCUMENTATION = Path(__file__).parents[2] / "documentation"
QUICK = {
    "nnUNetv2_check_dataset": ["-np", "0"],
    "nnUNetv2_plan_and_preprocess": ["-npfp", "0", "-np", "0", "--no_pbar"],
    "nnUNetv2_train": ["-device", "cpu", "--precision", "float32"],
    "nnUNetv2_predict": ["-device", "cpu", "-npp", "0", "-nps", "0", "--disable_progress_bar"],
}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trainings of one iteration, in this process."""
    tiny_training.shorten(monkeypatch)
    monkeypatch.chdir(tmp_path)


def _run(page: str, dataset: str = "4") -> list[str]:
    """Run the commands and snippets of a page; returns the commands."""
    commands = []
    for kind, block, _ in blocks(page, "bash", "python"):
        if kind == "python":
            exec(compile(block, page, "exec"), {})
            continue
        for line in block.splitlines():
            command, *arguments = shlex.split(line)
            if command == "nnUNetv2_preprocess":  # the dataset is written as preprocessed
                continue
            commands.append(line)
            place = arguments.index("-d") + 1 if "-d" in arguments else 0
            arguments[place] = dataset
            succeed(command, *arguments, *QUICK[command])
    return commands


def _test_images(raw: Path) -> None:
    Path("imagesTs").mkdir()
    for file in (raw / "Dataset004_Tiny" / "imagesTr").glob("case_00*"):
        Path("imagesTs", file.name).symlink_to(file)


@pytest.mark.slow
def test_regions(nnunet_folders: Folders) -> None:
    make_dataset(nnunet_folders.raw, 4, regions=True)
    _test_images(nnunet_folders.raw)
    assert len(_run("region-based-training.md")) == 4
    summary = next(nnunet_folders.results.rglob("validation/summary.json"))
    assert set(json.loads(summary.read_text())["mean"]) == {"(1, 2)", "2"}
    assert Path("predictions", "case_00.nii.gz").is_file()


@pytest.mark.slow
def test_ignore_label(nnunet_folders: Folders) -> None:
    make_dataset(nnunet_folders.raw, 4, ignore=True)
    assert len(_run("ignore-label.md")) == 3
    summary = next(nnunet_folders.results.rglob("validation/summary.json"))
    assert set(json.loads(summary.read_text())["mean"]) == {"1", "2"}


PATIENTS = """case,patient,site
case_00,p1,Heidelberg
case_01,p1,Heidelberg
case_02,p2,Zurich
case_03,p3,Zurich
case_04,p4,Basel
case_05,p5,Basel
"""


@pytest.mark.slow
def test_splits(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_dataset(nnunet_folders.raw, 4))
    Path("patients.csv").write_text(PATIENTS)
    for block in blocks("manual-splits.md", "python", section="As a challenge prescribes"):
        exec(compile(block.text, "page", "exec"), {})
    assert len(_run("manual-splits.md")) == 2
    validation = next(nnunet_folders.results.rglob("validation"))
    assert {file.name for file in validation.glob("*.nii.gz")} == {"case_04.nii.gz", "case_05.nii.gz"}


def test_splits_keep_patients_and_sites_together(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("patients.csv").write_text(PATIENTS)
    rows = [line.split(",") for line in PATIENTS.split()[1:]]
    found = []
    for block in blocks("manual-splits.md", "python"):
        exec(compile(block.text, "page", "exec"), {})
        found.append(json.loads(Path("splits_final.json").read_text()))
        for split in found[-1]:
            assert sorted([*split["train"], *split["val"]]) == [row[0] for row in rows]
    patients, sites, official = found
    assert (len(patients), len(sites), len(official)) == (5, 3, 1)
    for splits, column in ((patients, 1), (sites, 2)):
        group_of = {row[0]: row[column] for row in rows}
        for split in splits:
            assert split["val"]
            assert not {group_of[case] for case in split["train"]} & {group_of[case] for case in split["val"]}


@pytest.mark.slow
def test_cascade(nnunet_folders: Folders) -> None:
    folder = cascade_training.write_dataset(nnunet_folders.preprocessed)
    cases = list(tiny_training.CASES)
    splits = [{"train": [case for case in cases if case != held_out], "val": [held_out]} for held_out in cases]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    (nnunet_folders.raw / tiny_training.NAME).mkdir()
    Path("imagesTs").mkdir()
    data, _, _, _ = nnUNetDatasetBlosc2(folder / "nnUNetPlans_3d").load_case(cases[0])
    sitk.WriteImage(sitk.GetImageFromArray(data[0]), "imagesTs/new_0000.nii.gz")
    page = DOCUMENTATION / "cascade.md"
    assert "--epochs 100" in page.read_text()
    commands = _run("cascade.md", "777")
    assert len(commands) == 11
    assert Path("predictions", "predicted_3d_lowres", "new.nii.gz").is_file()
    assert Path("predictions", "new.nii.gz").is_file() and Path("lowres", "new.nii.gz").is_file()
    other = nnunet_folders.results / tiny_training.NAME / "nnUNetTrainer_e100__nnUNetPlans__3d_cascade_fullres"
    own = load_checkpoint(other / "fold_0" / "checkpoint_final.pth")["nnunet_lite"]
    assert own["hyperparameters"]["previous_stage_trainer"] == "nnUNetTrainer"
