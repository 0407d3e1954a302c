"""The commands of the page on inference, run in their order on tiny models and images."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import Folders
from helpers.commands import run, succeed
from helpers.models import write_model

PAGE = (Path(__file__).parents[2] / "documentation" / "inference.md").read_text()


@pytest.fixture
def place(nnunet_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models of dataset 4, one of them also elsewhere, and a folder with images, which is the working folder."""
    results = nnunet_folders.results / "Dataset004_Tiny"
    for configuration in ("3d_fullres", "3d_lowres", "3d_cascade_fullres"):
        write_model(results / f"nnUNetTrainer__nnUNetPlans__{configuration}", configuration, folds=(0, 1, 2, 3, 4))
    shutil.copytree(results / "nnUNetTrainer__nnUNetPlans__3d_fullres", tmp_path / "model")
    (tmp_path / "imagesTs").mkdir()
    random = np.random.default_rng(0)
    for number in range(2):
        image = sitk.GetImageFromArray(random.normal(size=(8, 9, 8 + number)).astype(np.float32))
        sitk.WriteImage(image, str(tmp_path / "imagesTs" / f"case_{number}_0000.nii.gz"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nnunet_lite.utilities.device.set_num_threads", lambda _: None)
    return tmp_path


def commands() -> list[list[str]]:
    """The commands, without what the shell does: environment, running in the background, waiting."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line.removesuffix("&").strip() for block in blocks for line in block.splitlines() if line != "wait"]
    return [[word for word in shlex.split(line) if not word.startswith("CUDA_")] for line in lines]


def test_its_commands_do_what_it_says(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert len(commands()) >= 13
    for name, *arguments in commands():
        capfd.readouterr()
        succeed(name, *arguments, "-device", "auto" if "-npp" in arguments else "cpu")
        said = capfd.readouterr().out
        if "--continue_prediction" in arguments:
            assert "2 of 2 cases are predicted already: nothing to do" in said
        else:
            count = "1 case" if "-part_id" in arguments or "one/case_0.nii.gz" in arguments else "2 cases"
            assert re.search(rf"^Predicting {count}, at most \d+ tiles", said, re.MULTILINE)
            assert re.search(rf"^{count} predicted in [\d.]+ s: {place}/", said, re.MULTILINE)
    two = {"case_0.nii.gz", "case_1.nii.gz"}
    three = {"dataset.json", "plans.json", "predict_from_raw_data_args.json"}
    for folder in ("predictions", "one_fold", "shared", "bounded", "cascade_of_two"):
        assert {file.name for file in (place / folder).iterdir()} == two | three
    assert {file.name for file in (place / "one").iterdir()} == {"case_0.nii.gz"} | three
    assert {file.name for file in (place / "cascade").iterdir()} == two | three | {"predicted_3d_lowres"}
    table = PAGE.split("## What is written")[1].split("\n## ")[0]
    for file in (place / "with_probabilities").iterdir():
        assert f"`{re.sub('case_.', 'CASE', file.name)}`" in table


def test_the_lines_it_shows_are_those_of_the_code(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile(place / "imagesTs" / "case_0_0000.nii.gz", place / "imagesTs" / "case_2_0000.nii.gz")
    for number in (1, 2):
        (place / "imagesTs" / f"case_{number}_0000.nii.gz").write_bytes(b"no image")
    arguments = ["-d", "4", "-c", "3d_fullres", "-f", "0", "-i", "imagesTs", "-o", "out", "-device", "cpu"]
    assert run("nnUNetv2_predict", *arguments) == 2
    *at_once, first, case_1, case_2, last = capfd.readouterr().err.splitlines()
    cases = [case_1, case_2]
    assert [line.partition(" failed: ")[0] for line in at_once] == ["Warning: case_1", "Warning: case_2"]
    assert first == "Error: 2 of 3 cases failed:" and [case.split(": ")[0] for case in cases] == [
        "  case_1",
        "  case_2",
    ]
    assert first.replace("3", "5") in PAGE and last in PAGE
