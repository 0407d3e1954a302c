"""Additional metrics on folders: their key in summary.json, who reads it, and the table beside it."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import SimpleITK

from nnunet_lite.cli.evaluation import evaluate_folder_entry, evaluate_simple_entry
from nnunet_lite.evaluation.evaluate_predictions import compute_metrics_on_folder, compute_metrics_on_folder_simple
from nnunet_lite.evaluation.metrics_table import save_metrics_table
from nnunet_lite.evaluation.summary import load_summary_json
from nnunet_lite.exceptions import DatasetError
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunet_lite.utilities import files

LABELS = {"background": 0, "whole, all of it": [1, 2], "芯": 2, "ignore": 3}


def _write(file, labels, spacing=(1.0, 1.0, 1.0)):
    image = SimpleITK.GetImageFromArray(np.asarray(labels, np.uint8))
    image.SetSpacing(spacing)
    SimpleITK.WriteImage(image, str(file))


@pytest.fixture
def folders(tmp_path):
    """Folders `ref` and `pred` with cases a and b of labels 0 to 2; b of the prediction is empty."""
    generator = np.random.default_rng(2)
    for folder in ("ref", "pred"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            labels = generator.integers(0, 3, (4, 5, 6)) * ((folder, name) != ("pred", "b"))
            _write(tmp_path / folder / f"{name}.nii.gz", labels)
    return tmp_path / "ref", tmp_path / "pred"


def _rows(file):
    with file.open(encoding="utf-8-sig", newline="") as opened:
        return list(csv.DictReader(opened))


def _documents(folder):
    dataset = {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 2, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({**dataset, "regions_class_order": [1, 2]}))
    plans = {"plans_name": "nnUNetPlans", "configurations": {}, "image_reader_writer": "SimpleITKIO"}
    (folder / "plans.json").write_text(json.dumps(plans))
    return ["-djfile", str(folder / "dataset.json"), "-pfile", str(folder / "plans.json")]


def test_the_rest_of_the_file_stays_as_it_was(folders, tmp_path):
    plain, more = tmp_path / "plain.json", tmp_path / "more.json"
    compute_metrics_on_folder_simple(*folders, [1, 2, 4], plain, num_processes=0)
    compute_metrics_on_folder_simple(*folders, [1, 2, 4], more, num_processes=2, metrics=["all"])
    written = json.loads(more.read_text())
    assert list(written.pop("additional_metrics")["metric_per_case"][0]) == [
        "metrics",
        "prediction_file",
        "reference_file",
    ]
    assert json.dumps(written, indent=4) == plain.read_text()
    assert not plain.with_suffix(".csv").exists()


def test_what_is_read_is_what_was_computed(folders, tmp_path):
    output = tmp_path / "s.json"
    results = compute_metrics_on_folder_simple(*folders, [1, 2, 4], output, num_processes=0, metrics=["all"])
    read = load_summary_json(output)
    assert set(read) == set(results)
    np.testing.assert_equal(read, results)
    additional = read["additional_metrics"]
    assert (additional["number_of_cases"][1]["hd95"], additional["number_of_cases"][4]["nsd"]) == (1, 0)
    assert additional["nsd_tolerance_mm"] == {1: 1.0, 2: 1.0, 4: 1.0}
    assert additional["metric_per_case"][1]["metrics"][1]["nsd"] == 0


def test_table_of_a_dataset(folders, tmp_path, capsys):
    arguments = [*map(str, folders), *_documents(tmp_path), "-np", "0", "--metrics", "volume", "surface"]
    assert evaluate_folder_entry([*arguments, "--nsd_tolerance", "2", "0.5"]) == 0
    assert f"Every case and class: {folders[1]}/summary.csv" in capsys.readouterr().out
    rows = _rows(folders[1] / "summary.csv")
    assert [(row["case"], row["class"], row["name"], row["nsd_tolerance_mm"]) for row in rows] == [
        ("a", "(1, 2)", "whole, all of it", "2.0"),
        ("a", "2", "芯", "0.5"),
        ("b", "(1, 2)", "whole, all of it", "2.0"),
        ("b", "2", "芯", "0.5"),
    ]
    written = json.loads((folders[1] / "summary.json").read_text())
    for row in rows:
        case = next(
            i
            for i, c in enumerate(written["metric_per_case"])
            if c["prediction_file"].endswith(f"/{row['case']}.nii.gz")
        )
        values = {**written["metric_per_case"][case]["metrics"][row["class"]]}
        values.update(written["additional_metrics"]["metric_per_case"][case]["metrics"][row["class"]])
        assert "lesion_f1" not in row
        for name, value in values.items():
            assert row[name] == ("" if np.isnan(value) else str(value))
    assert rows[2]["hd95"] == "" and rows[2]["nsd"] == "0.0"
    assert (folders[1] / "summary.csv").read_bytes().startswith(b"\xef\xbb\xbf")


def test_table_alone(folders, tmp_path):
    arguments = [*map(str, folders), "-l", "1", "-np", "0", "-o", str(tmp_path / "out.json")]
    assert evaluate_simple_entry([*arguments, "--csv"]) == 0
    assert list(_rows(tmp_path / "out.csv")[0]) == [
        "case",
        "class",
        "Dice",
        "IoU",
        "FP",
        "TP",
        "FN",
        "TN",
        "n_pred",
        "n_ref",
    ]
    assert (tmp_path / "out.csv").read_bytes().startswith(b"case,class")
    assert "additional_metrics" not in json.loads((tmp_path / "out.json").read_text())


def test_spacings_that_differ_stop_everything_and_nothing_is_written(folders, capsys):
    _write(folders[1] / "b.nii.gz", np.ones((4, 5, 6)), (1.0, 1.0, 2.0))
    assert evaluate_simple_entry([*map(str, folders), "-l", "1", "-np", "0", "--metrics", "all"]) == 2
    error = capsys.readouterr().err
    assert "b.nii.gz has spacing (2, 1, 1), its reference (1, 1, 1) in" in error and "without --metrics" in error
    assert sorted(file.name for file in folders[1].iterdir()) == ["a.nii.gz", "b.nii.gz"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--metrics", "hausdorff"], ["--metrics", "hausdorff", "surface"]),
        (["--metrics"], ["--metrics"]),
        (["--metrics", "surface", "--nsd_tolerance", "0"], ["--nsd_tolerance", "0", "above zero"]),
        (["--metrics", "surface", "--nsd_tolerance", "1", "2"], ["2 numbers; expected one"]),
        (["--nsd_tolerance", "2"], ["--metrics surface"]),
    ],
)
def test_wrong_flags_are_one_line(folders, capsys, flags, words):
    try:
        code = evaluate_simple_entry([*map(str, folders), "-l", "1", "-np", "0", *flags])
    except SystemExit as end:
        code = end.code
    error = capsys.readouterr().err.strip()
    assert code == 2 and len(error.splitlines()) == 1 and all(word in error for word in words)
    assert not (folders[1] / "summary.json").exists()


@pytest.mark.parametrize("failing", ["summary.json", "summary.csv"])
def test_interrupted_while_writing(folders, failing, monkeypatch):
    compute_metrics_on_folder_simple(*folders, [1], num_processes=0, csv=True)
    before = {file.name: file.read_bytes() for file in folders[1].iterdir()}
    replace = files.os.replace

    def stop(source, target):
        if str(target).endswith(failing):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        compute_metrics_on_folder_simple(*folders, [1, 2], num_processes=0, csv=True)
    after = {file.name: file.read_bytes() for file in folders[1].iterdir()}
    assert set(after) == set(before) and after[failing] == before[failing]


def test_labels_that_are_no_whole_numbers_and_broken_references_are_named(folders):
    image = SimpleITK.GetImageFromArray(np.full((4, 5, 6), 0.5, np.float32))
    SimpleITK.WriteImage(image, str(folders[1] / "a.nii.gz"))
    with pytest.raises(DatasetError, match=r"a.nii.gz.*0\.5"):
        compute_metrics_on_folder_simple(*folders, [1], num_processes=0)
    shutil.copy(folders[0] / "a.nii.gz", folders[1] / "a.nii.gz")
    (folders[0] / "b.nii.gz").write_bytes((folders[0] / "b.nii.gz").read_bytes()[:-20])
    with pytest.raises(DatasetError, match="b.nii.gz"):
        compute_metrics_on_folder_simple(*folders, [1], num_processes=0)
    assert not (folders[1] / "summary.json").exists()


def test_of_two_names_of_a_class_the_table_has_the_first(folders, tmp_path):
    dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "first": 1, "again": 1, "=two": 2}}
    documents = _documents(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({**dataset, "numTraining": 2, "file_ending": ".nii.gz"}))
    assert evaluate_folder_entry([*map(str, folders), *documents, "-np", "0", "--csv"]) == 0
    assert {row["class"]: row["name"] for row in _rows(folders[1] / "summary.csv")} == {"1": "first", "2": "'=two"}


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@SUM(A1)", "\t=1"])
def test_names_are_no_formulas(tmp_path, name):
    metrics = {"metric_per_case": [{"prediction_file": f"/p/{name}.nii.gz", "metrics": {1: {"Dice": -0.5}, -1: {}}}]}
    save_metrics_table(metrics, tmp_path / "s.csv", ".nii.gz", {1: name})
    first, second = _rows(tmp_path / "s.csv")
    assert first == {"case": f"'{name}", "class": "1", "name": f"'{name}", "Dice": "-0.5"}
    assert second["class"] == "-1" and second["name"] == ""


def test_a_table_of_earlier_results_goes_and_files_of_others_stay(folders, caplog):
    table = folders[1] / "summary.csv"
    for names in (None, {1: "芯"}):  # with and without byte order mark
        arguments = (*folders, folders[1] / "summary.json", SimpleITKIO(), ".nii.gz", [1])
        compute_metrics_on_folder(*arguments, num_processes=0, csv=True, names=names)
        assert table.exists()
        compute_metrics_on_folder_simple(*folders, [1, 2], num_processes=0)
        assert not table.exists()
    assert caplog.text.count(f"Removed {table}, a table of earlier results; --csv writes") == 2
    table.write_text("patient;dose\n1;2\n")
    compute_metrics_on_folder_simple(*folders, [1], num_processes=0)
    assert table.read_text() == "patient;dose\n1;2\n"


def test_predictions_as_references_get_a_warning(folders, caplog):
    (folders[1] / "predict_from_raw_data_args.json").write_text("{}")
    compute_metrics_on_folder_simple(*folders, [1], num_processes=0)
    assert "holds predictions" not in caplog.text
    compute_metrics_on_folder_simple(*folders[::-1], [1], num_processes=0)
    assert f"The folder of references, {folders[1]}, holds predictions" in caplog.text
    assert "are the two folders swapped?" in caplog.text
    caplog.clear()
    (folders[0] / "predict_from_raw_data_args.json").write_text("{}")
    compute_metrics_on_folder_simple(*folders, [1], num_processes=0)  # two predictions are compared
    assert "holds predictions" in caplog.text and "swapped" not in caplog.text
