"""Every flag of the two prediction commands arrives at the predictor (spec 03, section 9)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import write_model

from nnunet_lite.cli.inference import predict_entry, predict_from_modelfolder_entry
from nnunet_lite.inference import predict_from_raw_data

Calls = dict[str, Any]
MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What a command did with its predictor: attributes, folds, checkpoint, arguments of the prediction."""
    seen: Calls = {}

    class Recorder(predict_from_raw_data.nnUNetPredictor):
        def initialize_from_trained_model_folder(self, *args: Any, **kwargs: Any) -> None:
            super().initialize_from_trained_model_folder(*args, **kwargs)
            seen.update(vars(self), initialized=args)

        def predict_from_files(self, *args: Any, **kwargs: Any) -> None:
            seen.update(predicted=args, **kwargs)

    monkeypatch.setattr(predict_from_raw_data, "nnUNetPredictor", Recorder)
    for variable in ("nnUNet_npp", "nnUNet_nps", "nnUNet_def_n_proc"):
        monkeypatch.delenv(variable, raising=False)
    return seen


@pytest.fixture
def results(nnunet_folders: Any) -> Path:
    folder = nnunet_folders.results / "Dataset001_X"
    write_model(folder / MODEL)
    write_model(folder / "Mine__MyPlans__3d_lowres", "3d_lowres", ("all",))
    return Path(folder)


def run(entry: Callable[..., Any], *arguments: object) -> None:
    assert entry([str(argument) for argument in (*arguments, "-device", "cpu")]) == 0


def test_defaults(calls: Calls, results: Path) -> None:
    for fold in (2, 3, 4):
        write_model(results / MODEL, folds=(0, 1, fold))
    run(predict_entry, "-i", "in", "-o", "out", "-d", "1", "-c", "3d_fullres")
    assert calls["predicted"] == ("in", "out", False, True, 3, 3, None, 1, 0)
    folder, folds, checkpoint = calls["initialized"]
    assert Path(folder) == results / MODEL and checkpoint == "checkpoint_final.pth"
    assert [str(fold) for fold in folds] == ["0", "1", "2", "3", "4"]
    assert (calls["tile_step_size"], calls["use_gaussian"], calls["use_mirroring"]) == (0.5, True, True)
    assert (calls["device"], calls["verbose"], calls["verbose_preprocessing"]) == (torch.device("cpu"), False, False)
    assert calls["allow_tqdm"] is True


def test_everything_else(calls: Calls, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_npp", "7")
    monkeypatch.setenv("nnUNet_nps", "")
    fold = results / "Mine__MyPlans__3d_lowres" / "fold_all"
    (fold / "checkpoint_final.pth").rename(fold / "checkpoint_best.pth")
    model = ("-d", "Dataset001_X", "-p", "MyPlans", "-tr", "Mine", "-c", "3d_lowres", "-f", "all")
    numbers = ("-step_size", 0.25, "-chk", "checkpoint_best.pth", "-num_parts", 3, "-part_id", 2)
    switches = ("--disable_tta", "--verbose", "--save_probabilities", "--continue_prediction")
    others = ("-prev_stage_predictions", "previous", "--disable_progress_bar", "--not_on_device")
    run(predict_entry, "-i", "in", "-o", "out", *model, *numbers, *switches, *others)
    assert calls["predicted"] == ("in", "out", True, False, 7, 3, "previous", 3, 2)
    assert calls["initialized"][1:] == (["all"], "checkpoint_best.pth")
    assert (calls["tile_step_size"], calls["use_mirroring"], calls["allow_tqdm"]) == (0.25, False, False)
    assert (calls["verbose"], calls["verbose_preprocessing"]) == (True, True)
    run(predict_entry, "-i", "in", "-o", "out", *model, "-chk", "checkpoint_best.pth", "-npp", 0, "-nps", 0)
    assert calls["predicted"][4:6] == (0, 0)


@pytest.mark.parametrize("alias", ["--continue_prediction", "--c", "--cont"])
def test_a_model_folder_of_any_name(calls: Calls, tmp_path: Path, alias: str) -> None:
    model = write_model(tmp_path / "somewhere")
    run(predict_from_modelfolder_entry, "-i", "in", "-o", "out", "-m", model, "-f", 1, 0, alias)
    assert calls["predicted"] == ("in", "out", False, False, 3, 3, None, 1, 0)
    assert [str(fold) for fold in calls["initialized"][1]] == ["1", "0"] and len(calls["list_of_parameters"]) == 2
    run(predict_from_modelfolder_entry, "-i", "in", "-o", "out", "-m", model, "-f", 0, "-num_parts", 3, "-part_id", 2)
    assert calls["predicted"][-2:] == (3, 2)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("-num_parts", "2", "-part_id", "2"), "part"),
        (("-part_id", "-1"), "part"),
        (("-f", "first"), "'all'"),
        (("-chk", "checkpoint_latest.pth"), "checkpoint_final.pth"),
        (("-step_size", "0"), "step"),
        (("-tr", "Mine"), "Mine"),
    ],
)
def test_what_cannot_be(results: Path, tmp_path: Path, capfd: Any, flags: tuple[str, ...], words: str) -> None:
    (tmp_path / "in").mkdir()
    arguments = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-d", "1", "-c", "3d_fullres", "-f", "0"]
    assert predict_entry([*arguments, "-device", "cpu", *flags]) == 2
    message = capfd.readouterr().err.strip().splitlines()[-1]
    assert words in message
    assert not (tmp_path / "out").exists()
