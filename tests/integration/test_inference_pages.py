"""The snippets and commands of the pages on prediction, run in their order with a tiny model."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import succeed
from helpers.models import write_model

from nnunet_lite.inference import predict_from_raw_data
from nnunet_lite.models.checkpoint import load_checkpoint

sitk = pytest.importorskip("SimpleITK")

DOCUMENTATION = Path(__file__).parents[2] / "documentation"
NAME = "nnUNetTrainer__nnUNetPlans__3d_fullres"
QUICK = ["-device", "cpu", "-npp", "0", "-nps", "0", "--disable_progress_bar", "--disable_tta"]


@pytest.fixture
def place(nnunet_folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the pages: images, and a model both in nnUNet_results and downloaded."""
    model = write_model(nnunet_folders.results / "Dataset004_Hippocampus" / NAME)
    for fold in (0, 1):
        file = model / f"fold_{fold}" / "checkpoint_final.pth"
        torch.save({**torch.load(file, weights_only=True), "optimizer_state": {}}, file)
        (file.parent / "checkpoint_best.pth").write_bytes(file.read_bytes())
    (tmp_path / "downloaded").mkdir()
    subprocess.run(["cp", "-r", str(model), str(tmp_path / "downloaded")], check=True)
    (tmp_path / "images").mkdir()
    random = np.random.default_rng(0)
    for number in (1, 2):
        image = sitk.GetImageFromArray(random.normal(size=(9, 10, 8)).astype(np.float32))
        sitk.WriteImage(image, str(tmp_path / "images" / f"patient_{number:02}_0000.nii.gz"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predict_from_raw_data, "num_processes_default", lambda: 0)
    return tmp_path


def run_page(page: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run every block of a page, the Python blocks in one module; returns how many there were."""
    text = (DOCUMENTATION / page).read_text()
    names: dict[str, Any] = {"__name__": "__main__"}
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block.replace('device="cuda"', 'device="cpu"'), page, "exec"), names)
            continue
        for line in block.splitlines():
            command, *arguments = shlex.split(os.path.expandvars(line))
            if command == "export":
                monkeypatch.setenv(*arguments[0].split("=")[:1], str(Path.cwd()))
            elif command.startswith("nnUNetv2_"):
                succeed(command, *arguments, *QUICK)
            else:
                assert command in ("mkdir", "cp")
                subprocess.run([command, *arguments], check=True)
    return len(blocks)


def labels_of(file: str) -> Any:
    return sitk.GetArrayFromImage(sitk.ReadImage(file))


def test_python_page(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_page("python-api.md", monkeypatch) == 13
    images = [sitk.ReadImage(file) for file in ("first_label_1.nii.gz", "predictions/first.nii.gz")]
    assert images[0].GetDirection() == images[1].GetDirection() and images[0].GetSize() == images[1].GetSize()
    printed = capsys.readouterr().out.splitlines()
    assert "(3, 9, 10, 8) float32" in printed and "(1, 9, 10, 8) [1.0, 1.0, 1.0]" in printed
    assert printed[-2] == "None" and "not_there" in printed[-1]
    written = {file.name for file in Path("predictions").glob("*.nii.gz")}
    wanted = {"patient_01", "patient_02", "first", "second", "case_0", "case_1"}
    assert written == {f"{name}.nii.gz" for name in wanted}
    for name in ("first", "case_0", "patient_01"):
        assert np.array_equal(labels_of(f"predictions/{name}.nii.gz"), labels_of("patient_01.nii.gz"))
    assert Path("predictions/first.npz").is_file() and Path("predictions/first.pkl").is_file()


def test_page_on_the_data(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_page("inference-data-format.md", monkeypatch) == 5
    assert "{'0': 'MR'}\n.nii.gz\n" in capsys.readouterr().out
    listed = re.findall(r"^\| (`.*?) \|", (DOCUMENTATION / "inference-data-format.md").read_text(), re.MULTILINE)
    names = {name.replace("CASE", "patient_01") for cell in listed for name in re.findall(r"`(.*?)`", cell)}
    assert names == {file.name for file in Path("predictions").iterdir() if "patient_02" not in file.name}
    assert Path("one/patient_01.nii.gz").is_file() and not list(Path().glob("*.json"))


def test_page_on_models_of_others(place: Path, nnunet_folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["rm", "-r", str(nnunet_folders.results / "Dataset004_Hippocampus")], check=True)
    assert run_page("pretrained-models.md", monkeypatch) == 5
    assert len(list(Path("predictions").glob("*.nii.gz"))) == 2
    assert (nnunet_folders.results / "Dataset004_Hippocampus" / NAME / "fold_1" / "checkpoint_final.pth").is_file()
    slim = load_checkpoint("slim/fold_0/checkpoint_final.pth")
    whole = load_checkpoint(f"downloaded/{NAME}/fold_0/checkpoint_final.pth")
    assert set(slim) == set(whole) - {"optimizer_state"}
    succeed("nnUNetv2_predict_from_modelfolder", "-m", "slim", "-i", "images", "-o", "again", "-f", "0", *QUICK)
