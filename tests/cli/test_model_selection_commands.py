"""From a cross-validation to the final segmentations, through the commands that the instructions name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Folders
from helpers.commands import complaint, run
from helpers.crossvalidations import NAME, documents, make_model, make_references

from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO

FULLRES, LOWRES = "nnUNetTrainer__nnUNetPlans__3d_fullres", "nnUNetTrainer__nnUNetPlans__3d_lowres"


@pytest.fixture
def results(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    content = documents()
    make_references(nnunet_folders.raw, nnunet_folders.preprocessed, content)
    for seed, configuration in enumerate(("3d_fullres", "3d_lowres")):
        references = nnunet_folders.raw / NAME / "labelsTr"
        make_model(nnunet_folders.results, references, configuration, 60, content, seed=seed)
    return nnunet_folders.results / NAME


def read(file: Path) -> Any:
    return SimpleITKIO().read_seg(str(file))[0]


def test_from_folds_to_the_final_segmentation(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("nnUNetv2_accumulate_crossval_results", "41", "-c", "3d_fullres", "-f", "0", "1") == 0
    assert f"(3 cases): {results / FULLRES / 'crossval_results_folds_0_1'}" in capsys.readouterr().out
    assert run("nnUNetv2_find_best_configuration", NAME, "-c", "3d_fullres", "3d_lowres", "-f", "0", "1") == 0
    said = capsys.readouterr().out
    assert f"ensemble___{FULLRES}___{LOWRES}___0_1" in said and "nnUNetv2_apply_postprocessing" in said
    parts = [results / name / "fold_0" / "validation" for name in (FULLRES, LOWRES)]
    for part, name in zip(parts, (FULLRES, LOWRES), strict=True):
        for document in ("plans.json", "dataset.json"):
            (part / document).write_bytes((results / name / document).read_bytes())
    merged, final = tmp_path / "merged", tmp_path / "final"
    assert run("nnUNetv2_ensemble", "-i", *parts, "-o", merged, "-np", "1") == 0
    command = next(line for line in said.splitlines() if line.startswith("nnUNetv2_apply_postprocessing"))
    words = [{"OUTPUT_FOLDER": merged, "OUTPUT_FOLDER_PP": final}.get(word, word) for word in command.split()]
    assert run(*words) == 0
    for name in ("a.nii.gz", "b.nii.gz"):
        before, after = read(merged / name), read(final / name)
        assert (after[before != after] == 0).all() and (before != after).any()
        ensemble = results / "ensembles" / f"ensemble___{FULLRES}___{LOWRES}___0_1"
        np.testing.assert_array_equal(before, read(ensemble / name))
        np.testing.assert_array_equal(after, read(ensemble / "postprocessed" / name))


def test_the_json_does_as_well(results: Path, tmp_path: Path) -> None:
    predictions = results / FULLRES / "crossval_results_folds_0_1"
    assert run("nnUNetv2_accumulate_crossval_results", NAME, "-c", "3d_fullres", "-f", "0", "1") == 0
    references = results.parents[1] / "nnUNet_raw" / NAME / "labelsTr"
    assert (
        run("nnUNetv2_determine_postprocessing", "-i", predictions, "-ref", references, "--remove_postprocessed") == 0
    )
    assert not (predictions / "postprocessed").exists()
    outputs = []
    for flag, name in (("-pp_pkl_file", "postprocessing.pkl"), ("--pp_pkl_file", "postprocessing.json")):
        outputs.append(tmp_path / name)
        assert run("nnUNetv2_apply_postprocessing", "-i", predictions, "-o", outputs[-1], flag, predictions / name) == 0
    for file in outputs[0].iterdir():
        assert file.read_bytes() == (outputs[1] / file.name).read_bytes()


def test_refusals(results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = complaint(capfd, "nnUNetv2_accumulate_crossval_results", "41", "-c", "3d_fullres", "-f", "0", "-o", results)
    assert "is not empty" in line
    line = complaint(capfd, "nnUNetv2_accumulate_crossval_results", "41", "-c", "2d")
    assert "2d is no trained model: there is no such folder; train it with nnUNetv2_train" in line
    line = complaint(capfd, "nnUNetv2_apply_postprocessing", "-i", results, "-o", tmp_path, "-pp_pkl_file", "x.pkl")
    assert "There is no postprocessing file x.pkl" in line
    line = complaint(capfd, "nnUNetv2_ensemble", "-i", results / FULLRES, "-o", tmp_path / "out")
    assert "predict with --save_probabilities" in line


def test_sharing(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    export = ("nnUNetv2_export_model_to_zip", "-d", "41", "-o", tmp_path / "m.zip", "-c", "3d_fullres", "-f", "0")
    assert run(*export) == 2 and not (tmp_path / "m.zip").exists()
    assert "2 files of these models are missing; --not_strict packs what there is" in capfd.readouterr().err
    assert "is no checkpoint" in complaint(capfd, *export, "--not_strict", "--inference_only")
    assert run(*export, "--not_strict") == 0
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    assert "is no checkpoint" in complaint(capfd, "nnUNetv2_install_pretrained_model_from_zip", tmp_path / "m.zip")
    assert "cannot be reached" in complaint(
        capfd, "nnUNetv2_download_pretrained_model_by_url", "http://127.0.0.1:9/m.zip"
    )
