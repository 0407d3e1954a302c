"""The commands of the pages on choosing and sharing models, run in their order on models that were really trained."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Folders
from helpers import tiny_training
from helpers.commands import run, succeed

from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

DOCUMENTATION = Path(__file__).parents[2] / "documentation"
MODEL = "nnUNetTrainer__nnUNetPlans__{}"


@pytest.fixture
def results(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results folder of a tiny dataset with two folds; a training takes a second."""
    for name, value in (("num_epochs", 1), ("num_iterations_per_epoch", 1), ("num_val_iterations_per_epoch", 1)):
        monkeypatch.setattr(nnUNetTrainer, name, value)
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    folder = tiny_training.write_dataset(nnunet_folders.preprocessed)
    cases = list(tiny_training.CASES)
    splits = [{"train": cases[2:], "val": cases[:2]}, {"train": cases[:2], "val": cases[2:]}]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    return nnunet_folders.results / tiny_training.NAME


def commands(page: str) -> Iterator[list[str]]:
    for block in re.findall(r"^```bash\n(.*?)^```", (DOCUMENTATION / page).read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            yield re.sub(r"(?<= )4(?= )", "777", line).split()


def test_choosing_a_model(results: Path, nnunet_folders: Folders, tmp_path: Path) -> None:
    merged = results / MODEL.format("2d") / "crossval_results_folds_0_1"
    folders = {
        "REFERENCES": nnunet_folders.preprocessed / tiny_training.NAME / "gt_segmentations",
        "CROSSVAL_FOLDER": merged,
        "CROSSVAL_FOLDER/postprocessing.pkl": merged / "postprocessing.pkl",
        "OUTPUT_FOLDER": tmp_path / "merged",
        "OUTPUT_FOLDER_PP": tmp_path / "final",
    }
    for number, configuration in enumerate(("2d", "3d_fullres"), 1):
        folders[f"OUTPUT_FOLDER_MODEL_{number}"] = tmp_path / str(number)
        for fold in ("0", "1"):
            succeed("nnUNetv2_train", "777", configuration, fold, "-device", "cpu")
        shutil.copytree(results / MODEL.format(configuration) / "fold_0" / "validation", tmp_path / str(number))
        for name in ("plans.json", "dataset.json"):
            shutil.copy(results / MODEL.format(configuration) / name, tmp_path / str(number))
    number_of_commands = 0
    for command, *arguments in commands("choosing-a-model.md"):
        words = [str(folders.get(word, word)) for word in arguments]
        if command == "nnUNetv2_train":
            words += ["-device", "cpu", "--val"]
        elif command in ("nnUNetv2_find_best_configuration", "nnUNetv2_accumulate_crossval_results"):
            words += ["-f", "0", "1"]
        if command == "nnUNetv2_find_best_configuration":
            assert run(command, *words) == 2, "some folds have no probabilities"
            words += ["--compute_missing", "-device", "cpu"]
        elif command == "nnUNetv2_ensemble":
            for part, configuration in enumerate(("2d", "3d_fullres"), 1):
                for file in (results / MODEL.format(configuration) / "fold_0" / "validation").glob("case_*"):
                    shutil.copy(file, tmp_path / str(part))
        succeed(command, *words)
        number_of_commands += 1
    assert number_of_commands == 6
    assert (results / "inference_instructions.txt").is_file()
    assert {file.name for file in (tmp_path / "final").iterdir()} == {"case_0.nii.gz", "case_1.nii.gz"}


def test_sharing_models(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    succeed("nnUNetv2_train", "777", "2d", "0", "-device", "cpu")
    (results / MODEL.format("2d") / "dataset_fingerprint.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    ran = []
    for command, *arguments in commands("sharing-models.md"):
        if command == "nnUNetv2_export_model_to_zip":
            arguments += ["-f", "0"]
        else:
            monkeypatch.setenv("nnUNet_results", str(tmp_path / f"elsewhere{len(ran)}"))
        checksum = hashlib.sha256((tmp_path / "model.zip").read_bytes()).hexdigest() if ran else ""
        known = {"URL": (tmp_path / "model.zip").as_uri(), "CHECKSUM": checksum}
        succeed(command, *(known.get(word, word) for word in arguments))
        ran.append(command.removeprefix("nnUNetv2_"))
    assert ran == ["export_model_to_zip", "install_pretrained_model_from_zip", "download_pretrained_model_by_url"]
    for number in (1, 2):
        model = tmp_path / f"elsewhere{number}" / tiny_training.NAME / MODEL.format("2d")
        assert (model / "fold_0" / "checkpoint_final.pth").is_file()
