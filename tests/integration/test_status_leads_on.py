"""Whoever does what nnUNetv2_status says next, word by word, arrives at a model that is chosen and ready to predict."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Folders
from helpers import tiny_training
from helpers.commands import run, succeed
from helpers.datasets import make_dataset

MORE = {
    "nnUNetv2_plan_and_preprocess": ["-npfp", "0", "-np", "0", "--no_pbar"],
    "nnUNetv2_preprocess": ["-np", "0", "--no_pbar"],
    "nnUNetv2_train": ["-device", "cpu", "--precision", "float32"],
    "nnUNetv2_find_best_configuration": ["-np", "0", "-device", "cpu"],
    "nnUNetv2_predict": ["-device", "cpu", "-npp", "0", "-nps", "0"],
}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of one iteration, in this process."""
    tiny_training.shorten(monkeypatch)


@pytest.fixture
def follow(capfd: pytest.CaptureFixture[str]) -> Callable[[str], list[str]]:
    """Do what status says until it says `finished`; returns the commands."""

    def follow(dataset: str) -> list[str]:
        ran: list[str] = []
        while True:
            capfd.readouterr()
            succeed("nnUNetv2_status", "-d", dataset)
            said = capfd.readouterr().out.splitlines()[-1].removeprefix("  next: ")
            if said.startswith("finished"):
                return [*ran, said]
            assert said not in ran[-1:] and len(ran) < 20, f"it does not lead on: {ran}, {said}"
            command, *arguments = shlex.split(said)
            succeed(command, *arguments, *MORE[command])
            ran.append(said)

    return follow


def small_networks_and_two_folds(preprocessed: Path, cases: int) -> None:
    """What a user edits after planning, here to be quick."""
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    for configuration in plans["configurations"].values():
        configuration["batch_size"] = 2
        architecture = configuration["architecture"]["arch_kwargs"]
        architecture["features_per_stage"] = [4] * architecture["n_stages"]
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    names = [f"case_{number:02d}" for number in range(cases)]
    halves = names[::2], names[1::2]
    splits = [{"train": list(halves[1 - fold]), "val": list(halves[fold])} for fold in (0, 1)]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))


def test_from_raw_images(
    nnunet_folders: Folders, follow: Callable[[str], list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    name = make_dataset(nnunet_folders.raw, 4, n=4, regions=True, ignore=True).name
    preprocessed, results = nnunet_folders.preprocessed / name, nnunet_folders.results / name
    succeed("nnUNetv2_status")
    first = capfd.readouterr().out.splitlines()[-1].removeprefix("  next: ")
    assert first == "nnUNetv2_plan_and_preprocess -d 4 --verify_dataset_integrity"
    command, *arguments = shlex.split(first)
    succeed(command, *arguments, *MORE[command])
    small_networks_and_two_folds(preprocessed, 4)
    for file in (preprocessed / "nnUNetPlans_3d_fullres").glob("case_03*"):
        file.unlink()  # as if preprocessing had been stopped
    finished = f"finished; predict with the commands in {results}/inference_instructions.txt"
    assert follow("4") == [
        "nnUNetv2_preprocess -d 4 -plans_name nnUNetPlans -c 3d_fullres",
        "nnUNetv2_train 4 3d_fullres 0 --npz",
        f"nnUNetv2_train {name} 3d_fullres 1 --npz",
        "nnUNetv2_find_best_configuration 4 -c 3d_fullres -f 0 1",
        finished,
    ]
    assert "nnUNetv2_apply_postprocessing" in (results / "inference_instructions.txt").read_text()
    _the_instructions_of_a_shared_model(nnunet_folders, name)


def _the_instructions_of_a_shared_model(folders: Folders, name: str) -> None:
    """They work on another machine as they stand, but for the names of input and output."""
    elsewhere = folders.results.with_name("elsewhere")
    zipped = elsewhere.with_suffix(".zip")
    succeed("nnUNetv2_export_model_to_zip", "-d", 4, "-o", zipped, "-c", "3d_fullres", "-f", 0, 1)
    kept, images = folders.results.rename(folders.results.with_name("of_the_sender")), folders.raw / name / "imagesTr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_results", str(elsewhere))
        succeed("nnUNetv2_install_pretrained_model_from_zip", zipped)
        text = (elsewhere / name / "inference_instructions.txt").read_text()
        lines = [line for line in text.splitlines() if line.startswith("nnUNetv2_")]
        assert [line.split()[0] for line in lines] == ["nnUNetv2_predict", "nnUNetv2_apply_postprocessing"]
        places = {"INPUT_FOLDER": images, "OUTPUT_FOLDER": elsewhere / "out", "OUTPUT_FOLDER_PP": elsewhere / "pp"}
        for line in lines:
            command, *arguments = (places.get(word, word) for word in shlex.split(line))
            succeed(command, *arguments, *MORE.get(str(command), ()))
    assert len(list((elsewhere / "pp").glob("case_*"))) == 4
    kept.rename(folders.results)


@pytest.mark.slow
def test_from_a_model_that_was_begun_otherwise(nnunet_folders: Folders, follow: Callable[[str], list[str]]) -> None:
    """Two configurations of a trainer with a name of its own; without probabilities, interrupted, not validated."""
    folder = tiny_training.write_dataset(nnunet_folders.preprocessed)
    cases = list(tiny_training.CASES)
    splits = [{"train": cases[2:], "val": cases[:2]}, {"train": cases[:2], "val": cases[2:]}]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    more = ["--seed", "3", *MORE["nnUNetv2_train"]]
    for configuration in ("2d", "3d_fullres"):
        succeed("nnUNetv2_train", "777", configuration, "0", *more)
    results = nnunet_folders.results / tiny_training.NAME
    interrupted = results / "nnUNetTrainer_s3__nnUNetPlans__2d" / "fold_0"
    (interrupted / "checkpoint_final.pth").rename(interrupted / "checkpoint_latest.pth")
    (interrupted / "validation" / "summary.json").unlink()
    for file in interrupted.iterdir():
        os.utime(file, (time.time() - 99999,) * 2)
    train = f"nnUNetv2_train {tiny_training.NAME} {{}} --seed 3 {{}}"
    compare = "nnUNetv2_find_best_configuration 777 -c 2d 3d_fullres -tr nnUNetTrainer_s3 -f 0 1 --compute_missing"
    finished = f"finished; predict with the commands in {results}/inference_instructions.txt"
    assert follow("777") == [
        train.format("2d 0", "--c --npz"),
        train.format("2d 1", "--npz"),
        train.format("3d_fullres 1", "--npz"),
        compare,
        finished,
    ]
    assert run("nnUNetv2_status") == 0
    assert len(list((results / "ensembles").iterdir())) == 1
