"""Golden facts of spec 03, 11.7, and the definition on random probabilities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_lite.ensembling import ensemble
from nnunet_lite.ensembling.ensemble import (
    average_probabilities,
    ensemble_crossvalidations,
    ensemble_folders,
    merge_files,
)
from nnunet_lite.exceptions import ArgumentError, DatasetError, nnUNetError
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.utilities.files import load_pickle, save_pickle
from nnunet_lite.utilities.npz_stream import npz_stream

STUFF = {"spacing": (1.0, 2.0, 3.0), "origin": (5.0, 6.0, 7.0), "direction": (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}
PROPERTIES = {"sitk_stuff": STUFF, "spacing": [3.0, 2.0, 1.0]}
DOCUMENTS: dict[str, Any] = {
    "dataset.json": {"labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}},
    "plans.json": {"configurations": {}, "image_reader_writer": "SimpleITKIO"},
}
A = np.array([[[[0.6, 0.5]]], [[[0.4, 0.5]]]], np.float32)
B = np.array([[[[0.3, 0.5]]], [[[0.7, 0.5]]]], np.float32)


def write(folder: Path, cases: dict[str, NDArray[Any]], documents: dict[str, Any] = DOCUMENTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in documents.items():
        (folder / name).write_text(json.dumps(content))
    for name, probabilities in cases.items():
        np.savez_compressed(folder / f"{name}.npz", probabilities=probabilities)
        save_pickle(PROPERTIES, folder / f"{name}.pkl")
    return folder


def read(file: Path) -> NDArray[Any]:
    return np.asarray(SimpleITKIO().read_seg(str(file))[0][0])


def test_the_mean_and_its_labels(tmp_path: Path) -> None:
    folders = [write(tmp_path / "1", {"x": A}), write(tmp_path / "2", {"x": B})]
    np.testing.assert_allclose(
        average_probabilities([f / "x.npz" for f in folders])[:, 0, 0], [[0.45, 0.5], [0.55, 0.5]]
    )
    ensemble_folders(folders, tmp_path / "out", True, 0)
    assert read(tmp_path / "out" / "x.nii.gz").tolist() == [[[1, 0]]]
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == [
        *("dataset.json", "plans.json", "x.nii.gz", "x.npz", "x.pkl"),
    ]
    written = np.load(tmp_path / "out" / "x.npz")["probabilities"]
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, (A + B) / 2)
    assert load_pickle(tmp_path / "out" / "x.pkl") == PROPERTIES
    assert SimpleITKIO().read_seg(str(tmp_path / "out" / "x.nii.gz"))[1]["sitk_stuff"]["origin"] == STUFF["origin"]


def test_regions(tmp_path: Path) -> None:
    files = [write(tmp_path / name, {"x": p}) / "x.npz" for name, p in (("1", A), ("2", B))]
    manager = LabelManager({"background": 0, "whole": [1, 2], "core": 2}, [1, 2])
    merge_files(files, tmp_path / "x", ".nii.gz", SimpleITKIO(), manager)
    assert read(tmp_path / "x.nii.gz").tolist() == [[[2, 0]]]
    assert not (tmp_path / "x.npz").exists()


class OwnLabelManager(LabelManager):
    """Converts probabilities in its own way."""

    def convert_probabilities_to_segmentation(self, predicted_probabilities: Any) -> Any:
        return super().convert_probabilities_to_segmentation(-predicted_probabilities)


@pytest.mark.parametrize(
    "manager",
    [
        LabelManager({"background": 0, **{f"l{i}": i for i in range(1, 7)}}, None),
        LabelManager({"background": 0, "a": 1, **{f"l{i}": i for i in range(300, 305)}}, None),
        LabelManager(
            {"background": 0, "r0": [1, 2], **{f"r{i}": [i, i + 1] for i in range(1, 7)}}, [9, 300, 3, 2, 5, 6, 1]
        ),
        OwnLabelManager({"background": 0, **{f"l{i}": i for i in range(1, 7)}}, None),
    ],
)
def test_the_definition(tmp_path: Path, manager: LabelManager) -> None:
    rng = np.random.default_rng(1)
    dtypes: Sequence[Any] = (np.float32, np.float16, np.float32)
    members = [np.round(rng.random((7, 5, 6, 4)), 1).astype(dtype) for dtype in dtypes]
    files = [write(tmp_path / str(i), {"x": member}) / "x.npz" for i, member in enumerate(members)]
    merge_files(files, tmp_path / "out" / "x", ".nii.gz", SimpleITKIO(), manager, True)
    total = members[0].astype(np.float32)
    for member in members[1:]:
        total += member
    total /= len(members)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "x.npz")["probabilities"], total)
    expected = np.asarray(manager.convert_probabilities_to_segmentation(total))
    np.testing.assert_array_equal(read(tmp_path / "out" / "x.nii.gz"), expected)


def test_folds_of_several_models(tmp_path: Path) -> None:
    models = [tmp_path / name for name in ("1", "2")]
    for model, split in zip(models, ((("x",), ("y", "z")), (("x", "z"), ("y",))), strict=True):
        write(model, {})
        for fold, cases in enumerate(split):
            write(model / f"fold_{fold}" / "validation", dict.fromkeys(cases, A if model is models[0] else B), {})
    ensemble_crossvalidations(models, tmp_path / "out", (0, 1), 0)
    names = ["dataset.json", "plans.json", "x.nii.gz", "y.nii.gz", "z.nii.gz"]
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == names
    assert read(tmp_path / "out" / "z.nii.gz").tolist() == [[[1, 0]]]
    (tmp_path / "out" / "x.nii.gz").write_bytes(b"kept")
    ensemble_crossvalidations(models, tmp_path / "out", (0, 1), 0, overwrite=False)
    assert (tmp_path / "out" / "x.nii.gz").read_bytes() == b"kept"
    with pytest.raises(DatasetError, match="1 has no probabilities of z, which other models have"):
        ensemble_crossvalidations([models[0], models[1]], tmp_path / "out", 0, 0)
    with pytest.raises(
        DatasetError, match="no probabilities of the validation of fold 2, 3; make them with .*--val --npz"
    ):
        ensemble_crossvalidations(models, tmp_path / "out", (0, 1, 2, 3), 0)
    write(models[0] / "fold_0" / "validation", {"y": A}, {})
    with pytest.raises(DatasetError, match="the same case in two folds"):
        ensemble_crossvalidations(models, tmp_path / "out", (0, 1), 0)


def test_workers_write_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = dict.fromkeys(("x", "y", "z"), A)
    folders = [write(tmp_path / name, cases) for name in ("1", "2")]
    ensemble_folders(folders, tmp_path / "here", True, 0)
    monkeypatch.setattr(ensemble, "_WORKER_START", 0)
    ensemble_folders(folders, tmp_path / "there", True, 2)
    for file in (tmp_path / "here").iterdir():
        assert file.read_bytes() == (tmp_path / "there" / file.name).read_bytes()


def test_what_is_refused(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1", {"x": A, "y": A}), write(tmp_path / "2", {"x": B, "z": B})
    out = tmp_path / "out"

    def refused(message: str, folders: Sequence[Path] = (one, two), kind: type[Exception] = DatasetError) -> None:
        with pytest.raises(kind, match=message):
            ensemble_folders(folders, out, False, 0)
        assert not out.exists()

    refused("name at least one with -i", [], ArgumentError)
    with pytest.raises(ArgumentError, match="No files to ensemble; name at least one"):
        average_probabilities([])
    with pytest.raises(ArgumentError, match="No models to ensemble; name at least one"):
        ensemble_crossvalidations([], out)
    refused("There is no folder .*nowhere", [one, tmp_path / "nowhere"])
    refused(r"different cases: .*1 has none of z; .*2 has none of y")
    for name in ("y", "z"):
        write(one, {name: A}), write(two, {name: B})
    other = json.dumps({**DOCUMENTS["dataset.json"], "labels": {"background": 0, "b": 1}})
    (two / "dataset.json").write_text(other)
    refused("has other labels than")
    (two / "dataset.json").write_text(json.dumps(DOCUMENTS["dataset.json"]))
    with pytest.raises(ArgumentError, match="one of the input folders"):
        ensemble_folders([one, two], two)
    (one / "plans.json").unlink()
    refused("There is no .*plans.json")
    write(one, {})
    (tmp_path / "empty").mkdir()
    refused(r"holds no probabilities \(\*.npz\); predict with --save_probabilities", [one, tmp_path / "empty"])


def test_a_folder_named_twice_counts_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, two = write(tmp_path / "1", {"x": A}), write(tmp_path / "2", {"x": B})
    ensemble_folders([one, two, one], tmp_path / "out", True, 0)
    assert f"-i names {one} twice" in caplog.text
    with np.load(tmp_path / "out" / "x.npz") as file:
        np.testing.assert_allclose(file["probabilities"], (2 * A + B) / 3, atol=1e-6)


def test_bad_cases_are_listed_and_the_others_done(tmp_path: Path) -> None:
    cases = dict.fromkeys("abcdefg", A)
    one, two = write(tmp_path / "1", cases), write(tmp_path / "2", cases)
    (two / "b.npz").write_bytes((two / "b.npz").read_bytes()[:60])
    (one / "c.pkl").unlink()
    write(two, {"d": np.zeros((2, 1, 1, 3), np.float32), "e": np.full_like(A, np.nan)})
    (one / "g.npz").write_bytes(b"no zip")
    with pytest.raises(DatasetError) as caught:
        ensemble_folders([one, two], tmp_path / "out", False, 0)
    lines = str(caught.value).splitlines()
    assert lines[0] == "5 of 7 cases failed:" and [line.split(":")[0].strip() for line in lines[1:]] == list("bcdeg")
    assert "b.npz is no readable file of probabilities" in lines[1] and "c.pkl, which holds the geometry" in lines[2]
    assert "they are not predictions of the same image" in lines[3] and "no probability (0 to 1)" in lines[4]
    assert lines[5].count("no readable file of probabilities") == 1
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["a.nii.gz", "f.nii.gz"]


def test_other_numbers_of_channels_than_labels(tmp_path: Path) -> None:
    file = write(tmp_path / "1", {"x": A}) / "x.npz"
    with pytest.raises(DatasetError, match="has 2 channels, the labels .* need 3"):
        merge_files(
            [file], tmp_path / "x", ".nii.gz", SimpleITKIO(), LabelManager({"background": 0, "a": 1, "b": 2}, None)
        )


BROKEN_DOCUMENTS = (b"", b"{", b"[]", b"null", b"3", b"{}", b"\xff\xfe", b"[" * 5000)


@pytest.mark.parametrize("name", ["dataset.json", "plans.json"])
@pytest.mark.parametrize("content", [*BROKEN_DOCUMENTS, b'{"labels": 3}', b'{"configurations": 3}'])
def test_broken_documents_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    folders = [write(tmp_path / "1", {"x": A}), write(tmp_path / "2", {"x": B})]
    for folder in folders if name == "dataset.json" else folders[:1]:
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        with pytest.raises(nnUNetError, match=name if name == "dataset.json" else "plans"):
            ensemble_folders(folders, tmp_path / "out", False, 0)
        assert not (tmp_path / "out").exists()
        (folder / name).write_bytes(before)


def _geometry(**changes: Any) -> dict[str, Any]:
    return {"sitk_stuff": {**STUFF, **changes}, "spacing": [3.0, 2.0, 1.0]}


@pytest.mark.parametrize(
    "properties", [[], None, "x", {}, {"sitk_stuff": 3}, {"sitk_stuff": {}}, _geometry(spacing=(1, 2, "a"))]
)
def test_geometry_that_is_none(tmp_path: Path, properties: Any) -> None:
    folders = [write(tmp_path / name, {"x": A}) for name in ("1", "2")]
    save_pickle(properties, folders[0] / "x.pkl")
    with pytest.raises(nnUNetError, match=r"x\.pkl (holds|does not hold) .*geometry|does not know its geometry"):
        ensemble_folders(folders, tmp_path / "out", True, 0)
    assert not (tmp_path / "out" / "x.nii.gz").exists()


def test_members_of_different_spacing(tmp_path: Path) -> None:
    folders = [write(tmp_path / name, {"x": A}) for name in ("1", "2")]
    save_pickle({**PROPERTIES, "spacing": [3.0, 2.0, 1.5]}, folders[1] / "x.pkl")
    with pytest.raises(DatasetError, match=r"2/x.pkl says spacing \[3.0, 2.0, 1.5\], .*1/x.pkl says"):
        ensemble_folders(folders, tmp_path / "out", False, 0)
    (folders[1] / "x.pkl").unlink()  # only the first one's is needed
    ensemble_folders(folders, tmp_path / "out", False, 0)


@pytest.mark.parametrize("values", [A * 1000, -3 * A, np.full_like(A, np.inf)])
def test_values_that_are_no_probabilities(tmp_path: Path, values: NDArray[Any]) -> None:
    folders = [write(tmp_path / "1", {"x": A}), write(tmp_path / "2", {"x": values})]
    with pytest.raises(DatasetError, match=r"no probability \(0 to 1\)"):
        ensemble_folders(folders, tmp_path / "out", True, 0)
    assert not list((tmp_path / "out").glob("*"))


def test_random_damage_is_said_in_one_line(tmp_path: Path) -> None:
    folders = [write(tmp_path / name, {"x": A}) for name in ("1", "2")]
    whole = (folders[1] / "x.npz").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for position in rng.integers(0, len(whole), rng.integers(1, 4)):
            damaged[position] = rng.integers(0, 256)
        (folders[1] / "x.npz").write_bytes(damaged)
        try:
            ensemble_folders(folders, tmp_path / "out", False, 0)
        except nnUNetError as error:
            refused += 1
            assert "2/x.npz" in str(error) and len(str(error).splitlines()) == 1
    assert refused > 100


def test_a_worker_deflates_with_its_share_of_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []

    def stream(*arguments: Any) -> Any:
        used.append(arguments[-1])
        return npz_stream(*arguments)

    monkeypatch.setattr(ensemble, "npz_stream", stream)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as the pool sets it in its workers
    monkeypatch.setattr("nnunet_lite.configuration.cpu_count", lambda: 32)
    folders = [write(tmp_path / name, {"x": A}) for name in "12"]
    ensemble_folders(folders, tmp_path / "out", True, 0)
    assert used == [1]
