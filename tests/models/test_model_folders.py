"""What somebody meant who named no model folder, fold or checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_lite.exceptions import CheckpointError, PathError
from nnunet_lite.models.model_folders import meant_checkpoint, meant_folder, meant_folds
from nnunet_lite.models.trained_model import TrainedModel

NAME = "nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "Dataset001_A" / NAME
    (folder / "fold_0" / "validation").mkdir(parents=True)
    for name in ("plans.json", "dataset.json", "fold_0/checkpoint_latest.pth"):
        (folder / name).write_text("{}")
    return folder


def test_model_folders_above_and_below(model: Path) -> None:
    meant = f"; did you mean -m {model}?"
    places = (model.parent, model.parents[1], model / "fold_0", model / "fold_0" / "checkpoint_latest.pth")
    for place in (*places, model / "fold_0" / "validation", model / "fold_9"):
        assert meant_folder(place) == meant
        with pytest.raises(PathError) as error:
            TrainedModel(place)
        assert str(error.value).endswith(meant)
    assert meant_folder(model.parents[2]) == "" == meant_folder(model.parent / "nothing" / "here" / "at" / "all")


def test_several_models(model: Path) -> None:
    other = model.with_name(NAME.replace("3d_fullres", "2d"))
    (other / "fold_all").mkdir(parents=True)
    for name in ("plans.json", "dataset.json"):
        (other / name).touch()
    assert meant_folder(model.parent) == f"; did you mean one of -m {other}, -m {model}?"


def test_a_zip_of_models(tmp_path: Path) -> None:
    (tmp_path / "model.zip").touch()
    with pytest.raises(PathError, match=r"install it with nnUNetv2_install_pretrained_model_from_zip .*model\.zip"):
        TrainedModel(tmp_path / "model.zip")


def test_results_that_do_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "nowhere"))
    with pytest.raises(PathError, match=r"nnUNet_results=.*nowhere: this folder does not exist"):
        TrainedModel.find("Dataset001_A", "nnUNetTrainer", "nnUNetPlans", "2d")


@pytest.mark.parametrize("folds", [0, None])
def test_a_training_that_has_not_ended(model: Path, folds: int | None) -> None:
    with pytest.raises(CheckpointError, match=r"has not ended: finish it with --c, .* -chk checkpoint_latest\.pth"):
        TrainedModel(model).load_members(folds)


def test_checkpoints(model: Path) -> None:
    assert meant_checkpoint([model / "fold_0"], "checkpoint_latest") == "; did you mean -chk checkpoint_latest.pth?"
    assert meant_checkpoint([model / "fold_0"], "checkpoint_best.pth") == ""
    assert meant_checkpoint([model / "fold_1"], "checkpoint_final.pth") == ""


@pytest.mark.parametrize(("text", "folds"), [("0,1", "0 1"), ("[0, 3]", "0 3"), ("fold_0", "0 1"), ("0;all", "0 all")])
def test_folds(text: str, folds: str) -> None:
    assert meant_folds(text) == f"; several folds are separated by blanks: -f {folds}"


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "fold", "best", "1" * 50 + "x"])
def test_other_words_are_no_folds(text: str) -> None:
    assert meant_folds(text) == ""
