"""Export against recorded values of nnU-Net v2 2.8.1 (spec 03, 11.6) and against resizing everything first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nnunet_lite.exceptions import DatasetError, StorageError
from nnunet_lite.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
    export_prediction_from_logits,
    resample_and_save,
)
from nnunet_lite.inference.logit_reduction import reduce_logits
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.preprocessing.interpolation import interpolation_plan
from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetNumpy
from nnunet_lite.preprocessing.resampling import resample_data_or_seg_to_shape
from nnunet_lite.utilities.files import load_pickle

LINEAR = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
LINEAR_NAME = "resample_data_or_seg_to_shape"
TORCH = {"is_seg": False, "force_separate_z": None, "memefficient_seg_resampling": False}


def plans(
    spacing: list[float],
    transpose: tuple[int, ...] = (0, 1, 2),
    function: str = "resample_data_or_seg_to_shape",
    arguments: dict[str, Any] = LINEAR,
) -> PlansManager:
    return PlansManager(
        {
            "dataset_name": "Dataset001_X",
            "plans_name": "nnUNetPlans",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": list(transpose),
            "transpose_backward": [transpose.index(axis) for axis in range(3)],
            "label_manager": "LabelManager",
            "configurations": {
                "c": {
                    "spacing": spacing,
                    "resampling_fn_probabilities": function,
                    "resampling_fn_probabilities_kwargs": arguments,
                    "architecture": {},
                    "patch_size": [4, 4, 4],
                }
            },
        }
    )


def labels_of(count: int) -> dict[str, Any]:
    return {"labels": {"background": 0, **{f"l{i}": i for i in range(1, count)}}, "file_ending": ".nii.gz"}


def uncropped(shape: tuple[int, ...], spacing: list[float]) -> dict[str, Any]:
    return {
        "spacing": spacing,
        "shape_before_cropping": shape,
        "bbox_used_for_cropping": [[0, n] for n in shape],
        "shape_after_cropping_and_before_resampling": shape,
    }


def convert(
    logits: Any, manager: PlansManager, dataset_json: dict[str, Any], properties: dict[str, Any], **options: Any
) -> Any:
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, manager, manager.get_configuration("c"), manager.get_label_manager(dataset_json), properties, **options
    )


def test_linear_interpolation_between_two_voxels():
    logits = np.zeros((2, 2, 1, 1), np.float16)
    logits[1, :, 0, 0] = [-1, 3]
    properties = uncropped((4, 1, 1), [0.5, 1, 1])
    seg, probabilities = convert(logits, plans([1, 1, 1]), labels_of(2), properties, return_probabilities=True)
    assert seg.dtype == np.uint8 and seg[:, 0, 0].tolist() == [0, 0, 1, 1]
    assert probabilities.dtype == np.float32
    assert probabilities[1, :, 0, 0] == pytest.approx([0.26894143, 0.5, 0.88079703, 0.95257413], abs=1e-6)


@pytest.mark.parametrize(("spacing", "expected"), [([5, 1, 1], [0, 0, 1, 1]), ([2, 1, 1], [0, 0.25, 0.75, 1])])
def test_thick_slices_are_selected_others_interpolated(spacing, expected):
    logits = torch.zeros(2, 2, 2, 2, dtype=torch.float16)
    logits[1, 1] = 1
    properties = uncropped((4, 2, 2), [spacing[0] / 2, 1, 1])
    _, probabilities = convert(logits, plans(spacing), labels_of(2), properties, return_probabilities=True)
    assert np.log(probabilities[1, :, 0, 0] / probabilities[0, :, 0, 0]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("size_in", "size_out", "index"),
    [
        (2, 1, [1]),
        (4, 2, [1, 3]),
        (3, 2, [0, 2]),
        (5, 3, [0, 2, 4]),
    ],
)
def test_index_of_selected_slices(size_in, size_out, index):
    labels = np.zeros((size_out, 2, 2), np.uint8)
    logits = torch.eye(size_in)[:, :, None, None].expand(-1, -1, 2, 2)
    plan = interpolation_plan((size_in, 2, 2), (size_out, 2, 2), (5, 1, 1), (5, 1, 1), 1, 0, None)
    reduce_logits(logits, plan, LabelManager(labels_of(size_in)["labels"], None), labels)
    assert labels[:, 0, 0].tolist() == index


REGIONS = {
    "labels": {"background": 0, "whole": [1, 2], "core": 2},
    "regions_class_order": [1, 2],
    "file_ending": ".nii.gz",
}
SPACINGS = [
    ([1.0, 1, 1], [0.7, 1.2, 0.8]),
    ([4.0, 1, 1], [2.5, 0.8, 0.9]),
    ([1.0, 1, 5], [0.8, 0.8, 4.0]),
    ([1.0, 4, 1], [1.3, 2.5, 0.8]),
    ([1.0, 1, 1], [1.0, 0.8, 1.0]),
]


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize(("current", "new"), SPACINGS)
@pytest.mark.parametrize("dataset_json", [labels_of(4), REGIONS], ids=["labels", "regions"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_same_as_resizing_everything_first(transpose, current, new, dataset_json, dtype):
    manager = plans(current, transpose)
    label_manager = manager.get_label_manager(dataset_json)
    generator = torch.Generator().manual_seed(1)
    size = (9, 11, 10)
    logits = (3 * torch.randn((label_manager.num_segmentation_heads, *size), generator=generator)).to(dtype)
    shape = tuple(round(n * c / t) for n, c, t in zip(size, current, new, strict=True))
    before = (shape[0] + 2, shape[1] + 3, shape[2])
    properties = {
        "spacing": [new[transpose.index(axis)] for axis in range(3)],
        "shape_before_cropping": before,
        "bbox_used_for_cropping": [[2, before[0]], [1, before[1] - 2], [0, before[2]]],
        "shape_after_cropping_and_before_resampling": shape,
    }
    resized = resample_data_or_seg_to_shape(logits.double().numpy(), shape, current, new, **LINEAR)
    resized = resized.astype(logits.numpy().dtype)
    backward = [transpose.index(axis) for axis in range(3)]
    expected = np.zeros(before, np.uint8)
    inside = tuple(slice(*limits) for limits in properties["bbox_used_for_cropping"])
    expected[inside] = label_manager.convert_logits_to_segmentation(resized)
    inner = label_manager.apply_inference_nonlin(resized).numpy()
    expected_probabilities = label_manager.revert_cropping_on_probabilities(
        inner, properties["bbox_used_for_cropping"], before
    ).transpose([0, *(axis + 1 for axis in backward)])

    seg, probabilities = convert(logits, manager, dataset_json, properties, return_probabilities=True)
    assert seg.shape == tuple(before[axis] for axis in backward) == probabilities.shape[1:]
    assert np.mean(seg != expected.transpose(backward)) < 2e-3  # near-ties of random numbers
    assert np.abs(probabilities - expected_probabilities).max() < 2e-3
    assert np.array_equal(convert(logits, manager, dataset_json, properties, num_threads_torch=2), seg)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("resample_torch_fornnunet", TORCH),
        ("resample_data_or_seg_to_shape", {**LINEAR, "order": 0}),
        ("resample_data_or_seg_to_shape", {**LINEAR, "order": 3}),
    ],
)
def test_other_resampling_functions(function, arguments):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn((3, 6, 7, 8), generator=generator)
    manager = plans([1, 1, 1], function=function, arguments=arguments)
    resize = manager.get_configuration("c").resampling_fn_probabilities
    resized = np.asarray(resize(logits, (9, 9, 6), [1, 1, 1], [0.7, 0.8, 1.3]))
    seg = convert(logits, manager, labels_of(3), uncropped((9, 9, 6), [0.7, 0.8, 1.3]))
    assert np.mean(seg != resized.argmax(0)) < 2e-3


@pytest.mark.parametrize(("function", "arguments"), [("resample_torch_fornnunet", TORCH), (LINEAR_NAME, LINEAR)])
def test_only_the_torch_variant_leaves_half_precision(function, arguments):
    """Upstream's returns float32 for half precision, so a lead that half precision cannot hold decides there."""
    logits = torch.tensor([[100.0, 100.0], [100.0, 100.0625]]).half()[:, :, None, None]
    properties = uncropped((4, 1, 1), [0.5, 1, 1])
    seg, probabilities = convert(
        logits, plans([1, 1, 1], (0, 1, 2), function, arguments), labels_of(2), properties, return_probabilities=True
    )
    torch_variant = function != LINEAR_NAME
    assert seg.ravel().tolist() == [0, int(torch_variant), 1, 1]  # a quarter of the step between two numbers at 100
    expected = 1 / (1 + np.exp(-0.0625 / 4)) if torch_variant else 0.5
    assert probabilities[1, 1, 0, 0] == pytest.approx(expected, abs=1e-6)


