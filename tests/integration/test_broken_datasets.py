"""A corpus of broken datasets, each with everything that must be said of it and nothing else.

helpers/broken_datasets.txt holds the lines: kind | case and file | what was found, expected what.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import broken_datasets
from helpers.broken_datasets import BREAKERS, edit, image, label, put, rewrite
from helpers.commands import complaint, half_written, run
from helpers.datasets import make_dataset

from nnunet_lite.plans.faults import KINDS

TABLE = Path(broken_datasets.__file__).with_suffix(".txt").read_text(encoding="utf-8")
EXPECTED = {name: lines.splitlines() for name, lines in re.findall(r"^\[(\w+)\]\n((?:.+\n)*)", TABLE, re.MULTILINE)}
CHECK = ("nnUNetv2_check_dataset", "-d", 901, "-np", 0, "--no_pbar")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset that is broken in many ways."""
    return make_dataset(tmp_path_factory.mktemp("sound"), n=3, shape=(6, 10, 8), channels=("a", "b"), vary=0)


@pytest.fixture
def folder(sound: Path, nnunet_folders: Any) -> Path:
    """A copy of it in nnUNet_raw."""
    return Path(shutil.copytree(sound, nnunet_folders.raw / sound.name))


def report_of(folder: Path, code: int) -> dict[str, Any]:
    """Check the dataset, which must end with this exit code; the report as programs read it."""
    file = folder.parent / "report.json"
    assert run(*CHECK, "--json", file) == code
    report = json.loads(file.read_text())
    assert report["schema"] == 1 and report["sound"] == (code == 0)
    return report["datasets"][0]


def lines_of(report: dict[str, Any]) -> list[str]:
    """Findings as lines of the table, without what depends on the machine."""
    lines = []
    for finding in report["findings"]:
        place = " ".join(text for text in (finding["case"], finding["file"]) if text)
        expected = f", expected {finding['expected']}" if finding["expected"] else ""
        line = f"{finding['kind']} | {place} | {finding['found']}{expected}"
        lines.append(re.sub(r"0x[0-9a-f]+", "0x", line.replace(f"{report['folder']}/", "")))
    return lines


@pytest.mark.parametrize("name", BREAKERS)
def test_everything_is_said(folder: Path, nnunet_folders: Any, capfd: Any, name: str) -> None:
    BREAKERS[name](folder)
    faulty = any(KINDS[line.split(" | ")[0]].is_fault for line in EXPECTED[name])
    report = report_of(folder, 2 if faulty else 0)
    assert lines_of(report) == EXPECTED[name]
    text = capfd.readouterr()
    assert len(text.err.splitlines()) == int(faulty)
    assert text.out.startswith("Dataset901_Tiny: ") and "Traceback" not in text.err
    for finding in report["findings"]:
        assert finding["repair"] and f"[{finding['kind']}]" in text.out
        assert finding["severity"] == ("fault" if KINDS[finding["kind"]].is_fault else "warning")

    extract = ("nnUNetv2_extract_fingerprint", "-d", 901, "-np", 0, "--no_pbar", "--verify_dataset_integrity")
    assert run(*extract) == (2 if faulty else 0)
    error = capfd.readouterr().err
    assert "Traceback" not in error and half_written(nnunet_folders.preprocessed) == []
    for finding in report["findings"]:
        assert finding["found"] in error
    assert bool(list(nnunet_folders.preprocessed.rglob("dataset_fingerprint.json"))) == (not faulty)


def test_the_table_is_complete() -> None:
    assert list(EXPECTED) == list(BREAKERS) and len(BREAKERS) >= 40
    told = {line.split(" | ")[0] for lines in EXPECTED.values() for line in lines}
    assert set(KINDS) - told == {"spacing-not-positive", "reader-warning", "case-failed"}


def test_a_sound_dataset_is_silent(folder: Path, capfd: Any) -> None:
    report = report_of(folder, 0)
    assert report["findings"] == [] and report["regions"] == []
    assert set(report["labels"]) == {"0", "1", "2"} and report["labels"]["2"]["cases"] == 3
    captured = capfd.readouterr()
    assert captured.out.strip() == "Dataset901_Tiny: 3 cases, no faults, no warnings" and captured.err == ""


