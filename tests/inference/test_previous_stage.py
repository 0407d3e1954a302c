"""The first stage of a cascade at prediction."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import complaint, run, succeed
from helpers.models import write_model

from nnunet_lite.cli import inference as commands
from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.inference.previous_stage import find_previous_stage, previous_stage_output

CASCADE, LOWRES = "3d_cascade_fullres", "3d_lowres"


def _model(folder: Path, name: str = f"nnUNetTrainer__nnUNetPlans__{CASCADE}") -> Path:
    return write_model(folder / name, CASCADE, folds=(0,))


def test_beside_the_cascade(tmp_path: Path) -> None:
    cascade = _model(tmp_path)
    with pytest.raises(ArgumentError, match=r"there is no .*nnUNetTrainer__nnUNetPlans__3d_lowres; predict the same"):
        find_previous_stage(cascade, LOWRES, [0], "checkpoint_final.pth")
    first = write_model(tmp_path / f"nnUNetTrainer__nnUNetPlans__{LOWRES}", LOWRES)
    assert find_previous_stage(cascade, LOWRES, [0], "checkpoint_final.pth") == first
    assert find_previous_stage(cascade, LOWRES, None, "checkpoint_final.pth") == first


def test_of_the_trainer_it_learned_from(tmp_path: Path) -> None:
    cascade = _model(tmp_path)
    for trainer in ("nnUNetTrainer", "nnUNetTrainer_20epochs"):
        write_model(tmp_path / f"{trainer}__nnUNetPlans__{LOWRES}", LOWRES)
    file = cascade / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["nnunet_lite"] = {"hyperparameters": {"previous_stage_trainer": "nnUNetTrainer_20epochs"}}
    torch.save(checkpoint, file)
    found = find_previous_stage(cascade, LOWRES, [0], "checkpoint_final.pth")
    assert found.name == f"nnUNetTrainer_20epochs__nnUNetPlans__{LOWRES}"


def test_a_folder_of_another_name(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"does not lie beside its first; .* -prev_stage_predictions"):
        find_previous_stage(_model(tmp_path, "my_cascade"), LOWRES, [0], "checkpoint_final.pth")


@pytest.mark.parametrize(
    ("output", "expected"), [("out", "out/predicted_3d_lowres"), ("a/b.nii.gz", "a/predicted_3d_lowres")]
)
def test_where_its_predictions_go(output: str, expected: str) -> None:
    assert previous_stage_output(output, ".nii.gz", LOWRES) == Path(expected)


@pytest.fixture
def cascade(tmp_path: Path, nnunet_folders: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both stages in the results folder."""
    results = tmp_path / "nnUNet_results" / "Dataset001_X"
    write_model(results / f"nnUNetTrainer__nnUNetPlans__{LOWRES}", LOWRES, folds=(0,))
    monkeypatch.setattr("nnunet_lite.utilities.device.set_num_threads", lambda _: None)
    return _model(results)


def _predict(images: Path, out: Path, *more: object) -> tuple[object, ...]:
    flags = ("-i", images, "-o", out, "-d", 1, "-c", CASCADE, "-f", 0, "-device", "cpu", "--disable_tta", *more)
    return ("nnUNetv2_predict", *flags)


def _written(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in sorted(folder.glob("*.nii.gz"))}


def test_parts_predict_their_own_first_stage(cascade: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    succeed(*_predict(images, out, "-num_parts", 2, "-part_id", 1))
    first = _written(out / f"predicted_{LOWRES}")
    assert list(_written(out)) == list(first) == ["b.nii.gz"]
    succeed(*_predict(images, out, "-num_parts", 2, "-part_id", 0))
    assert list(_written(out)) == list(_written(out / f"predicted_{LOWRES}")) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    assert _written(out / f"predicted_{LOWRES}")["b.nii.gz"] == first["b.nii.gz"]


def test_both_stages_are_continued(
    cascade: Path, images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    succeed(*_predict(images, out))
    before = _written(out / f"predicted_{LOWRES}")
    for file in (out / "a.nii.gz", out / "c.nii.gz", out / f"predicted_{LOWRES}" / "c.nii.gz"):
        file.unlink()
    capfd.readouterr()
    succeed(*_predict(images, out, "--continue_prediction"))
    said = capfd.readouterr().out
    assert "2 of 3 cases are predicted already" in said and "1 of 3 cases are predicted already" in said
    after = _written(out / f"predicted_{LOWRES}")
    assert list(_written(out)) == list(after) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    assert {name: time for name, time in after.items() if time == before[name]}.keys() == {"a.nii.gz", "b.nii.gz"}


def test_a_case_that_fails_in_the_first_stage_does_not_stop_the_others(
    cascade: Path, images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []  # the network of the first stage is gone when the second needs its memory
    alive: list[list[bool]] = []
    make, predict = commands._predictor, commands._predict_files

    def watched(*arguments: Any) -> Any:
        made.append(weakref.ref(predictor := make(*arguments)))
        return predictor

    def looked_at(*arguments: Any) -> None:
        alive.append([predictor() is not None for predictor in made])
        predict(*arguments)

    monkeypatch.setattr(commands, "_predictor", watched)
    monkeypatch.setattr(commands, "_predict_files", looked_at)
    out = tmp_path / "out"
    (images / "b_0000.nii.gz").write_bytes(b"no image")
    (out / f"predicted_{LOWRES}").mkdir(parents=True)
    (out / f"predicted_{LOWRES}" / "b.nii.gz").write_bytes(b"of an earlier run, for another image")
    assert run(*_predict(images, out)) == 2
    errors = capfd.readouterr().err
    assert "Error: 1 of 3 cases failed: b: " in errors and "Traceback" not in errors
    assert list(_written(out)) == ["a.nii.gz", "c.nii.gz"]
    assert alive == [[True, True], [True, False]]


def test_predictions_that_were_given_must_be_complete(
    cascade: Path, images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "previous").mkdir()
    line = complaint(capfd, *_predict(images, tmp_path / "out", "-prev_stage_predictions", tmp_path / "previous"))
    assert "a: the previous stage's segmentation" in line and "does not exist" in line
    assert not (tmp_path / "out").exists()


def test_one_file_in_and_one_out(cascade: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "mine.nii.gz"
    succeed(*_predict(images / "a_0000.nii.gz", out))
    assert list(_written(out.parent)) == ["mine.nii.gz"]
    assert list(_written(out.parent / f"predicted_{LOWRES}")) == ["a.nii.gz"]
    again = tmp_path / "again" / "other.nii.gz"
    given = ("-prev_stage_predictions", out.parent / f"predicted_{LOWRES}")
    succeed(*_predict(images / "a_0000.nii.gz", again, *given))
    assert list(_written(again.parent)) == ["other.nii.gz"]
