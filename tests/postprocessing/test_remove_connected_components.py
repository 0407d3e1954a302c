"""Golden facts of spec 03, 11.10, and what becomes of the files."""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.commands import succeed
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_lite.cli.postprocessing import _described
from nnunet_lite.evaluation.evaluate_predictions import compute_metrics_on_folder2
from nnunet_lite.exceptions import ArgumentError, DatasetError, StorageError, nnUNetError
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunet_lite.postprocessing.postprocessing_file import load_postprocessing
from nnunet_lite.postprocessing.remove_connected_components import (
    apply_postprocessing,
    apply_postprocessing_to_folder,
    determine_postprocessing,
    remove_all_but_largest_component_from_segmentation,
)

STUFF = {"spacing": (1.0, 2.0, 3.0), "origin": (5.0, 6.0, 7.0), "direction": (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}
PLANS = {
    "configurations": {},
    "image_reader_writer": "SimpleITKIO",
    "plans_name": "nnUNetPlans",
    "dataset_name": "Dataset001_X",
}
ORGANS = {"background": 0, "one": 1, "two": 2}
NESTED = {"background": 0, "whole": [1, 2], "core": 2}


class Folders(NamedTuple):
    """Predictions with their documents, and references."""

    predictions: Path
    references: Path

    def write(self, name: str, reference: NDArray[Any], prediction: NDArray[Any]) -> None:
        for folder, labels in zip((self.references, self.predictions), (reference, prediction), strict=True):
            SimpleITKIO().write_seg(labels.astype(np.uint8), str(folder / f"{name}.nii.gz"), {"sitk_stuff": STUFF})

    def labels(self, labels: dict[str, Any], order: Sequence[int] | None = None) -> Folders:
        dataset = {"labels": labels, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}}
        documents = {"dataset.json": {**dataset, "regions_class_order": order}, "plans.json": PLANS}
        for name, content in documents.items():
            (self.predictions / name).write_text(json.dumps(content))
        return self


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path / "predictions", tmp_path / "references")
    for folder in made:
        folder.mkdir()
    return made