def test_regions_are_explained(folder: Path, capfd: Any) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    rewrite(label(folder), put(3))
    edit(folder, labels=labels, regions_class_order=[1, 2, 3])
    assert [row["written"] for row in report_of(folder, 0)["regions"]] == [0, 1, 2, 3]
    edit(folder, labels=labels, regions_class_order=[3, 2, 1])
    rows = report_of(folder, 0)["regions"]
    assert rows[3] == {"label": 3, "regions": ["whole", "core", "enhancing"], "painted": [3, 2, 1], "written": 1}
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert "3 whole and core and enhancing 3 2 1 1 <- another label" in lines


def test_a_thousand_faults_stay_readable(nnunet_folders: Any, capfd: Any) -> None:
    folder = make_dataset(nnunet_folders.raw, n=1, shape=(4, 4, 4), vary=0)
    for number in range(1, 500):
        (folder / "imagesTr" / f"case_{number:04d}_0000.nii.gz").write_bytes(b"")
    report = report_of(folder, 2)
    assert report["faults"] == 2 * 499 + 1
    captured = capfd.readouterr()
    assert len(captured.out.splitlines()) < 40 and "and 494 more: case_0006, " in captured.out
    assert captured.err.count("\n") == 1
    assert run("nnUNetv2_extract_fingerprint", "-d", 901, "-np", 0, "--no_pbar", "--verify_dataset_integrity") == 2
    assert len(capfd.readouterr().err.splitlines()) < 20


def test_several_datasets_are_all_checked(folder: Path, nnunet_folders: Any, tmp_path: Path, capfd: Any) -> None:
    make_dataset(nnunet_folders.raw, 902, "Other", n=1, shape=(6, 10, 8))
    rewrite(label(folder), put(9))
    file = tmp_path / "report.json"
    line = complaint(
        capfd, "nnUNetv2_check_dataset", "-d", 901, "Dataset902_Other", 901, "-np", 0, "--no_pbar", "--json", file
    )
    assert "Dataset901_Tiny: 3 cases, 1 fault in 1 case" in line and "902" not in line
    assert [dataset["name"] for dataset in json.loads(file.read_text())["datasets"]] == [
        "Dataset901_Tiny",
        "Dataset902_Other",
    ]


def test_background_processes_say_the_same(folder: Path, tmp_path: Path) -> None:
    BREAKERS["several_at_once"](folder)
    inline = report_of(folder, 2)
    assert run("nnUNetv2_check_dataset", "-d", 901, "-np", 2, "--no_pbar", "--json", tmp_path / "r.json") == 2
    assert json.loads((tmp_path / "r.json").read_text())["datasets"][0] == inline


@pytest.mark.parametrize("name", [name for name in BREAKERS if any("missing |" in line for line in EXPECTED[name])])
def test_planning_without_the_check_is_no_less_clear(folder: Path, nnunet_folders: Any, capfd: Any, name: str) -> None:
    BREAKERS[name](folder)
    assert run("nnUNetv2_plan_and_preprocess", "-d", 901, "-npfp", 0, "-np", 0, "--no_pbar") in (0, 2)
    assert "Traceback" not in capfd.readouterr().err
    assert half_written(nnunet_folders.preprocessed) == []


def test_case_that_breaks_after_planning(folder: Path, nnunet_folders: Any, capfd: Any) -> None:
    flags = ("-d", 901, "-npfp", 0, "-c", "3d_fullres", "--no_pp", "--no_pbar")
    assert run("nnUNetv2_plan_and_preprocess", *flags) == 0
    BREAKERS["flipped_bit"](folder)
    line = complaint(capfd, "nnUNetv2_preprocess", "-d", 901, "-np", 0, "-c", "3d_fullres", "--no_pbar")
    assert image(folder).name in line and "damaged" in line