def test_axes_go_back_to_their_places():
    logits = torch.zeros((2, 4, 2, 3))
    logits[1, 3, 1, 2] = 1
    seg = convert(logits, plans([1, 1, 1], (2, 0, 1)), labels_of(2), uncropped((4, 2, 3), [1, 1, 1]))
    assert seg.shape == (2, 3, 4) and np.argwhere(seg).tolist() == [[1, 2, 3]]


def test_no_resampling():
    logits = torch.randn((2, 4, 4, 4))
    manager = plans([1, 1, 1], function="no_resampling_hack", arguments={})
    seg = convert(logits, manager, labels_of(2), uncropped((4, 4, 4), [1, 1, 1]))
    assert np.array_equal(seg, logits.numpy().argmax(0))
    with pytest.raises(DatasetError, match="no_resampling_hack"):
        convert(logits, manager, labels_of(2), uncropped((5, 4, 4), [1, 1, 1]))


def test_two_dimensional_configuration_keeps_the_distance_of_slices():
    logits = torch.randn((2, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    seg = convert(logits, plans([2.0, 2.0]), labels_of(2), uncropped((3, 8, 8), [9.0, 1.0, 1.0]))
    nearest = logits.numpy().argmax(0).repeat(2, 1).repeat(2, 2)
    assert seg.shape == (3, 8, 8) and np.mean(seg == nearest) > 0.8


def test_a_configuration_that_keeps_every_spacing():
    """`spacing: [null, null, null]`, as plans of nnUNetv2_preprocess_like_nnssl may have it."""
    logits = torch.randn((2, 3, 4, 5), generator=torch.Generator().manual_seed(0))
    seg = convert(logits, plans([None, None, None]), labels_of(2), uncropped((3, 4, 5), [9.0, 1.0, 0.7]))
    assert np.array_equal(seg, logits.numpy().argmax(0))


@pytest.mark.parametrize("highest", [253, 254, 255, 256, 300])
def test_type_of_labels(highest):
    count, dtype = highest + 1, np.uint8 if highest < 255 else np.uint16
    logits = torch.zeros((count, 1, 1, 2))
    logits[-1, 0, 0, 1] = 1
    seg = convert(logits, plans([1, 1, 1]), labels_of(count), uncropped((1, 1, 2), [1, 1, 1]))
    assert seg.dtype == dtype and seg[0, 0].tolist() == [0, highest]


def test_regions_may_be_painted_with_large_labels():
    dataset_json = {**REGIONS, "regions_class_order": [1, 300]}
    dataset_json["labels"] = {"background": 0, "whole": [1, 300], "core": 300}
    seg = convert(torch.ones((2, 1, 1, 2)), plans([1, 1, 1]), dataset_json, uncropped((1, 1, 2), [1, 1, 1]))
    assert seg.dtype == np.uint16 and seg[0, 0].tolist() == [300, 300]


def test_ties_and_rounding():
    logits = torch.tensor([[0.0, 1, 2], [0, 3, 2], [-1, 3, 5]])[:, None, None]
    seg = convert(logits, plans([1, 1, 1]), labels_of(3), uncropped((1, 1, 3), [1, 1, 1]))
    assert seg.ravel().tolist() == [0, 1, 2]
    close = torch.tensor([1.0001, 1.0002])[:, None, None, None]
    properties = uncropped((1, 1, 1), [1, 1, 1])
    assert convert(close, plans([1, 1, 1]), labels_of(2), properties).item() == 1
    assert convert(close.half(), plans([1, 1, 1]), labels_of(2), properties).item() == 0


def test_wrong_number_of_heads_and_contradicting_properties():
    properties = uncropped((2, 2, 2), [1, 1, 1])
    with pytest.raises(DatasetError, match="2 channels"):
        convert(torch.zeros((2, 2, 2, 2)), plans([1, 1, 1]), labels_of(3), properties)
    properties["shape_after_cropping_and_before_resampling"] = (2, 2, 3)
    with pytest.raises(DatasetError, match="contradict"):
        convert(torch.zeros((2, 2, 2, 2)), plans([1, 1, 1]), labels_of(2), properties)


@pytest.fixture
def case() -> tuple[torch.Tensor, PlansManager, dict[str, Any]]:
    logits = torch.randn((3, 8, 10, 5), generator=torch.Generator().manual_seed(3)).half()
    properties = {
        "spacing": [0.5, 1.0, 1.0],
        "shape_before_cropping": (8, 12, 12),
        "bbox_used_for_cropping": [[0, 8], [2, 12], [2, 12]],
        "shape_after_cropping_and_before_resampling": (8, 10, 10),
        "sitk_stuff": {
            "spacing": (1.0, 1.0, 0.5),
            "origin": (1.0, 2.0, 3.0),
            "direction": (1.0, 0, 0, 0, 1, 0, 0, 0, 1),
        },
    }
    return logits, plans([1, 1, 1], (2, 1, 0)), properties


def test_files_of_a_case(tmp_path, case):
    logits, manager, properties = case
    sitk = pytest.importorskip("SimpleITK")
    configuration = manager.get_configuration("c")
    np.save(tmp_path / "logits.npy", logits.numpy())
    export_prediction_from_logits(
        str(tmp_path / "logits.npy"),
        properties,
        configuration,
        manager,
        labels_of(3),
        tmp_path / "out" / "case",
        save_probabilities=True,
    )
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["case.nii.gz", "case.npz", "case.pkl"]
    assert not (tmp_path / "logits.npy").exists()
    with np.load(tmp_path / "out" / "case.npz") as archive:
        assert archive.files == ["probabilities"]
        probabilities = archive["probabilities"]
    seg, expected = convert(logits, manager, labels_of(3), properties, return_probabilities=True)
    assert probabilities.dtype == np.float32 and np.allclose(probabilities, expected, rtol=1e-5, atol=1e-7)
    image = sitk.ReadImage(str(tmp_path / "out" / "case.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(image), seg)
    assert image.GetOrigin() == (1, 2, 3) and image.GetSpacing() == (1, 1, 0.5)
    assert probabilities[:, 0, 0, 0].tolist() == [1, 0, 0]
    assert np.array_equal(probabilities.argmax(0), seg)
    assert load_pickle(tmp_path / "out" / "case.pkl") == properties


def test_next_stage(tmp_path, case):
    logits, manager, properties = case
    configuration = manager.get_configuration("c")
    expected = resample_data_or_seg_to_shape(logits.numpy(), (12, 15, 7), [1, 1, 1], [1, 1, 1], **LINEAR).argmax(0)
    for dataset_class in (None, nnUNetDatasetNumpy):
        resample_and_save(
            logits,
            (12, 15, 7),
            str(tmp_path / "case"),
            manager,
            configuration,
            properties,
            labels_of(3),
            dataset_class=dataset_class,
        )
    with np.load(tmp_path / "case.npz") as archive:
        assert archive["seg"].dtype == np.uint8 and np.mean(archive["seg"] != expected) < 2e-3
    assert (tmp_path / "case.b2nd").is_file()


def test_real_logits(goldens):
    """Labels of recorded logits equal the recorded labels, also where they are resized as upstream resized them."""
    sitk = pytest.importorskip("SimpleITK")
    folder = goldens / "Dataset004_Hippocampus" / "predictions"
    manager = PlansManager(folder / "model" / "plans.json")
    label_manager = manager.get_label_manager({"labels": {"background": 0, "Anterior": 1, "Posterior": 2}})
    for file in sorted((folder / "tta_seq").glob("*_logits.npz")):
        with np.load(file) as archive:
            logits = archive[archive.files[0]]
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(file).replace("_logits.npz", ".nii.gz")))
        seg = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits,
            manager,
            manager.get_configuration("3d_fullres"),
            label_manager,
            uncropped(expected.shape, [1.0, 1.0, 1.0]),
        )
        assert np.array_equal(seg, expected)


GAPS = {"labels": {"background": 0, "b": 500, "a": 4}, "file_ending": ".nii.gz"}


def test_labels_with_gaps_are_written_as_they_are(tmp_path, case):
    sitk = pytest.importorskip("SimpleITK")
    logits, manager, properties = case
    by_index = convert(logits, manager, labels_of(3), properties)
    seg = convert(logits, manager, GAPS, properties)
    assert seg.dtype == np.uint16 and np.array_equal(seg, np.array([0, 4, 500])[by_index])
    output = tmp_path / "case"
    export_prediction_from_logits(logits, properties, manager.get_configuration("c"), manager, GAPS, output, True)
    image = sitk.ReadImage(f"{output}.nii.gz")
    assert image.GetPixelID() == sitk.sitkUInt16 and np.array_equal(sitk.GetArrayFromImage(image), seg)
    assert np.load(f"{output}.npz")["probabilities"].shape == (3, *seg.shape)


def test_the_ignore_label_is_never_written():
    labels = {"background": 0, "a": 1, "ignore": 2}
    logits = torch.randn((2, 3, 4, 5), generator=torch.Generator().manual_seed(0))
    seg = convert(logits, plans([1, 1, 1]), {"labels": labels}, uncropped((6, 8, 10), [0.5, 0.5, 0.5]))
    assert np.unique(seg).tolist() == [0, 1]


def test_a_model_with_background_only(tmp_path):
    properties = uncropped((2, 3, 4), [1, 1, 1])
    seg, probabilities = convert(
        torch.randn((1, 2, 3, 4)), plans([1, 1, 1]), labels_of(1), properties, return_probabilities=True
    )
    assert not seg.any() and (probabilities == 1).all()


@pytest.mark.parametrize("transpose", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 7), (6, 1, 1), (5, 8, 1)])
def test_axes_of_one_voxel(transpose, shape):
    rng = np.random.default_rng(0)
    manager = plans([1, 1, 1], transpose)
    logits = rng.normal(0, 1, (3, *(max(1, n // 2) for n in shape))).astype(np.float16)
    before = tuple(n + 2 for n in shape)
    properties = {
        "spacing": [0.5, 0.5, 0.5],
        "shape_before_cropping": before,
        "bbox_used_for_cropping": [[1, n + 1] for n in shape],
        "shape_after_cropping_and_before_resampling": shape,
    }
    resized = resample_data_or_seg_to_shape(logits.astype(np.float64), shape, [1, 1, 1], [0.5] * 3, **LINEAR)
    expected = np.zeros(before, np.uint8)
    expected[1:-1, 1:-1, 1:-1] = resized.astype(np.float16).argmax(0)
    seg = convert(logits, manager, labels_of(3), properties)
    assert np.array_equal(seg, expected.transpose([transpose.index(axis) for axis in range(3)]))


def test_a_nonlinearity_of_ones_own_goes_into_the_file(tmp_path, case, monkeypatch):
    logits, manager, properties = case

    class Halves(LabelManager):
        def apply_inference_nonlin(self, logits: Any) -> torch.Tensor:
            return torch.full(logits.shape, 0.5)

    monkeypatch.setattr(manager, "get_label_manager", lambda dataset_json: Halves(dataset_json["labels"], None))
    output = tmp_path / "case"
    export_prediction_from_logits(
        logits, properties, manager.get_configuration("c"), manager, labels_of(3), output, True
    )
    probabilities = np.load(f"{output}.npz")["probabilities"]
    assert probabilities[:, 0, 0, 0].tolist() == [1, 0, 0] and (probabilities[:, -1, -1] == 0.5).all()


def test_a_full_disk_while_probabilities_are_written_leaves_nothing(tmp_path, case, monkeypatch):
    logits, manager, properties = case

    def full(block: memoryview) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nnunet_lite.utilities.npz_stream._deflate", full)
    with pytest.raises(StorageError, match=r"No space left.*case\.npz was not written"):
        export_prediction_from_logits(
            logits, properties, manager.get_configuration("c"), manager, labels_of(3), tmp_path / "case", True
        )
    assert not list(tmp_path.iterdir())
