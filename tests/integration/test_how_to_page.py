"""The blocks of the how-to that stand in no other test, run section by section as they stand there."""

from __future__ import annotations

import json
import locale
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import Folders
from helpers import tiny_training
from helpers.commands import run, succeed
from helpers.datasets import make_dataset, write_image
from helpers.pages import blocks
from PIL import Image

from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

PAGE = "how-to.md"
ELSEWHERE = {  # sections and the tests that run them
    "Converting datasets": "dataset_conversion/test_how_to.py",
    "Look at the training cases": "dataset_conversion/test_how_to.py",
    "Plan and preprocess in your own way": "integration/test_documentation_examples.py",
}
HERE = (
    "Checking a dataset",
    "Use photographs, masks, DICOM",
    "Train shorter, or differently",
    "Evaluate without a dataset",
    "Use a model that upstream trained",
)


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.chdir(tmp_path)


def test_every_section_with_blocks_is_run() -> None:
    found = [section for section in (*ELSEWHERE, *HERE) for _ in blocks(PAGE, "bash", "python", section=section)]
    assert len(found) == len(blocks(PAGE, "bash", "python")), "a new section with blocks: run it here"
    for section, test in ELSEWHERE.items():
        assert section in (Path(__file__).parents[1] / test).read_text(encoding="utf-8")


def _lines(section: str) -> list[list[str]]:
    return [shlex.split(line) for block in blocks(PAGE, "bash", section=section) for line in block.lines]


def test_checking(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in ((7, "Heart"), (12, "Liver")):
        make_dataset(nnunet_folders.raw, number, name, n=2)
    folder = make_dataset(nnunet_folders.raw, 5, "Prostate", n=3)
    label = folder / "labelsTr" / "case_00.nii.gz"
    shifted = sitk.ReadImage(str(label))
    shifted.SetSpacing((2.0, 1.0, 1.0))
    sitk.WriteImage(shifted, str(label))
    for command, *arguments in _lines("Checking a dataset"):
        assert run(command, *arguments, "-np", "0") == 2
    assert "label-spacing" in Path("report.json").read_text()
    (snippet,) = blocks(PAGE, "python", section="Checking a dataset")
    monkeypatch.chdir(folder)
    exec(compile(snippet.text.replace("patient_11", "case_00"), PAGE, "exec"), {})
    succeed("nnUNetv2_check_dataset", "-d", "5", "-np", "0")


@pytest.fixture
def _locale() -> Iterator[None]:
    """ITK leaves the plain C locale behind when it has written DICOM: later tests would read files as ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.mark.usefixtures("_locale")
def test_masks_and_dicom() -> None:
    masks, dicom = blocks(PAGE, "python", section="Use photographs, masks, DICOM")
    for folder in ("labelsTr", "imagesTr", "folder_of_one_series"):
        Path(folder).mkdir()
    mask = np.zeros((6, 5), np.uint8)
    mask[2:4, 1:3] = 255
    Image.fromarray(mask).save("labelsTr/a.png")
    exec(compile(masks.text, PAGE, "exec"), {})
    assert np.array_equal(np.asarray(Image.open("labelsTr/a.png")), mask // 255)
    volume = np.arange(3 * 6 * 5, dtype=np.int16).reshape(3, 6, 5)
    for number, plane in enumerate(volume):
        image = sitk.GetImageFromArray(plane[None])
        image.SetOrigin((0.0, 0.0, 2.5 * number))
        tags = {"0020|000e": "1.2.3", "0008|0060": "CT", "0020|0032": f"0\\0\\{2.5 * number}", "0020|0013": str(number)}
        for tag, value in {**tags, "0020|0037": "1\\0\\0\\0\\1\\0"}.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(f"folder_of_one_series/{number}.dcm")
        writer.Execute(image)
    exec(compile(dicom.text, PAGE, "exec"), {})
    read = sitk.ReadImage("imagesTr/case_0000.nii.gz")
    assert np.array_equal(sitk.GetArrayFromImage(read), volume)
    assert read.GetSpacing()[2] == 2.5


def test_shorter_training_and_a_model_of_others(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    for length in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch"):
        monkeypatch.setattr(nnUNetTrainer, length, 1)
    folder = tiny_training.write_dataset(nnunet_folders.preprocessed)
    cases = list(tiny_training.CASES)
    (folder / "splits_final.json").write_text(json.dumps([{"train": cases[1:], "val": cases[:1]}]))
    for name in ("imagesTs", "images"):
        write_image(Path(name, "new_0000.nii.gz"), np.random.default_rng(0).normal(size=(9, 9, 9)), (1, 1, 1))
    alone = ["-npp", "0", "-nps", "0", "-device", "cpu"]
    train, predict = _lines("Train shorter, or differently")
    short = " ".join(train).replace("--epochs 100", "--epochs 2").replace(" 4 ", " 777 ").split()
    succeed(*short, "-device", "cpu")
    succeed(*" ".join(predict).replace("e100", "e2").replace("-d 4", "-d 777").split(), *alone)
    assert Path("predictions", "new.nii.gz").is_file()
    model = next(nnunet_folders.results.glob("*/nnUNetTrainer_e2__nnUNetPlans__3d_fullres"))
    (line,) = _lines("Use a model that upstream trained")
    words = [str(model) if word == "FOLDER" else word for word in line]
    succeed(*(word.replace("predictions", "others") for word in words), "-f", "0", *alone)
    assert Path("others", "new.nii.gz").is_file()


def test_evaluating_without_a_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.zeros((4, 6, 5), np.uint8)
    labels[1:3, 1:5, 1:4] = 1
    labels[2, 2:4, 2] = 2
    labels[0, 0, 0] = 3
    for folder in ("references", "predictions"):
        write_image(Path(folder, "a.nii.gz"), labels, (1, 1, 1))
    (line,) = _lines("Evaluate without a dataset")
    succeed(*line)
    assert Path("predictions", "summary.json").is_file()
    (snippet,) = blocks(PAGE, "python", section="Evaluate without a dataset")
    exec(compile(snippet.text, PAGE, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.splitlines()[-1] == "1.0"
