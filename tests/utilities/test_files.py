"""Atomic writing, JSON, restricted pickles, listings."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from nnunet_lite.exceptions import StorageError
from nnunet_lite.utilities.files import (
    atomic_path,
    copy_file,
    load_json,
    load_pickle,
    save_json,
    save_pickle,
    scratch_array,
    subdirs,
    subfiles,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    save_json({"old": 1}, target)
    with pytest.raises(KeyError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert load_json(target) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_the_temporary_file_keeps_the_ending_and_is_invisible_to_listings(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "case.nii.gz") as temporary:
        assert temporary.name.endswith("case.nii.gz")
        temporary.write_bytes(b"x")
        assert subfiles(tmp_path) == []
    assert subfiles(tmp_path, ".nii.gz", join=False) == ["case.nii.gz"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((StorageError, OSError)):
        save_json({}, tmp_path / "file" / "a.json")


def test_json_knows_numpy_and_nan(tmp_path: Path) -> None:
    save_json({"a": np.float32(0.5), "b": np.arange(2), "c": float("nan"), "d": (1, np.int64(2))}, tmp_path / "a.json")
    content = load_json(tmp_path / "a.json")
    assert content["a"] == 0.5 and content["b"] == [0, 1] and content["d"] == [1, 2]
    assert np.isnan(content["c"])
    assert "NaN" in (tmp_path / "a.json").read_text()


def test_json_order_is_kept_when_asked(tmp_path: Path) -> None:
    save_json({"b": 1, "a": 2}, tmp_path / "a.json", sort_keys=False)
    assert list(load_json(tmp_path / "a.json")) == ["b", "a"]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_plain_and_numpy_content_are_read(tmp_path: Path, protocol: int) -> None:
    content = {(1, 2): np.arange(8).reshape(2, 4), "spacing": [np.float64(1.5), 2.0], "shape": (1, 2), "none": None}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    read = load_pickle(tmp_path / "a.pkl")
    np.testing.assert_array_equal(read[(1, 2)], content[(1, 2)])
    assert read["spacing"] == [1.5, 2.0] and read["shape"] == (1, 2) and read["none"] is None


def test_pickles_written_with_numpy_1_are_read(tmp_path: Path) -> None:
    stream = pickle.dumps({"a": np.float64(2.5), "b": np.arange(3)}, protocol=2)
    (tmp_path / "a.pkl").write_bytes(stream.replace(b"numpy._core.", b"numpy.core."))
    assert load_pickle(tmp_path / "a.pkl")["a"] == 2.5


def test_a_malicious_pickle_is_refused_and_never_runs(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/ran",)

    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"x": Evil()}))
    with pytest.raises(StorageError, match="system"):
        load_pickle(tmp_path / "a.pkl")
    assert not (tmp_path / "ran").exists()


def test_a_truncated_pickle_is_one_line(tmp_path: Path) -> None:
    save_pickle({"a": np.arange(1000)}, tmp_path / "a.pkl")
    content = (tmp_path / "a.pkl").read_bytes()
    (tmp_path / "a.pkl").write_bytes(content[: len(content) // 2])
    with pytest.raises(StorageError, match="a.pkl"):
        load_pickle(tmp_path / "a.pkl")


def test_copy_if_newer(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    assert copy_file(tmp_path / "a", tmp_path / "b", only_if_newer=True)
    assert not copy_file(tmp_path / "a", tmp_path / "b", only_if_newer=True)
    (tmp_path / "a").write_text("two")
    later = (tmp_path / "b").stat().st_mtime + 10
    os.utime(tmp_path / "a", (later, later))
    assert copy_file(tmp_path / "a", tmp_path / "b", only_if_newer=True)
    assert (tmp_path / "b").read_text() == "two"


def test_listings_are_sorted_and_skip_hidden(tmp_path: Path) -> None:
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.txt").write_text("")
    assert subdirs(tmp_path, join=False) == ["a", "b"]
    assert subfiles(tmp_path, ".txt", join=False) == ["a.txt", "b.txt"]


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(StorageError, match="out is a file, expected a folder"):
        save_json({}, tmp_path / "out" / "a.json")
    with pytest.raises(StorageError, match="out is a file, expected a folder"):
        save_json({}, tmp_path / "out" / "deeper" / "a.json")


def test_scratch_array_is_zero_has_its_space_and_leaves_nothing(tmp_path: Path) -> None:
    with scratch_array(tmp_path / "new" / "a.npz", (3, 50, 700), np.float32) as array:
        assert array.shape == (3, 50, 700) and not array.any()
        array[2] = 7
        assert array[2, 49, 699] == 7
        del array
    assert list((tmp_path / "new").iterdir()) == []


def test_scratch_array_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("nnunet_lite.utilities.files._reserve", full)
    with pytest.raises(StorageError, match="No space left"), scratch_array(tmp_path / "a.npz", (3,), np.float32):
        pass
