"""Several calls share one dataset, and calls that are killed are continued: with real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
from helpers.commands import complaint, files_below, half_written, run, start, succeed
from helpers.datasets import make_dataset

from nnunet_lite.experiment_planning import fingerprint_extractor
from nnunet_lite.experiment_planning.fingerprint_extractor import DatasetFingerprintExtractor
from nnunet_lite.utilities.journal import Journal
from nnunet_lite.utilities.parts import WHOLE, Part

CASES = 7
EXTRACT = ("nnUNetv2_extract_fingerprint", "-d", 901, "--no_pbar", "-np")
PREPROCESS = ("nnUNetv2_preprocess", "-d", 901, "-c", "3d_fullres", "--no_pbar", "-np")


@pytest.fixture
def folder(nnunet_folders: Any) -> Path:
    """The preprocessed folder of a raw dataset."""
    raw = make_dataset(nnunet_folders.raw, n=CASES, shape=(8, 12, 10))
    return nnunet_folders.preprocessed / raw.name


def _documents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(folder.glob("dataset_fingerprint*.json"))}


def _parts(num_parts: int) -> list[tuple[object, ...]]:
    return [("-num_parts", num_parts, "-part_id", part) for part in range(num_parts)]


def _at_once(command: tuple[object, ...], num_parts: int) -> None:
    processes = [start(*map(str, (*command, *part))) for part in _parts(num_parts)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * num_parts, outputs


def _times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


def test_a_fingerprint_in_parts_is_that_of_one_piece(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    succeed(*EXTRACT, 0)
    whole = _documents(folder)
    shutil.rmtree(folder)
    first, second, third = _parts(3)
    succeed(*EXTRACT, 0, *second)
    assert "lacks part_id 0, 2 of num_parts 3, 5 of 7 cases (case_00, case_02" in capfd.readouterr().out
    error = complaint(capfd, "nnUNetv2_plan_and_preprocess", "-d", 901, "-npfp", 0, "--no_pbar", *first)
    assert error.startswith("Error: Dataset901_Tiny: its fingerprint lacks part_id 2 of num_parts 3, 2 of 7 cases")
    assert error.endswith("-num_parts 3 -part_id 2, or without these two flags for all that is missing")
    assert _documents(folder) == {}
    succeed(*EXTRACT, 0, *third)
    assert _documents(folder) == whole
    assert list((folder / ".nnunet_lite").iterdir()) == []


def test_cases_of_different_parts_are_compared_by_the_part_that_is_last(
    folder: Path, nnunet_folders: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = nnunet_folders.raw / folder.name
    shutil.copy(raw / "imagesTr" / "case_00_0000.nii.gz", raw / "imagesTr" / "case_01_0000.nii.gz")
    shutil.copy(raw / "labelsTr" / "case_00.nii.gz", raw / "labelsTr" / "case_01.nii.gz")
    for number in range(0, CASES, 2):  # label 2 is left in the second part only
        file = str(raw / "labelsTr" / f"case_{number:02d}.nii.gz")
        sitk.WriteImage(sitk.Clamp(sitk.ReadImage(file), upperBound=1), file, True)
    said = []
    for part in _parts(2):
        succeed(*EXTRACT, 0, "--verify_dataset_integrity", *part)
        said.append("".join(capfd.readouterr()))
    assert "the same voxels" not in said[0]
    assert "the same voxels as case_01_0000.nii.gz" in said[1]
    assert "remove them from dataset.json" not in "".join(said)  # no label is missing in all of them


def test_parts_at_the_same_time(folder: Path) -> None:
    succeed("nnUNetv2_plan_and_preprocess", "-d", 901, "-npfp", 0, "-np", 0, "--no_pbar", "-c", "3d_fullres")
    whole, cases = _documents(folder), files_below(folder / "nnUNetPlans_3d_fullres", folder / "gt_segmentations")
    for made in (*folder.glob("dataset_fingerprint*"), folder / "nnUNetPlans_3d_fullres", folder / "gt_segmentations"):
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    _at_once((*EXTRACT, 0), 3)
    assert _documents(folder) == whole
    _at_once((*PREPROCESS, 1), 3)
    assert files_below(folder / "nnUNetPlans_3d_fullres", folder / "gt_segmentations") == cases
    before = _times(folder / "nnUNetPlans_3d_fullres")
    succeed(*PREPROCESS, 0)  # all of it is found finished, whoever did it
    assert _times(folder / "nnUNetPlans_3d_fullres") == before
    assert [file.name for file in (folder / ".nnunet_lite").iterdir()] == ["nnUNetPlans_3d_fullres.0-of-1.journal"]


def test_the_part_that_comes_second_takes_what_the_other_one_merged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other part merges and removes the reports just before this one looks whether it is the last."""
    succeed(*EXTRACT, 0, *_parts(2)[0])
    read = fingerprint_extractor.KeptReports.read
    calls = []

    def read_late(kept: Any, questions: Any) -> Any:
        calls.append(kept)
        if len(calls) == 2:
            monkeypatch.setattr(fingerprint_extractor.KeptReports, "read", read)
            succeed(*EXTRACT, 0)
        return read(kept, questions)

    monkeypatch.setattr(fingerprint_extractor.KeptReports, "read", read_late)
    extractor = DatasetFingerprintExtractor(901, 0, show_progress=False)
    extractor.part = Part(1, 2)
    assert extractor.run() == json.loads((folder / "dataset_fingerprint.json").read_text())


