"""Preprocessed cases on disk: round trips, both formats, clear messages, nothing half-written."""

from __future__ import annotations

import pickle
from pathlib import Path

import blosc2
import numpy as np
import pytest

from nnunet_lite.exceptions import DatasetError, StorageError
from nnunet_lite.preprocessing import preprocessed_dataset
from nnunet_lite.preprocessing.preprocessed_dataset import (
    infer_dataset_class,
    nnUNetDatasetBlosc2,
    nnUNetDatasetNumpy,
)

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(2, 9, 35, 33)).astype(np.float32)
SEG = RNG.integers(-1, 3, size=(1, 9, 35, 33)).astype(np.int8)
PROPERTIES = {"spacing": [3.0, 1.0, 1.0], "class_locations": {1: np.arange(8).reshape(2, 4), (1, 2): []}}


def test_blosc2_round_trip(tmp_path: Path) -> None:
    nnUNetDatasetBlosc2.save_case(DATA, SEG, PROPERTIES, tmp_path / "case_02")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["case_02.b2nd", "case_02.pkl", "case_02_seg.b2nd"]
    data, seg, previous, properties = nnUNetDatasetBlosc2(tmp_path)["case_02"]
    np.testing.assert_array_equal(data[:], DATA)
    np.testing.assert_array_equal(seg[:], SEG)
    assert (data.dtype, seg.dtype, previous) == (np.float32, np.int16, None)
    assert properties["class_locations"][1].shape == (2, 4) and properties["spacing"] == [3.0, 1.0, 1.0]


def test_codec_level_filter_and_layout_are_those_of_upstream(tmp_path: Path) -> None:
    nnUNetDatasetBlosc2.save_case(DATA, SEG, {}, tmp_path / "case", chunks=(1, 9, 35, 33), blocks=(1, 9, 35, 32))
    data, seg, _, _ = nnUNetDatasetBlosc2(tmp_path).load_case("case")
    assert data.chunks == (1, 9, 35, 33) and data.blocks == (1, 9, 35, 32)
    for array in (data, seg):
        cparams = array.schunk.cparams
        assert cparams.codec == blosc2.Codec.LZ4HC and cparams.clevel == 1
        assert set(cparams.filters[1:]) <= {blosc2.Filter.NOFILTER}


def test_properties_are_plain_and_read_safely(tmp_path: Path) -> None:
    nnUNetDatasetBlosc2.save_case(DATA, SEG, PROPERTIES, tmp_path / "a")
    assert pickle.loads((tmp_path / "a.pkl").read_bytes())["spacing"] == [3.0, 1.0, 1.0]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Path))
    with pytest.raises(StorageError, match="a.pkl"):
        nnUNetDatasetBlosc2(tmp_path).load_case("a")


def test_cached_properties_are_not_shared(tmp_path: Path) -> None:
    nnUNetDatasetBlosc2.save_case(DATA, SEG, PROPERTIES, tmp_path / "a")
    dataset = nnUNetDatasetBlosc2(tmp_path)
    dataset["a"][3]["spacing"] = None
    assert dataset["a"][3]["spacing"] == [3.0, 1.0, 1.0]


def test_previous_stage_and_identifiers(tmp_path: Path) -> None:
    for name in ("b", "a"):
        nnUNetDatasetBlosc2.save_case(DATA, SEG, {}, tmp_path / "now" / name)
    nnUNetDatasetBlosc2.save_seg(SEG[0].astype(np.uint8), tmp_path / "before" / "a")
    (tmp_path / "now" / "notes.txt").write_text("x")
    (tmp_path / "now" / ".0000.tmp.a.b2nd").write_text("x")
    dataset = nnUNetDatasetBlosc2(tmp_path / "now", None, tmp_path / "before")
    assert dataset.identifiers == ["a", "b"]
    np.testing.assert_array_equal(dataset["a"][2][:], SEG[0].astype(np.uint8))
    with pytest.raises(DatasetError, match=r"b\.b2nd is missing .*previous stage"):
        dataset.load_case("b")
    assert infer_dataset_class(tmp_path / "now") is nnUNetDatasetBlosc2


