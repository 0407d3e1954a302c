"""One case: fixture C of spec 01, 9.8, and recordings of upstream; all cases of a dataset: resuming and refusals."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import make_dataset, write_image

from nnunet_lite.exceptions import DatasetError, PathError
from nnunet_lite.plans.label_manager import convert_labelmap_to_one_hot
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.preprocessing.default_preprocessor import DefaultPreprocessor
from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2

CASES = 3
RESAMPLING = {"order_z": 0, "force_separate_z": None}
CONFIGURATION: dict[str, Any] = {
    "data_identifier": "nnUNetPlans_3d_fullres",
    "preprocessor_name": "DefaultPreprocessor",
    "patch_size": [16, 24, 20],
    "spacing": [1.0, 1.0, 1.0],
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [False],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **RESAMPLING},
    "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **RESAMPLING},
}
LABELS = {"labels": {"background": 0, "outer": 1, "inner": 2}, "channel_names": {"0": "MRI"}, "file_ending": ".nii.gz"}


def _plans(transpose: tuple[int, ...] = (0, 1, 2), **changes: Any) -> PlansManager:
    return PlansManager(
        {
            "dataset_name": "Dataset901_Tiny",
            "plans_name": "nnUNetPlans",
            "transpose_forward": list(transpose),
            "transpose_backward": [transpose.index(axis) for axis in range(3)],
            "image_reader_writer": "SimpleITKIO",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {},
            "configurations": {"3d_fullres": {**copy.deepcopy(CONFIGURATION), **changes}},
        }
    )


def _fixture_c() -> tuple[np.ndarray, np.ndarray]:
    data = np.arange(1, 145, dtype=np.float32).reshape(1, 4, 6, 6)
    seg = np.zeros((1, 4, 6, 6), np.uint8)
    seg[0, 1:3, 1:4, 1:4] = 1
    seg[0, 2, 2, 2] = 2
    return data, seg


def _run(
    data: np.ndarray, seg: np.ndarray | None, spacing: list[float], plans: PlansManager, **kwargs: Any
) -> tuple[Any, Any, Any]:
    return DefaultPreprocessor(verbose=False).run_case_npy(
        data, seg, {"spacing": spacing}, plans, plans.get_configuration("3d_fullres"), LABELS, **kwargs
    )


def test_separate_axis_from_the_target_spacing() -> None:
    source = _fixture_c()
    data, seg, properties = _run(*source, [3.5, 1.25, 1.25], _plans(spacing=[3.5, 1.0, 1.0]))
    assert data.shape == seg.shape == (1, 4, 8, 8) and data.dtype == np.float32
    expected = [-1.72006, -1.71373, -1.69365, -1.67618, -1.65803, -1.64056, -1.62048, -1.60576]
    np.testing.assert_allclose(data[0, 0, 0], expected, atol=1e-5)
    np.testing.assert_allclose(data[0, -1, -1], [-value for value in reversed(expected)], atol=1e-5)
    assert [int((seg == label).sum()) for label in (1, 2)] == [29, 1]
    assert properties["class_locations"][2].tolist() == [[0, 2, 3, 3]]
    np.testing.assert_array_equal(source[0], _fixture_c()[0])  # arguments stay as they were


@pytest.mark.parametrize(
    ("spacing", "target", "column", "counts"),
    [
        (
            [3.5, 1.25, 1.25],
            [2.0, 1, 1],
            [-1.72006, -1.48879, -0.9315, -0.42937, 0.07275, 0.63004, 0.93235],
            [403, 44, 1],
        ),
        ([1.25] * 3, [1.0] * 3, [-1.72006, -1.16145, -0.42937, 0.30271, 0.90651], [287, 32, 1]),
    ],
)
def test_all_axes_together(spacing: list[float], target: list[float], column: list[float], counts: list[int]) -> None:
    data, seg, _ = _run(*_fixture_c(), spacing, _plans(spacing=target))
    np.testing.assert_allclose(data[0, :, 0, 0], column, atol=1e-5)
    assert [int((seg == label).sum()) for label in (0, 1, 2)] == counts


def test_transposed_case() -> None:
    data, seg = (array.transpose(0, 2, 3, 1) for array in _fixture_c())
    out, _, properties = _run(data, seg, [1.25, 1.25, 3.5], _plans((2, 0, 1), spacing=[3.5, 1.0, 1.0]))
    assert out.shape == (1, 4, 8, 8)
    assert properties["shape_before_cropping"] == (4, 6, 6) and properties["spacing"] == [1.25, 1.25, 3.5]


def test_prediction_needs_no_mask_and_no_locations() -> None:
    data, seg = _fixture_c()
    _, nothing, properties = _run(data, None, [1.0] * 3, _plans())
    assert nothing is None and "class_locations" not in properties
    _, previous, properties = _run(data, seg, [1.0] * 3, _plans(), with_class_locations=False)
    assert previous.dtype == np.int8 and "class_locations" not in properties


def test_masked_normalization_at_prediction_equals_training() -> None:
    data, seg = _fixture_c()
    data[0, 0, 0] = 0
    trained, _, _ = _run(data, seg, [1.0] * 3, _plans(use_mask_for_norm=[True]))
    predicted, _, _ = _run(data, None, [1.0] * 3, _plans(use_mask_for_norm=[True]))
    np.testing.assert_array_equal(trained, predicted)
    assert not trained[0, 0, 0].any()


def test_what_cannot_be_preprocessed_is_named() -> None:
    data, seg = _fixture_c()
    with pytest.raises(DatasetError, match=r"\(4, 6, 6\) and \(4, 6, 5\)"):
        _run(data, seg[..., :-1], [1.0] * 3, _plans())
    with pytest.raises(DatasetError, match="label 3, dataset.json knows labels up to 2"):
        _run(data, seg + 1, [1.0] * 3, _plans())
    with pytest.raises(DatasetError, match="2 channels, the plans know 1"):
        _run(np.concatenate((data, data)), seg, [1.0] * 3, _plans())
    data[0, 1, 1, 1] = np.inf
    with pytest.raises(DatasetError, match="channel 0 holds NaN or infinite"):
        _run(data, seg, [1.0] * 3, _plans())


@pytest.mark.parametrize(
    ("dataset", "configuration", "case"),
    [
        ("Dataset004_Hippocampus", "2d", "hippocampus_001"),
        ("Dataset004_Hippocampus", "3d_fullres", "hippocampus_003"),
        ("Dataset004_Hippocampus", "3d_fullres", "hippocampus_004"),
    ],
)
def test_recorded_cases(goldens: Path, shared_data: Path, dataset: str, configuration: str, case: str) -> None:
    recorded = goldens / dataset
    plans = PlansManager(recorded / "nnUNetPlans.json")
    raw = shared_data / dataset
    data, seg, properties = DefaultPreprocessor(False).run_case(
        [str(raw / "imagesTr" / f"{case}_0000.nii.gz")],
        str(raw / "labelsTr" / f"{case}.nii.gz"),
        plans,
        plans.get_configuration(configuration),
        str(recorded / "dataset.json"),
    )
    with np.load(recorded / "preprocessed" / f"{configuration}_{case}.npz") as expected:
        np.testing.assert_allclose(data, expected["data"], atol=1e-5)
        np.testing.assert_array_equal(seg, expected["seg"])
    content = json.loads((goldens / "preprocessed_content_sha256.json").read_text())
    entry = content[f"{dataset}/{plans.get_configuration(configuration).data_identifier}/{case}"]
    assert hashlib.sha256(seg.astype(np.int16).tobytes()).hexdigest() == entry["seg"]
    assert sorted(properties) == entry["keys"]


@pytest.fixture
def prepared(nnunet_folders: Any) -> tuple[Path, Path]:
    """A raw dataset with plans: its raw folder, and the folder its cases will be stored in."""
    raw = make_dataset(nnunet_folders.raw, n=CASES, shape=(8, 12, 10))
    folder = nnunet_folders.preprocessed / raw.name
    folder.mkdir()
    (folder / "dataset.json").write_text((raw / "dataset.json").read_text())
    (folder / "nnUNetPlans.json").write_text(json.dumps(_plans().plans))
    return raw, folder / "nnUNetPlans_3d_fullres"


def _preprocess() -> None:
    DefaultPreprocessor(verbose=False).run(901, "3d_fullres", "nnUNetPlans", 0)


def _times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in sorted(folder.iterdir())}


def test_running_again_changes_nothing(prepared: tuple[Path, Path]) -> None:
    _, folder = prepared
    _preprocess()
    before = _times(folder)
    assert len(before) == 3 * CASES and nnUNetDatasetBlosc2.get_identifiers(folder) == ["case_00", "case_01", "case_02"]
    _preprocess()
    assert _times(folder) == before


def test_only_what_is_stale_or_damaged_is_made_again(prepared: tuple[Path, Path]) -> None:
    raw, folder = prepared
    _preprocess()
    before = _times(folder)
    (folder / "case_00_seg.b2nd").write_bytes(b"cut")
    (folder / "case_01.pkl").unlink()
    for leftover in ("gone.b2nd", "gone_seg.b2nd", "gone.pkl", ".0a1b.tmp.case_02.b2nd"):
        (folder / leftover).write_bytes(b"")
    (folder / "notes.txt").write_text("mine")
    _preprocess()
    after = _times(folder)
    assert set(after) == {*before, "notes.txt"}
    changed = {name for name in before if after[name] != before[name]}
    assert {name.split(".")[0].removesuffix("_seg") for name in changed} == {"case_00", "case_01"}

    label = raw / "labelsTr" / "case_02.nii.gz"
    write_image(label, np.zeros(nnUNetDatasetBlosc2(folder)["case_02"][1].shape[1:], np.uint8), (1, 1, 1))
    _preprocess()
    assert not nnUNetDatasetBlosc2(folder)["case_02"][1][:].any()


def test_other_plans_make_everything_again_and_removed_cases_go(prepared: tuple[Path, Path]) -> None:
    raw, folder = prepared
    _preprocess()
    before = _times(folder)
    (folder.parent / "nnUNetPlans.json").write_text(json.dumps(_plans(spacing=[1.0, 2.0, 2.0]).plans))
    for part in ("imagesTr/case_02_0000.nii.gz", "labelsTr/case_02.nii.gz"):
        (raw / part).unlink()
    _preprocess()
    after = _times(folder)
    assert set(after) == {name for name in before if not name.startswith("case_02")}
    assert all(after[name] != before[name] for name in after)


def test_one_bad_case_is_named_and_the_others_are_done(prepared: tuple[Path, Path]) -> None:
    raw, folder = prepared
    shape = (8, 12, 10)
    write_image(raw / "imagesTr" / "case_01_0000.nii.gz", np.ones(shape, np.float32), (1, 1, 1))
    write_image(raw / "labelsTr" / "case_01.nii.gz", np.full(shape, 7, np.uint8), (1, 1, 1))
    with pytest.raises(DatasetError, match=r"case_01_0000\.nii\.gz: the segmentation holds label 7"):
        _preprocess()
    assert nnUNetDatasetBlosc2.get_identifiers(folder) == ["case_00", "case_02"]


def test_missing_plan_and_forbidden_names(prepared: tuple[Path, Path]) -> None:
    raw, folder = prepared
    for part in ("imagesTr/case_02{}.nii.gz", "labelsTr/case_02{}.nii.gz"):
        channel = "_0000" if part.startswith("images") else ""
        (raw / part.format(channel)).rename(raw / part.replace("case_02", "case_02_seg").format(channel))
    with pytest.raises(DatasetError, match="case_02_seg"):
        _preprocess()
    (folder.parent / "dataset.json").unlink()
    with pytest.raises(PathError, match="nnUNetv2_plan_and_preprocess"):
        _preprocess()


def _run_with(document: dict[str, Any], data: np.ndarray, seg: np.ndarray, plans: PlansManager) -> tuple[Any, Any, Any]:
    return DefaultPreprocessor(verbose=False).run_case_npy(
        data, seg, {"spacing": [1.0] * 3}, plans, plans.get_configuration("3d_fullres"), document
    )


@pytest.mark.parametrize(
    ("labels", "keys"),
    [
        ({"background": 0, "w": [1, 2], "c": 2, "ignore": 3}, [(1, 2), 2, (-1, 0, 1, 2)]),
        ({"background": 0, "w": [1, 2], "c": [2]}, [(1, 2), (2,)]),
        ({"background": 0, "a": 1, "b": 2, "ignore": 3}, [1, 2, (-1, 0, 1, 2)]),
    ],
)
def test_classes_whose_voxels_are_stored(labels: dict[str, Any], keys: list[Any]) -> None:
    data, seg = _fixture_c()
    data[0, 0, 0, 0] = 0  # outside: -1, which belongs to the annotated area
    seg[0, 3] = 3 if "ignore" in labels else 0
    document = (
        {"labels": labels, "regions_class_order": [1, 2]} if isinstance(labels.get("w"), list) else {"labels": labels}
    )
    _, stored, properties = _run_with(document, data, seg, _plans())
    found = properties["class_locations"]
    assert list(found) == keys
    for key, places in found.items():
        assert set(stored[tuple(places.T)].tolist()) <= set(key if isinstance(key, tuple) else (key,))
    if "ignore" in labels:
        assert len(found[-1, 0, 1, 2]) == 144 - 36 and stored[0, 0, 0, 0] == -1


@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "RescaleTo01Normalization", "NoNormalization"])
@pytest.mark.parametrize("use_mask", [False, True])
def test_images_without_any_structure(scheme: str, use_mask: bool) -> None:
    plans = _plans(normalization_schemes=[scheme], use_mask_for_norm=[use_mask], spacing=[0.8, 1.25, 1.0])
    data, seg, properties = _run(np.zeros((1, 4, 4, 4), np.float32), np.zeros((1, 4, 4, 4)), [1.0] * 3, plans)
    assert data.shape == (1, 5, 3, 4) and not data.any() and (seg == -1).all()
    assert properties["bbox_used_for_cropping"] == [[0, 4]] * 3
    assert properties["class_locations"] == {1: [], 2: []}
    constant, seg, _ = _run(np.full((1, 4, 4, 4), 7, np.float32), np.zeros((1, 4, 4, 4), np.uint8), [1.0] * 3, plans)
    assert (constant == (7 if scheme == "NoNormalization" else 0)).all() and not seg.any()


def test_an_axis_never_vanishes() -> None:
    data, seg, _ = _run(*_fixture_c(), [1.0] * 3, _plans(spacing=[9.0, 9.0, 9.0]))
    assert data.shape == seg.shape == (1, 1, 1, 1) and np.isfinite(data).all()


def test_a_2d_configuration_keeps_the_slices_and_so_does_a_spacing_without_number() -> None:
    source = _fixture_c()
    thick, flat = [6.5, 1.25, 1.25], [999 * 1.25, 1.25, 1.25]
    for spacing in (thick, flat):
        data, seg, _ = _run(*source, spacing, _plans(spacing=[1.0, 1.0]))
        assert data.shape == (1, 4, 8, 8)
        alone, _, _ = _run(source[0][:, :1], source[1][:, :1], flat, _plans(spacing=[1.0, 1.0]))
        assert alone.shape == (1, 1, 8, 8) and alone.std() > 0
    data, _, _ = _run(*source, thick, _plans(spacing=[None, 1.0, 1.0]))
    assert data.shape == (1, 4, 8, 8)
    data, seg, _ = _run(*source, thick, _plans(spacing=[None] * 3))
    np.testing.assert_array_equal(seg, source[1])


@pytest.mark.parametrize(("target", "slices"), [(3.25, [0, 0, 1, 1, 2, 2, 3, 3]), (13.0, [1, 3])])
def test_thick_slices_are_selected_not_mixed(target: float, slices: list[int]) -> None:
    data = np.repeat(np.arange(1, 5, dtype=np.float32), 36).reshape(1, 4, 6, 6)
    seg = np.repeat(np.array([1, 0, 2, 1], np.uint8), 36).reshape(1, 4, 6, 6)
    plans = _plans(spacing=[target, 1.0, 1.0], normalization_schemes=["NoNormalization"])
    data, seg, _ = _run(data, seg, [6.5, 1.25, 1.25], plans)
    assert data[0, :, 3, 3].tolist() == [index + 1 for index in slices]
    assert seg[0, :, 3, 3].tolist() == [[1, 0, 2, 1][index] for index in slices]


def test_a_previous_stage_is_marked_outside_and_resampled() -> None:
    data, seg = _fixture_c()
    data[0, :, :, 5] = 0
    data[0, 2, 2, 5] = 1  # the box keeps the column, most of it outside
    _, previous, _ = _run(data, seg, [1.25] * 3, _plans(), with_class_locations=False)
    _, reference, _ = _run(data, seg, [1.25] * 3, _plans())
    np.testing.assert_array_equal(previous, reference)
    assert set(np.unique(previous)) == {-1, 0, 1, 2}
    one_hot = convert_labelmap_to_one_hot(previous[0], [1, 2], np.float32)
    assert not one_hot[:, previous[0] == -1].any() and one_hot.sum() == (previous > 0).sum()


@pytest.mark.parametrize("kind", ["float32", "float64", "bool", "uint8", "int64", "uint16"])
def test_labels_of_every_number_type(kind: str) -> None:
    data, seg = _fixture_c()
    seg = seg.clip(0, 1) if kind == "bool" else seg
    _, stored, _ = _run(data, seg.astype(kind), [1.0] * 3, _plans())
    assert stored.dtype == np.int8
    np.testing.assert_array_equal(stored, seg)


def test_large_labels() -> None:
    data, seg = _fixture_c()
    for largest, kind in ((127, np.int8), (128, np.int16), (32767, np.int16)):
        document = {"labels": {"background": 0, **{f"l{value}": value for value in range(1, largest + 1)}}}
        _, stored, properties = _run_with(document, data, np.where(seg == 2, largest, 0), _plans())
        assert stored.dtype == kind and stored.max() == largest and len(properties["class_locations"][largest]) == 1
    document["labels"]["l32768"] = 32768
    with pytest.raises(DatasetError, match="label 32768 is too large to be stored, expected at most 32767"):
        _run_with(document, data, np.where(seg == 2, 32768, 0), _plans())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seg": 0.5}, "0.5 in a label map; every voxel needs the whole number"),
        ({"seg": np.nan}, "NaN or infinity in a label map"),
        ({"seg": -2}, "holds label -2"),
        ({"seg": 10**12}, "holds label 1000000000000"),
        ({"spacing": [1.0, 0.0, 1.0]}, r"spacing \[1.0, 0.0, 1.0\], expected three positive numbers"),
        ({"spacing": [1.0, 1.0]}, "expected three positive numbers"),
        ({"spacing": [1.0, np.nan, 1.0]}, "expected three positive numbers"),
        ({"shape": (1, 0, 6, 6)}, r"shape \(1, 0, 6, 6\), expected .* at least one voxel"),
        ({"shape": (4, 6, 6)}, r"shape \(4, 6, 6\), expected \(c, x, y, z\)"),
        ({"seg_shape": (2, 4, 6, 6)}, r"expected \(1, x, y, z\)"),
        ({"spacing": [1e4] * 3}, r"would turn shape \(4, 6, 6\) into \(40000, 60000, 60000\), .*; correct the spacing"),
    ],
)
def test_arrays_that_cannot_be_preprocessed(change: dict[str, Any], message: str) -> None:
    data = np.ones(change.get("shape", (1, 4, 6, 6)), np.float32)
    seg = np.full(change.get("seg_shape", (1, 4, 6, 6)), change.get("seg", 0))
    with pytest.raises(DatasetError, match=message):
        _run(data, seg, change.get("spacing", [1.0] * 3), _plans())