def test_parts_left_over_are_merged_by_the_planner_and_reports_of_changed_files_do_not_count(
    folder: Path, capfd: pytest.CaptureFixture[str], nnunet_folders: Any
) -> None:
    for part in _parts(2):
        succeed(*EXTRACT, 0, *part)
        if part == _parts(2)[0]:
            kept = {file: file.read_bytes() for file in (folder / ".nnunet_lite").iterdir()}
    whole = _documents(folder)
    succeed(*EXTRACT, 0, "--clean", *_parts(2)[1])
    reports = list((folder / ".nnunet_lite").iterdir())
    for file, content in kept.items():
        file.write_bytes(content)
    for file in folder.glob("dataset_fingerprint*"):
        file.unlink()
    assert len(reports) == 1
    label = nnunet_folders.raw / folder.name / "labelsTr" / "case_03.nii.gz"
    before = label.stat()
    os.utime(label, (1e9, 1e9))
    assert "lacks part_id 1 of num_parts 2, 1 of 7 cases (case_03)" in complaint(
        capfd, "nnUNetv2_plan_experiment", "-d", 901, "-pl", "nnUNetPlannerResEncM"
    )
    os.utime(label, ns=(before.st_atime_ns, before.st_mtime_ns))
    succeed("nnUNetv2_plan_experiment", "-d", 901)
    assert _documents(folder) == whole


def test_a_part_leaves_the_work_of_others_alone(folder: Path) -> None:
    succeed("nnUNetv2_plan_and_preprocess", "-d", 901, "-npfp", 0, "--no_pp")
    target = folder / "nnUNetPlans_3d_fullres"
    target.mkdir()
    others, own, gone = (f".0a1b2c3d.tmp.{case}.b2nd" for case in ("case_01", "case_02", "case_99"))
    for name in (others, own, gone, "notes.txt"):
        (target / name).write_bytes(b"half")
    succeed(*PREPROCESS, 0, *_parts(2)[0])
    names = {file.name for file in target.iterdir()}
    assert others in names and "notes.txt" in names and own not in names and gone not in names
    assert {name[:7] for name in names if name.startswith("case")} == {f"case_{i:02d}" for i in range(0, CASES, 2)}


@pytest.mark.parametrize("arguments", [("-num_parts", 2, "-part_id", 2), ("-num_parts", 0)])
@pytest.mark.parametrize("command", [EXTRACT, PREPROCESS])
def test_parts_that_do_not_exist(command: Any, arguments: Any, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "num_parts" in complaint(capfd, *command, 0, *arguments)
    assert not folder.exists()


def _killed_when(command: tuple[object, ...], enough: Callable[[], bool]) -> None:
    process = start(*map(str, command), new_session=True)
    deadline = time.monotonic() + 60
    while not enough() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_a_kill_of_everything_costs_only_the_unfinished_cases(
    nnunet_folders: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    name = make_dataset(nnunet_folders.raw, n=40, shape=(24, 48, 48)).name
    folder = nnunet_folders.preprocessed / name
    kept = Journal(folder / ".nnunet_lite", "fingerprint", WHOLE)
    _killed_when((*EXTRACT, 2), lambda: len(list(kept.read())) >= 3)
    found = len({entry["case"] for entry in kept.read()})
    assert 3 <= found < 40 and _documents(folder) == {}
    assert f"its fingerprint lacks {40 - found} of 40 cases" in complaint(capfd, "nnUNetv2_plan_experiment", "-d", 901)
    succeed(*EXTRACT, 2)
    assert f"{found} of 40 cases are examined already" in capfd.readouterr().out
    whole = _documents(folder)
    succeed(*EXTRACT, 0, "--clean")
    assert _documents(folder) == whole

    succeed("nnUNetv2_plan_experiment", "-d", 901)
    target = folder / "nnUNetPlans_3d_fullres"
    _killed_when((*PREPROCESS, 2), lambda: len(list(target.glob("case*.pkl"))) >= 5)
    finished = {entry["case"] for entry in Journal(folder / ".nnunet_lite", target.name, WHOLE).read()}
    assert 3 <= len(finished) < 40  # the two workers' cases may be complete, but nobody could note it any more
    before = _times(target)
    succeed(*PREPROCESS, 2)
    assert f"{len(finished)} of 40 cases are preprocessed already" in capfd.readouterr().out
    after = _times(target)
    assert len(after) == 3 * 40 and half_written(folder) == []
    assert {file for file in before if after.get(file) == before[file]} >= {f"{case}.pkl" for case in finished}
    assert run(*PREPROCESS, 0) == 0 and _times(target) == after