def test_numpy_format_packed_and_unpacked(tmp_path: Path) -> None:
    nnUNetDatasetNumpy.save_case(DATA, SEG, PROPERTIES, tmp_path / "a")
    assert infer_dataset_class(tmp_path) is nnUNetDatasetNumpy
    packed = nnUNetDatasetNumpy(tmp_path)["a"]
    preprocessed_dataset._unpack(str(tmp_path / "a.npz"), False)
    unpacked = nnUNetDatasetNumpy(tmp_path)["a"]
    assert isinstance(unpacked[0], np.memmap) and unpacked[3]["spacing"] == [3.0, 1.0, 1.0]
    for array, again, expected in zip(packed[:2], unpacked[:2], (DATA, SEG), strict=True):
        np.testing.assert_array_equal(array, expected)
        np.testing.assert_array_equal(again, expected)
    assert nnUNetDatasetNumpy.get_identifiers(tmp_path) == ["a"]
    (tmp_path / "a.npy").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match="a.npy cannot be read"):
        nnUNetDatasetNumpy(tmp_path).load_case("a")


def test_folders_that_hold_nothing_or_both(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(DatasetError, match="no preprocessed cases"):
        infer_dataset_class(tmp_path)
    with pytest.raises(DatasetError, match="no folder"):
        nnUNetDatasetBlosc2(tmp_path / "nowhere")
    for name in ("a.b2nd", "b.npz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DatasetError, match=r"holds \.b2nd and \.npz"):
        infer_dataset_class(tmp_path)
    with pytest.raises(DatasetError, match=r"a\.b2nd is damaged"):
        nnUNetDatasetBlosc2(tmp_path).load_case("a")
    with pytest.raises(DatasetError, match=r"c\.b2nd is missing .*nnUNetv2_preprocess"):
        nnUNetDatasetBlosc2(tmp_path).load_case("c")


def test_a_failed_write_leaves_no_marker_and_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nnUNetDatasetBlosc2.save_case(DATA, SEG, {"old": 1}, tmp_path / "a")

    def full(content: bytes, path: object) -> None:
        raise StorageError("No space left on the disk")

    monkeypatch.setattr(preprocessed_dataset, "write_bytes", full)
    with pytest.raises(StorageError):
        nnUNetDatasetBlosc2.save_case(DATA + 1, SEG, {}, tmp_path / "a")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.b2nd", "a_seg.b2nd"]


def test_a_label_map_of_another_shape_than_its_image_is_named(tmp_path: Path) -> None:
    nnUNetDatasetBlosc2.save_case(DATA, SEG, PROPERTIES, tmp_path / "case_1")
    nnUNetDatasetBlosc2.save_case(DATA, SEG, PROPERTIES, tmp_path / "case_2")
    nnUNetDatasetBlosc2(tmp_path).require_complete()
    nnUNetDatasetBlosc2.save_case(DATA, SEG[:, 1:], PROPERTIES, tmp_path / "case_2")
    with pytest.raises(DatasetError, match=r"1 of 2 cases are incomplete or damaged \(case_2\)"):
        nnUNetDatasetBlosc2(tmp_path).require_complete()


def test_the_shape_of_a_packed_case_is_known_without_its_voxels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nnUNetDatasetNumpy.save_case(DATA, SEG, PROPERTIES, tmp_path / "a")
    np.savez_compressed(tmp_path / "odd.npz", data=np.asfortranarray(DATA), seg=SEG)  # not one of ours
    (tmp_path / "broken.npz").write_bytes(b"PK")
    dataset = nnUNetDatasetNumpy(tmp_path)
    assert dataset.shape_of("odd") == DATA.shape
    with pytest.raises(DatasetError, match=r"broken\.npz cannot be read"):
        dataset.shape_of("broken")
    nnUNetDatasetBlosc2.save_case(DATA, SEG, PROPERTIES, tmp_path / "b")
    assert nnUNetDatasetBlosc2(tmp_path).shape_of("b") == DATA.shape

    def refuse(*_: object) -> None:
        raise AssertionError("voxels were read")

    monkeypatch.setattr(nnUNetDatasetNumpy, "load_arrays", refuse)
    assert dataset.shape_of("a") == DATA.shape
