"""Folds equal upstream's; the file is made once, complete, and never trusted blindly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.training.splits import (
    do_split,
    generate_crossval_split,
    load_or_create_splits,
    random_split,
    require_validation_cases,
)


def names(count: int) -> list[str]:
    return [f"c{i:02d}" for i in range(count)]


@pytest.mark.parametrize(
    ("count", "validation"),
    [
        (12, [[0, 3, 8], [7, 10, 11], [6, 9], [1, 4], [2, 5]]),
        (5, [[0], [4], [3], [1], [2]]),
        (20, [[3, 8, 13, 16], [0, 10, 12, 15], [6, 7, 11, 17], [9, 14, 18, 19], [1, 2, 4, 5]]),
    ],
)
def test_five_folds_are_upstreams(count: int, validation: list[list[int]]) -> None:
    splits = generate_crossval_split(names(count)[::-1])
    assert [split["val"] for split in splits] == [[f"c{i:02d}" for i in fold] for fold in validation]
    for split in splits:
        assert split["train"] == [name for name in names(count) if name not in split["val"]]


def test_real_dataset(goldens: Path) -> None:
    expected = json.loads((goldens / "Dataset004_Hippocampus/splits_final.json").read_text())
    cases = expected[0]["train"] + expected[0]["val"]
    assert generate_crossval_split(cases) == expected


@pytest.mark.parametrize(
    ("fold", "train", "val"),
    [
        (5, [4, 7, 0, 10, 5, 9, 8, 3, 11], [1, 2, 6]),
        (6, [0, 6, 10, 1, 8, 3, 5, 2, 9], [4, 7, 11]),
        (7, [4, 7, 2, 0, 8, 11, 1, 6, 9], [3, 5, 10]),
    ],
)
def test_folds_beyond_the_file(fold: int, train: list[int], val: list[int]) -> None:
    expected = [f"c{i:02d}" for i in train], [f"c{i:02d}" for i in val]
    assert random_split(names(12), fold) == expected


def test_file_is_made_once_and_then_obeyed(tmp_path: Path) -> None:
    file = tmp_path / "splits_final.json"
    assert do_split(0, names(6), file) == (["c00", "c01", "c02", "c04"], ["c03", "c05"])
    text = file.read_text()
    assert text == json.dumps(json.loads(text), indent=4, sort_keys=True)
    file.write_text(json.dumps([{"train": ["c01", "c00"], "val": ["c02"]}]))
    assert do_split("0", names(6), file) == (["c01", "c00"], ["c02"])
    assert do_split(1, names(6), file) == random_split(names(6), 1)
    assert do_split("all", ["b", "a"], file) == (["a", "b"], ["a", "b"])


@pytest.mark.parametrize("fold", [-1, "-1", "best", "1.5", ""])
def test_folds_that_are_none(fold: int | str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="from 0, or all"):
        do_split(fold, names(6), tmp_path / "splits_final.json")


def test_too_few_cases(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="4 preprocessed cases.*fold 'all'"):
        load_or_create_splits(tmp_path / "splits_final.json", names(4))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "no valid JSON"),
        ("{}", "must hold a list"),
        ('[{"train": ["c00"]}]', "split 0.*'val'"),
        ('[{"train": ["c00", "x", "y"], "val": ["c01"]}]', r"2 cases have no preprocessed data \(x, y\)"),
        ('[{"train": [], "val": ["c01"]}]', "no training cases"),
        ('[{"train": ["c00", "c01", "c02"], "val": ["c01"]}]', r"1 case both trains and validates \(c01\)"),
    ],
)
def test_bad_files(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "splits_final.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        do_split(0, names(6), tmp_path / "splits_final.json")


def test_a_case_twice_in_a_list_is_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "splits_final.json").write_text('[{"train": ["c00", "c01", "c01"], "val": ["c02"]}]')
    do_split(0, names(6), tmp_path / "splits_final.json")
    assert "some training cases are listed more than once" in caplog.text


def test_a_random_split_that_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "splits_final.json").write_text('[{"train": ["c00"], "val": ["c01"]}]')
    with pytest.raises(DatasetError, match="random 80:20 split of 1 cases: no training cases"):
        do_split(1, names(1), tmp_path / "splits_final.json")


def test_a_training_needs_validation_cases(tmp_path: Path) -> None:
    (tmp_path / "splits_final.json").write_text('[{"train": ["c01"], "val": []}]')
    _, val = do_split(0, names(6), tmp_path / "splits_final.json")
    with pytest.raises(DatasetError, match="Fold 0 of splits_final.json has no validation cases"):
        require_validation_cases(val, 0, "splits_final.json")


_AT_ONCE = """
import json, sys, time
from nnunet_lite.training.splits import do_split, load_or_create_splits
file, fold, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sys.stdin.readline()
cases = [f"c{i:02d}" for i in range(number)]
print(json.dumps(load_or_create_splits(file, cases)))
"""


def test_five_folds_at_once_on_an_empty_folder_use_one_split(tmp_path: Path) -> None:
    file = tmp_path / "splits_final.json"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _AT_ONCE, str(file), str(fold), str(20 + fold)],  # preprocessing is still adding
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for fold in range(5)
    ]  # fmt: skip
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    said = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 5
    assert len(said) == 1
    assert json.loads(said.pop()) == json.loads(file.read_text())
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