def tree_of(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def read(file: Path) -> NDArray[Any]:
    return np.asarray(SimpleITKIO().read_seg(str(file))[0][0])


def organs() -> NDArray[Any]:
    labels = np.zeros((1, 12, 12), np.uint8)
    labels[0, 1:3, 1:4] = 1
    labels[0, 6:8, 5:9] = 2
    return labels


def test_stray_voxels_of_one_organ(folders: Folders) -> None:
    folders.labels(ORGANS)
    for name in ("a", "b"):
        stray = organs()
        stray[0, 10, 1] = 1
        folders.write(name, organs(), stray)
    functions, kwargs = determine_postprocessing(*folders, None, None, num_processes=0)
    assert functions == [remove_all_but_largest_component_from_segmentation]
    assert kwargs == [{"labels_or_regions": 1}] == load_postprocessing(folders.predictions / "postprocessing.pkl")
    written = json.loads((folders.predictions / "postprocessing.json").read_text())
    assert list(written) == ["input_folder", "postprocessed", "postprocessing_fns", "postprocessing_kwargs"]
    assert written["input_folder"]["mean"]["1"]["Dice"] == 0.9230769230769231
    assert written["input_folder"]["foreground_mean"]["Dice"] == 0.9615384615384616
    assert written["postprocessed"]["foreground_mean"]["Dice"] == 1.0
    assert written["postprocessing_fns"] == ["remove_all_but_largest_component_from_segmentation"]
    processed = folders.predictions / "postprocessed"
    assert sorted(tree_of(processed)) == ["a.nii.gz", "b.nii.gz", "summary.json"]
    np.testing.assert_array_equal(read(processed / "b.nii.gz"), organs())
    assert SimpleITKIO().read_seg(str(processed / "b.nii.gz"))[1]["sitk_stuff"]["origin"] == STUFF["origin"]


def test_the_command_names_classes_and_says_how_to_go_on(
    folders: Folders, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folders.labels(ORGANS)
    stray = organs()
    stray[0, 10, 1] = 1
    folders.write("a", organs(), stray)
    arguments = ["-i", str(folders.predictions), "-ref", str(folders.references), "-np", "0"]
    succeed("nnUNetv2_determine_postprocessing", *arguments)
    said, line = capsys.readouterr().out.splitlines()[-2:]
    assert said == "Postprocessing: keep only the largest component of 1 (one). Apply it to predictions with"
    command, *words = shlex.split(line)
    places = {"INPUT_FOLDER": str(folders.predictions), "OUTPUT_FOLDER": str(tmp_path / "cleaned")}
    succeed(command, *(places.get(word, word) for word in words), "-np", "0")
    np.testing.assert_array_equal(read(tmp_path / "cleaned" / "a.nii.gz"), organs())
    stray[0, 10, 1] = 0
    folders.write("a", organs(), stray)
    succeed("nnUNetv2_determine_postprocessing", *arguments)
    assert capsys.readouterr().out.splitlines()[-1] == "Postprocessing: nothing to remove helps"


@pytest.mark.parametrize(
    ("entry", "words"),
    [(2, "2 (core)"), ((1, 2), "(1, 2) (whole)"), ([2, 7], "[2, 7] (core, 7, taken together)"), (7, "7")],
)
def test_words_for_what_is_kept(entry: Any, words: str) -> None:
    assert _described(entry, {(1, 2): "whole", 2: "core"}) == words


def test_a_removed_core_leaves_a_hole(folders: Folders) -> None:
    folders.labels(NESTED, [1, 2])
    reference = np.zeros((1, 8, 8), np.uint8)
    reference[0, 1:6, 1:4] = 1
    reference[0, 1:3, 1:2] = 2
    prediction = reference.copy()
    prediction[0, 5, 3] = 2
    folders.write("a", reference, prediction)
    _, kwargs = determine_postprocessing(*folders, None, None, num_processes=0)
    assert kwargs == [{"labels_or_regions": 2}]
    written = json.loads((folders.predictions / "postprocessing.json").read_text())
    before, after = written["input_folder"]["mean"], written["postprocessed"]["mean"]
    assert (before["2"]["Dice"], after["2"]["Dice"]) == (0.8, 1.0)
    assert (before["(1, 2)"]["Dice"], after["(1, 2)"]["Dice"]) == (1.0, 0.9655172413793104)
    assert written["postprocessed"]["foreground_mean"]["Dice"] == 0.9827586206896552


def test_all_foreground_together(folders: Folders) -> None:
    folders.labels(ORGANS)
    joined = np.zeros((1, 12, 12), np.uint8)
    joined[0, 2:4, 2:5], joined[0, 4:6, 2:6] = 1, 2
    stray = joined.copy()
    stray[0, 10, 1], stray[0, 10, 10] = 1, 2
    folders.write("a", joined, stray)
    _, kwargs = determine_postprocessing(*folders, None, None, num_processes=0)
    assert kwargs == [{"labels_or_regions": [1, 2]}]
    assert load_postprocessing(folders.predictions / "postprocessing.json") == kwargs


def test_nothing_helps_so_segmentations_alone_are_copied(folders: Folders) -> None:
    folders.labels(ORGANS).write("a", organs(), organs())
    (folders.predictions / "a.npz").write_bytes(b"probabilities")
    (folders.predictions / "postprocessed").mkdir()
    (folders.predictions / "postprocessed" / "old.nii.gz").write_bytes(b"of an earlier run")
    assert determine_postprocessing(*folders, None, None, num_processes=0) == ([], [])
    assert load_postprocessing(folders.predictions / "postprocessing.pkl") == []
    assert sorted(tree_of(folders.predictions / "postprocessed")) == ["a.nii.gz", "summary.json"]
    same = (folders.predictions / "a.nii.gz").read_bytes()
    assert (folders.predictions / "postprocessed" / "a.nii.gz").read_bytes() == same
    assert not [name for name in tree_of(folders.predictions) if name.startswith(".")]


def test_an_absent_class_neither_accepts_nor_vetoes(folders: Folders) -> None:
    folders.labels({**ORGANS, "absent": 3})
    joined = np.zeros((1, 12, 12), np.uint8)
    joined[0, 2:4, 2:5], joined[0, 4:6, 2:6] = 1, 2
    stray = joined.copy()
    stray[0, 10, 1] = 1
    folders.write("a", joined, stray)
    _, kwargs = determine_postprocessing(*folders, None, None, num_processes=0)
    assert kwargs == [{"labels_or_regions": 1}]  # the foreground mean is NaN, which accepts nothing


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_rules_on_random_cases(folders: Folders, regions: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = {"background": 0, "a": 1, "b": 2, "c": 3, "d": [4], "ignore": 5}
    if regions:
        labels = {"background": 0, "all": [1, 2, 3, 4], "most": [2, 3], "a": 1, "d": [4, 3], "ignore": 5}
    folders.labels(labels, [1, 2, 3, 4] if regions else None)
    for name in "abc":
        smooth = ndimage.gaussian_filter(rng.random((12, 14, 16)), 2)
        reference = np.digitize(smooth, np.quantile(smooth, [0.5, 0.6, 0.75, 0.9]))
        if seed % 2:  # two organs, of which the removal of the smaller one does harm
            reference[:, :, :8] = np.minimum(reference[:, :, :8], 2)
            reference[:, :, 8:] = np.where(reference[:, :, 8:] > 0, np.maximum(reference[:, :, 8:], 3), 0)
            reference[:, :, 7:9] = 0
        reference[rng.random(reference.shape) < 0.01] = 5
        noise = rng.random(reference.shape) < [0.005, 0.03, 0.05, 0.1][seed]
        prediction = np.where(noise, rng.integers(0, 5, reference.shape), np.minimum(reference, 4))
        folders.write(name, reference, prediction)
    _, kwargs = determine_postprocessing(*folders, None, None, num_processes=0)
    assert kwargs == _by_the_rules(folders, regions)


def _by_the_rules(folders: Folders, regions: bool) -> list[dict[str, Any]]:
    """Spec 03, 6.6, word by word: every candidate is written and evaluated as a folder."""
    classes: list[Any] = [(1, 2, 3, 4), (2, 3), 1, (4, 3)] if regions else [1, 2, 3, 4]

    def evaluated(kwargs: list[dict[str, Any]]) -> dict[str, Any]:
        target = folders.predictions.parent / "candidate"
        steps = [remove_all_but_largest_component_from_segmentation] * len(kwargs)
        apply_postprocessing_to_folder(folders.predictions, target, steps, kwargs, num_processes=0)
        documents = (folders.predictions / "dataset.json", folders.predictions / "plans.json")
        return compute_metrics_on_folder2(folders.references, target, *documents, num_processes=0, chill=True)

    accepted: list[dict[str, Any]] = []
    before, after = evaluated([]), evaluated([{"labels_or_regions": [1, 2, 3, 4]}])
    dice = [(before["mean"][entry]["Dice"], after["mean"][entry]["Dice"]) for entry in classes]
    if after["foreground_mean"]["Dice"] > before["foreground_mean"]["Dice"] and not any(b > a for b, a in dice):
        accepted = [{"labels_or_regions": [1, 2, 3, 4]}]
    for entry in classes:
        candidate = [*accepted, {"labels_or_regions": entry}]
        if evaluated(candidate)["mean"][entry]["Dice"] > evaluated(accepted)["mean"][entry]["Dice"]:
            accepted = candidate
    return accepted


def test_a_summary_of_other_predictions_is_made_anew(folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    folders.labels(ORGANS).write("a", organs(), organs())
    determine_postprocessing(*folders, None, None, num_processes=0)
    summary = folders.predictions / "summary.json"
    first = summary.stat().st_mtime_ns
    determine_postprocessing(*folders, None, None, num_processes=0)
    assert summary.stat().st_mtime_ns == first and "does not fit" not in caplog.text
    table = folders.predictions / "summary.csv"
    table.write_text("case,class,Dice\na,1,1.0\n")
    determine_postprocessing(*folders, None, None, num_processes=0)
    assert table.exists()
    folders.write("a", organs(), np.zeros_like(organs()))
    with caplog.at_level(logging.WARNING):
        determine_postprocessing(*folders, None, None, num_processes=0, keep_postprocessed_files=False)
    assert "does not fit the segmentations beside it" in caplog.text
    assert not table.exists(), "a table of the earlier predictions"
    assert json.loads(summary.read_text())["foreground_mean"]["Dice"] == 0
    assert not (folders.predictions / "postprocessed").exists()


def test_missing_predictions_are_warned_of(folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    folders.labels(ORGANS).write("a", organs(), organs())
    folders.write("b", organs(), organs())
    (folders.predictions / "b.nii.gz").unlink()
    determine_postprocessing(*folders, None, None, num_processes=0)
    assert "1 reference in" in caplog.text and "has no prediction" in caplog.text


def test_workers_decide_alike(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    folders.labels(ORGANS)
    stray = organs()
    stray[0, 10, 1] = 1
    for name in ("a", "b"):
        folders.write(name, organs(), stray)
    monkeypatch.setattr("nnunet_lite.postprocessing.remove_connected_components._WORKER_START", 0)
    assert determine_postprocessing(*folders, None, None, num_processes=2)[1] == [{"labels_or_regions": 1}]


def test_what_is_refused(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"There is no .*plans.json; name it with -plans_json"):
        determine_postprocessing(*folders, None, None)
    folders.labels(ORGANS)
    with pytest.raises(DatasetError, match="No segmentations in"):
        determine_postprocessing(*folders, None, None)
    with pytest.raises(DatasetError, match="No segmentations in"):
        apply_postprocessing_to_folder(folders.predictions, tmp_path / "out", [], [])
    folders.write("a", organs(), organs())
    with pytest.raises(DatasetError, match="There is no folder"):
        determine_postprocessing(tmp_path / "nowhere", folders.references, None, None)
    with pytest.raises(ArgumentError, match="holds predictions .*are -i and -ref swapped"):
        determine_postprocessing(folders.references, folders.predictions, None, None)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file is a file, expected a folder"):
        apply_postprocessing_to_folder(folders.predictions, tmp_path / "file", [], [])
    with pytest.raises(ArgumentError, match="is the input folder"):
        apply_postprocessing_to_folder(folders.predictions, folders.predictions, [], [])
    folders.write("a", organs()[:, :5], organs())
    with pytest.raises(DatasetError, match="has shape"):
        determine_postprocessing(*folders, None, None, num_processes=0)
    assert sorted(tree_of(folders.predictions)) == ["a.nii.gz", "dataset.json", "plans.json"]


def test_steps_follow_one_another() -> None:
    row = np.array([[[1, 1, 2, 0, 2, 2, 2, 0, 1]]])
    step = remove_all_but_largest_component_from_segmentation
    kwargs = [{"labels_or_regions": [1, 2]}, {"labels_or_regions": 2}]
    both = apply_postprocessing(row, [step, step], kwargs)
    assert both.tolist() == [
        [[1, 1, 0, 0, 2, 2, 2, 0, 0]]
    ]  # together two of 3 voxels stay; then 3 against 1 of label 2
    assert row.tolist() == [[[1, 1, 2, 0, 2, 2, 2, 0, 1]]]


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", "3", "{}", '{"labels": 3}', '{"file_ending": 3}'])
def test_broken_documents_are_named(folders: Folders, name: str, content: str) -> None:
    folders.labels(ORGANS)
    folders.write("a", organs(), organs())
    (folders.predictions / name).write_text(content)
    for run in (
        lambda: determine_postprocessing(*folders, None, None, num_processes=0),
        lambda: apply_postprocessing_to_folder(folders.predictions, folders.predictions.parent / "out", [], []),
    ):
        with pytest.raises(nnUNetError, match=name.split(".")[0]):
            run()
    assert not (folders.predictions.parent / "out").exists()


def test_results_before_outlive_a_kill_between_old_and_new(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    folders.labels(ORGANS)
    folders.write("a", organs(), organs())
    determine_postprocessing(*folders, None, None, num_processes=0)
    before = sorted(tree_of(folders.predictions / "postprocessed"))
    rename = Path.rename

    def renamed(self: Path, target: Any) -> Path:
        if Path(target).name == "postprocessed":
            os._exit(9)  # nothing is tidied up, as after SIGKILL
        return rename(self, target)

    child = os.fork()
    if not child:
        monkeypatch.setattr(Path, "rename", renamed)
        determine_postprocessing(*folders, None, None, num_processes=0)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert sorted(tree_of(folders.predictions / "postprocessed.replaced")) == before
    determine_postprocessing(*folders, None, None, num_processes=0)
    assert sorted(tree_of(folders.predictions / "postprocessed")) == before
    assert not (folders.predictions / "postprocessed.replaced").exists()
