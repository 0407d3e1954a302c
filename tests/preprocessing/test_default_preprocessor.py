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
