"""Folders of segmentations: pairing, classes from documents or by hand, summary.json as upstream writes it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK

from nnunet_lite.cli.evaluation import evaluate_folder_entry, evaluate_simple_entry
from nnunet_lite.evaluation.evaluate_predictions import (
    compute_metrics_on_folder,
    compute_metrics_on_folder2,
    compute_metrics_on_folder_simple,
)
from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO

REFERENCE = {"a": [[0, 1, 1, 2], [0, 0, 1, 3]], "b": [[0, 0, 0, 1], [0, 0, 0, 0]]}
PREDICTION = {"a": [[0, 1, 2, 2], [1, 0, 1, 0]], "b": [[0, 0, 0, 0], [0, 0, 1, 0]]}
PLANS = {"plans_name": "nnUNetPlans", "configurations": {}, "image_reader_writer": "SimpleITKIO"}


def _write(file, rows, spacing=(1.0, 1.0, 1.0)):
    image = SimpleITK.GetImageFromArray(np.array([rows], np.uint8))
    image.SetSpacing(spacing)
    SimpleITK.WriteImage(image, str(file))


@pytest.fixture
def folders(tmp_path):
    """Folders `ref` and `pred` with cases a and b."""
    for folder, cases in (("ref", REFERENCE), ("pred", PREDICTION)):
        (tmp_path / folder).mkdir()
        for name, rows in cases.items():
            _write(tmp_path / folder / f"{name}.nii.gz", rows)
    return tmp_path / "ref", tmp_path / "pred"


def _documents(folder, labels, **more):
    (folder / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz", **more})
    )
    (folder / "plans.json").write_text(json.dumps(PLANS))
    return folder / "dataset.json", folder / "plans.json"


@pytest.mark.parametrize("processes", [0, 2])
def test_all_cases_in_order_and_nothing_written_unasked(folders, processes):
    results = compute_metrics_on_folder(*folders, None, SimpleITKIO(), ".nii.gz", [1, 2], num_processes=processes)
    assert [case["prediction_file"] for case in results["metric_per_case"]] == [
        str(folders[1] / "a.nii.gz"),
        str(folders[1] / "b.nii.gz"),
    ]
    assert results["mean"][1]["Dice"] == 1 / 3
    assert not (folders[1] / "summary.json").exists()


def test_labels_of_a_dataset(folders, tmp_path):
    documents = _documents(tmp_path, {"background": 0, "x": 1, "y": 2, "z": 3})
    compute_metrics_on_folder2(*folders, *documents, num_processes=0)
    written = json.loads((folders[1] / "summary.json").read_text())
    assert list(written["mean"]) == ["1", "2", "3"]
    assert written["metric_per_case"][0]["metrics"]["1"]["Dice"] == 0.6666666666666666
    assert set(written["metric_per_case"][0]) == {"metrics", "prediction_file", "reference_file"}


def test_regions_and_ignore_label_of_a_dataset(folders, tmp_path):
    labels = {"background": 0, "whole": [1, 2], "part": 2, "ignore": 3}
    documents = _documents(tmp_path, labels, regions_class_order=[1, 2])
    compute_metrics_on_folder2(*folders, *documents, tmp_path / "out.json", num_processes=0)
    written = json.loads((tmp_path / "out.json").read_text())
    assert list(written["mean"]) == ["(1, 2)", "2"]
    assert written["foreground_mean"]["Dice"] == pytest.approx(0.5555555555555556, rel=1e-15)


def test_simple_finds_the_ending_beside_other_files(folders):
    (folders[0] / "0_notes.txt").write_text("not an image")
    compute_metrics_on_folder_simple(*folders, [0, 1, 2], num_processes=0)
    assert json.loads((folders[1] / "summary.json").read_text())["foreground_mean"]["Dice"] == 0.5


def test_missing_predictions_matter_unless_chill(folders):
    (folders[1] / "b.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"1 reference in .*ref without a prediction in .*pred: b.nii.gz"):
        compute_metrics_on_folder_simple(*folders, [1], num_processes=0)
    results = compute_metrics_on_folder_simple(*folders, [1], num_processes=0, chill=True)
    assert len(results["metric_per_case"]) == 1


def test_only_the_cases_asked_for(folders):
    arguments = (*folders, None, SimpleITKIO(), ".nii.gz", [1])
    results = compute_metrics_on_folder(*arguments, num_processes=0, chill=False, cases=["b"])
    assert [case["prediction_file"] for case in results["metric_per_case"]] == [str(folders[1] / "b.nii.gz")]
    with pytest.raises(DatasetError, match="c.nii.gz"):
        compute_metrics_on_folder(*arguments, num_processes=0, chill=False, cases=["b", "c"])


def test_predictions_without_reference_are_named(folders):
    (folders[0] / "b.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"1 prediction in .*pred without a reference in .*ref: b.nii.gz"):
        compute_metrics_on_folder_simple(*folders, [1], num_processes=0)


@pytest.mark.parametrize("which", [0, 1])
def test_empty_and_absent_folders(folders, tmp_path, which):
    (tmp_path / "empty").mkdir()
    pair = list(folders)
    pair[which] = tmp_path / "empty"
    with pytest.raises(DatasetError, match="No segmentations in .*empty"):
        compute_metrics_on_folder_simple(*pair, [1], num_processes=0)
    pair[which] = tmp_path / "nowhere"
    with pytest.raises(DatasetError, match="There is no folder .*nowhere"):
        compute_metrics_on_folder_simple(*pair, [1], num_processes=0)


def test_different_shapes_and_broken_files_are_all_listed(folders):
    _write(folders[1] / "a.nii.gz", [[0, 1, 1]])
    (folders[1] / "b.nii.gz").write_bytes(b"no image")
    with pytest.raises(DatasetError) as caught:
        compute_metrics_on_folder_simple(*folders, [1], num_processes=0)
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 of 2 cases failed:"
    assert "(1, 1, 3)" in lines[1] and "(1, 2, 4)" in lines[1] and "a.nii.gz" in lines[1]
    assert "b.nii.gz" in lines[2]
    assert not (folders[1] / "summary.json").exists()


def test_another_spacing_is_a_warning(folders, caplog):
    _write(folders[1] / "a.nii.gz", PREDICTION["a"], spacing=(1.0, 1.0, 2.0))
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        compute_metrics_on_folder_simple(*folders, [1], num_processes=0)
    assert "1 of 2 predictions do not lie where their references do" in caplog.text
    assert "a.nii.gz has spacing (2, 1, 1), its reference (1, 1, 1)" in caplog.text


def test_a_class_that_never_occurs_is_a_warning(folders, caplog):
    with caplog.at_level(logging.WARNING, "nnunet_lite"):
        results = compute_metrics_on_folder_simple(*folders, [1, 4], num_processes=0)
    assert "Class 4 occurs in no reference and no prediction" in caplog.text
    assert np.isnan(results["foreground_mean"]["Dice"])


def test_output_must_be_json_and_classes_must_be_given(folders):
    with pytest.raises(ArgumentError, match="ends in .json"):
        compute_metrics_on_folder(*folders, "x.txt", SimpleITKIO(), ".nii.gz", [1])
    with pytest.raises(ArgumentError, match="name at least one"):
        compute_metrics_on_folder(*folders, None, SimpleITKIO(), ".nii.gz", [])


def test_commands(folders, tmp_path, capsys):
    documents = _documents(tmp_path, {"background": 0, "x": 1, "y": 2, "z": 3})
    pair = [str(folder) for folder in folders]
    assert evaluate_folder_entry([*pair, "-djfile", str(documents[0]), "-pfile", str(documents[1]), "-np", "0"]) == 0
    assert evaluate_simple_entry([*pair, "-l", "1", "2", "-il", "3", "-o", str(tmp_path / "s.json"), "-np", "0"]) == 0
    first, second = (json.loads(file.read_text()) for file in (folders[1] / "summary.json", tmp_path / "s.json"))
    assert first["metric_per_case"][0]["metrics"]["1"]["TN"] == second["metric_per_case"][0]["metrics"]["1"]["TN"] + 1
    assert evaluate_folder_entry([*pair, "-djfile", str(tmp_path / "none.json"), "-pfile", str(documents[1])]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == f"Error: There is no file {tmp_path}/none.json (-djfile)"
    assert evaluate_folder_entry([*pair, "-djfile", str(documents[1]), "-pfile", str(documents[0])]) == 2
    swapped = f"Error: -djfile {documents[1]} has no 'labels'; are -djfile and -pfile swapped?"
    assert capsys.readouterr().err.strip().splitlines()[-1] == swapped
    (tmp_path / "broken.json").write_text("{")
    assert evaluate_folder_entry([*pair, "-djfile", str(documents[0]), "-pfile", str(tmp_path / "broken.json")]) == 2
    assert f"-pfile {tmp_path}/broken.json is no valid JSON" in capsys.readouterr().err


def test_evaluation_imports_no_torch(folders):
    code = (
        "import sys; from nnunet_lite.cli.evaluation import evaluate_simple_entry as e; "
        f"assert e([{str(folders[0])!r}, {str(folders[1])!r}, '-l', '1', '-np', '0']) == 0; "
        "assert 'torch' not in sys.modules and 'skimage' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["Dataset004_Hippocampus", "Dataset900_Torso"])
def test_same_summary_as_upstream(goldens, tmp_path, name):
    folder = goldens / name / "eval"
    compute_metrics_on_folder2(
        folder / "gt",
        folder / "preds",
        goldens / name / "dataset.json",
        goldens / name / "nnUNetPlans.json",
        tmp_path / "summary.json",
        num_processes=2,
    )
    ours, theirs = (json.loads((place / "summary.json").read_text()) for place in (tmp_path, folder))
    for case in (*ours["metric_per_case"], *theirs["metric_per_case"]):
        for key in ("prediction_file", "reference_file"):
            case[key] = case[key].rsplit("/", 1)[-1]
    _assert_equal(ours, theirs)


def _assert_equal(ours, theirs, where=""):
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert list(ours) == list(theirs), where
        for key in ours:
            _assert_equal(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), where
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            _assert_equal(*pair, f"{where}/{index}")
    elif isinstance(ours, float):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12, err_msg=where)
    else:
        assert ours == theirs, where
