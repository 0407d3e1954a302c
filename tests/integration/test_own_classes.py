"""A user's own classes of every kind, ported by `sed s/nnunetv2/nnunet_lite/`, through the commands and in workers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers import own_classes
from helpers.commands import complaint, succeed
from helpers.datasets import make_dataset

from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2

SOURCE = Path(own_classes.__path__[0]) / "my_planning.py"


@pytest.fixture
def ported(nnunet_folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Dataset 41 and the user's file in a folder of nnUNet_extTrainer; the folder of preprocessed data."""
    make_dataset(nnunet_folders.raw, 41, "Own", n=3, shape=(16, 24, 20), vary=0)
    folder = tmp_path / "classes"
    folder.mkdir()
    name = f"my_planning_{tmp_path.name}".replace("-", "_")  # a module of its own for every test
    (folder / f"{name}.py").write_text(SOURCE.read_text().replace("nnunetv2", "nnunet_lite"))
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    return nnunet_folders.preprocessed / "Dataset041_Own"


def test_all_kinds_through_plan_and_preprocess_with_workers(ported: Path) -> None:
    succeed(
        "nnUNetv2_plan_and_preprocess", "-d", "41", "-fpe", "MyExtractor", "-pl", "MyPlanner", "-npfp", "1",
        "-preprocessor_name", "MyPreprocessor", "-c", "3d_fullres", "-np", "2", "--no_pbar",
    )  # fmt: skip
    assert json.loads((ported / "dataset_fingerprint.json").read_text())["mine"] == 1
    plans = json.loads((ported / "myPlans.json").read_text())
    assert plans["experiment_planner_used"] == "MyPlanner"
    assert (plans["image_reader_writer"], plans["label_manager"]) == ("MyReader", "MyLabelManager")
    fullres = plans["configurations"]["3d_fullres"]
    assert (fullres["spacing"], fullres["preprocessor_name"], fullres["batch_size"]) == ([2.0] * 3, "MyPreprocessor", 3)
    assert fullres["architecture"]["arch_kwargs"]["features_per_stage"][0] == 8
    assert fullres["patch_size"] == [4, 12, 10]
    data, seg, *_ = nnUNetDatasetBlosc2(str(ported / "myPlans_3d_fullres")).load_case("case_01")
    assert data.shape == (1, 8, 12, 10)
    assert 111_000 < float(data[:].min()) < float(data[:].max()) < 111_300  # 100000, 1000 and 10000, one from each
    assert set(seg[:].ravel().tolist()) <= {-1, 0, 1}


def test_a_preset_of_ones_own_and_a_dry_run(ported: Path, capfd: pytest.CaptureFixture[str]) -> None:
    succeed("nnUNetv2_extract_fingerprint", "-d", "41", "-np", "0", "--no_pbar")
    before = sorted(ported.iterdir())
    succeed("nnUNetv2_plan_experiment", "-d", "41", "-pl", "MyPlanner", "--dry-run")
    assert sorted(ported.iterdir()) == before
    text = capfd.readouterr().out
    assert "MyReader, decided by MyPlanner" in text and "2 x 2 x 2 mm: decided by MyPlanner" in text
    succeed("nnUNetv2_plan_experiment", "-d", "41", "-pl", "MyLargePlanner")
    assert json.loads((ported / "myLargePlans.json").read_text())["plans_name"] == "myLargePlans"


def test_an_own_class_that_is_not_found_names_those_that_are(ported: Path, capfd: pytest.CaptureFixture[str]) -> None:
    succeed("nnUNetv2_extract_fingerprint", "-d", "41", "-np", "0", "--no_pbar")
    for flag, name in (("-pl", "MyPlaner"), ("-preprocessor_name", "MyPreprocesor")):
        line = complaint(capfd, "nnUNetv2_plan_experiment", "-d", "41", flag, name)
        assert name in line and name[:6] in re.split("there are:|the closest are:", line)[1]


def test_an_own_class_that_raises_is_one_line(ported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "classes" / "raising.py").write_text("import nothing_of_that_name\n\nclass Raising: ...\n")
    succeed("nnUNetv2_extract_fingerprint", "-d", "41", "-np", "0", "--no_pbar")
    line = complaint(capfd, "nnUNetv2_plan_experiment", "-d", "41", "-pl", "Raising")
    assert "raising.py cannot be imported: ModuleNotFoundError" in line
