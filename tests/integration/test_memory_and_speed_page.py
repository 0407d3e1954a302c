"""The commands of the page on memory and speed of prediction, run as they stand with a tiny model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import Folders
from helpers.commands import succeed
from helpers.models import write_model

PAGE = (Path(__file__).parents[2] / "documentation" / "memory-and-speed.md").read_text()
QUICK = ["-device", "cpu", "--disable_progress_bar"]
IN_THIS_PROCESS = ["-npp", "0", "-nps", "0"]


@pytest.fixture
def place(nnunet_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_model(nnunet_folders.results / "Dataset004_Hippocampus" / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in "ab":
        image = sitk.GetImageFromArray(random.normal(size=(9, 10, 11)).astype(np.float32))
        sitk.WriteImage(image, str(tmp_path / "images" / f"{name}_0000.nii.gz"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_runs_and_gives_what_the_page_says(place: Path) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) >= 8
    for line in commands:
        command, *arguments = shlex.split(line)
        here = [] if "-npp" in arguments else IN_THIS_PROCESS
        succeed(command, *arguments, *QUICK, *here, *([] if "-f" in arguments else ["-f", "0", "1"]))
    written = {file.name for file in (place / "predictions").iterdir()}
    assert {"a.nii.gz", "b.nii.gz", "a.npz", "b.npz", "a.pkl", "b.pkl"} <= written
    assert {file.name for file in (place / "predictions_part").glob("*.nii.gz")} == {"a.nii.gz"}
    with np.load(place / "predictions" / "a.npz") as archive:
        probabilities = archive["probabilities"]
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(place / "predictions" / "a.nii.gz")))
    assert np.array_equal(probabilities.argmax(0), labels)


def test_names_on_the_page_exist() -> None:
    flags = set(re.findall(r"`(--[a-z_-]+)", PAGE))
    assert {"--max-ram", "--not_on_device", "--save_probabilities", "--disable_tta", "--precision"} <= flags
    for script in re.findall(r"`?benchmarks/(\w+\.py)", PAGE):
        assert (Path(__file__).parents[2] / "benchmarks" / script).is_file()
