"""The same files and results, whether logits are reduced in bands or held for the whole image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import DATASET_JSON, LINEAR, tiny_plans
from torch import nn

from nnunet_lite.inference import case_resources, device_reduction, memory_of_sums, reduced_prediction
from nnunet_lite.inference.data_iterators import CaseToPredict
from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.device import num_threads

REGIONS: dict[str, Any] = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 300]}
MANY: dict[str, Any] = {"labels": {"background": 0, **{f"l{i}": i for i in range(1, 5)}}}


def network(axes: int, heads: int) -> nn.Module:
    """Two convolutions; every head puts out values of both signs."""
    convolution, norm = (nn.Conv2d, nn.InstanceNorm2d) if axes == 2 else (nn.Conv3d, nn.InstanceNorm3d)
    layers = (convolution(1, heads, 3, padding=1), nn.ReLU(), convolution(heads, heads, 1), norm(heads))
    return nn.Sequential(*layers).requires_grad_(False)


def predictor(
    patch: list[int],
    spacing: list[float],
    labels: dict[str, Any] = MANY,
    transpose: tuple[int, ...] = (0, 1, 2),
    members: int = 1,
    **resampling: Any,
) -> nnUNetPredictor:
    plans = tiny_plans()
    plans["transpose_forward"] = list(transpose)
    plans["transpose_backward"] = [transpose.index(axis) for axis in range(3)]
    configuration = plans["configurations"]["3d_fullres"]
    configuration.update({"patch_size": patch, "spacing": spacing, **resampling})
    manager = PlansManager(plans)
    dataset_json = {**DATASET_JSON, **labels}
    heads = manager.get_label_manager(dataset_json).num_segmentation_heads
    torch.manual_seed(3)
    weights = [network(len(patch), heads).state_dict() for _ in range(members)]
    made = nnUNetPredictor(device="cpu", allow_tqdm=False)
    made.manual_initialization(
        network(len(patch), heads),
        manager,
        manager.get_configuration("3d_fullres"),
        [dict(one) for one in weights],
        dataset_json,
        "nnUNetTrainer",
        tuple(range(len(patch))),
    )
    return made


@pytest.fixture
def in_bands(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A switch: from then on everything is predicted in bands; counts how often."""
    calls: list[bool] = []
    run = reduced_prediction.predict_in_bands

    def counted(*args: Any, **options: Any) -> None:
        calls.append(options["lines"])
        run(*args, **options)

    def switch() -> list[bool]:
        monkeypatch.setattr(memory_of_sums, "BANDED_PREDICTION_BYTES", 0)
        monkeypatch.setattr(reduced_prediction, "predict_in_bands", counted)
        return calls

    with num_threads(2):
        yield switch


def image(shape: tuple[int, ...], spacing: list[float]) -> tuple[np.ndarray, dict[str, Any]]:
    values = np.random.default_rng(5).normal(size=(1, *shape)).astype(np.float32)
    if min(shape[1:]) > 6:  # something to crop
        values[:, :, :3] = 0
        values[..., -2:] = 0
    return values, {"spacing": spacing}


def assert_equal(first: Any, second: Any) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.dtype == other.dtype
        if one.dtype == np.float32:  # the softmax of a block depends in its last bit on where the block begins
            np.testing.assert_allclose(one, other, atol=2e-7)
        else:
            np.testing.assert_array_equal(one, other)


FLAT, DEEP = [10, 8], [6, 8, 8]
SPACINGS = [[1.0, 1, 1], [1.0, 0.7, 0.8], [1.0, 1.4, 1], [1.0, 1, 1.3], [3.5, 0.8, 1.2]]
CASES = [
    *((FLAT, (1, 33, 25), spacing, True) for spacing in SPACINGS),
    *((FLAT, (3, 19, 25), spacing, lines) for spacing in SPACINGS[:2] for lines in (True, False)),
    *((DEEP, (17, 14, 11), spacing, lines) for spacing in SPACINGS for lines in (True, False)),
    (DEEP, (9, 30, 20), [2.0, 1.0, 1.0], False),
    (DEEP, (5, 3, 20), [0.4, 1.0, 1.0], False),
    (FLAT, (1, 4, 70), [1.0, 1.2, 1.2], True),
]


@pytest.mark.parametrize(("patch", "shape", "spacing", "large"), CASES)
@pytest.mark.parametrize("labels", [MANY, REGIONS], ids=["labels", "regions"])
def test_arrays(patch, shape, spacing, large, labels, in_bands, monkeypatch):
    """`spacing` is the image's, the network works at 1 mm; with `large`, bands of 2D networks are lines."""
    monkeypatch.setattr(memory_of_sums, "_LARGE_PLANE", 100 if large else 10**9)
    transpose = (0, 2, 1) if labels is REGIONS else (0, 1, 2)
    model = predictor(patch, [1.0] * len(patch), labels, transpose)
    values, properties = image(shape, spacing)
    expected = model.predict_single_npy_array(values, properties, None, None, True)
    assert len(np.unique(expected[0])) > 1
    calls = in_bands()
    assert_equal(model.predict_single_npy_array(values, properties, None, None, True), expected)
    assert calls == [large and len(patch) == 2]


@pytest.mark.parametrize(("patch", "transpose"), [(FLAT, (1, 0, 2)), (DEEP, (2, 0, 1))])
def test_ensemble_and_transposed(patch, transpose, in_bands, monkeypatch):
    monkeypatch.setattr(memory_of_sums, "_LARGE_PLANE", 100)
    model = predictor(patch, [1.0] * len(patch), MANY, transpose, members=3)
    values, properties = image((12, 19, 14), [0.9, 1.1, 1.2])
    expected = model.predict_single_npy_array(values, properties)
    calls = in_bands()
    found = model.predict_single_npy_array(values, properties)
    np.testing.assert_array_equal(found, expected)
    assert calls == [len(patch) == 2]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("probabilities", [False, True])
def test_files(workers, probabilities, in_bands, tmp_path, monkeypatch):
    if workers and probabilities:
        pytest.skip("one start of workers is enough")
    monkeypatch.setattr("nnunet_lite.inference.prediction_pipeline.worthwhile_processes", lambda *a: (0, workers))
    monkeypatch.setattr("nnunet_lite.inference.data_iterators._LARGE", 100)
    sitk = pytest.importorskip("SimpleITK")
    files = []
    for number in range(2):
        picture = sitk.GetImageFromArray(image((8, 20, 22), [1, 1, 1])[0][0])
        picture.SetSpacing((1.1, 0.8, 1))
        files.append([str(tmp_path / f"c{number}_0000.nii.gz")])
        sitk.WriteImage(picture, files[-1][0])
    model = predictor(DEEP, [1.0, 1, 1])

    def run(folder: Path) -> list[Path]:
        targets = [str(folder / f"c{number}") for number in range(2)]
        model.predict_from_files(files, targets, probabilities, True, 0, workers)
        return sorted(file for file in folder.iterdir() if file.suffix in (".gz", ".npz", ".pkl"))

    expected = run(tmp_path / "whole")
    calls = in_bands()
    found = run(tmp_path / "bands")
    assert len(calls) == 2
    assert [file.name for file in found] == [file.name for file in expected]
    for one, other in zip(found, expected, strict=True):
        if one.suffix == ".npz":
            assert_equal([np.load(one)["probabilities"]], [np.load(other)["probabilities"]])
        elif one.suffix == ".gz":
            first, second = sitk.ReadImage(str(one)), sitk.ReadImage(str(other))
            assert first.GetSpacing() == second.GetSpacing()
            np.testing.assert_array_equal(sitk.GetArrayFromImage(first), sitk.GetArrayFromImage(second))


def test_results_that_are_finished_go_to_no_worker(in_bands, monkeypatch):
    monkeypatch.setattr("nnunet_lite.inference.prediction_pipeline.worthwhile_processes", lambda *a: (0, 1))
    monkeypatch.setattr("nnunet_lite.utilities.parallel._Worker", None)  # none can be started
    model = predictor(DEEP, [1.0] * 3)
    values, properties = image((8, 19, 14), [0.9, 1.1, 1.2])
    expected = model.predict_single_npy_array(values, properties, None, None, True)
    assert in_bands() == []
    assert_equal(model.predict_from_list_of_npy_arrays(values, None, properties, None, 0, True, 1)[0], expected)


def test_what_must_see_all_logits_takes_the_ordinary_way(in_bands, monkeypatch):
    values, properties = image((8, 19, 14), [0.9, 1.1, 1.2])
    cubic = predictor(DEEP, [1.0] * 3, resampling_fn_probabilities_kwargs={**LINEAR, "order": 3})
    calls = in_bands()
    cubic.predict_single_npy_array(values, properties)

    class OwnLabelManager(LabelManager):
        pass

    own = predictor(DEEP, [1.0] * 3)
    monkeypatch.setattr(PlansManager, "get_label_manager", lambda self, json: OwnLabelManager(json["labels"], None))
    own.predict_single_npy_array(values, properties)
    assert not calls


def test_small_images_are_held_as_a_whole(in_bands, monkeypatch, caplog):
    values, properties = image((8, 19, 14), [1.0, 1, 1])
    model = predictor(DEEP, [1.0] * 3)
    calls = in_bands()
    size = 8 * 16 * 12 * (5 * 2 + 4)  # after cropping; five sums, weight and scale of each voxel
    monkeypatch.setattr(memory_of_sums, "BANDED_PREDICTION_BYTES", size)
    model.predict_single_npy_array(values, properties)
    assert not calls
    monkeypatch.setattr(memory_of_sums, "BANDED_PREDICTION_BYTES", size - 1)
    with caplog.at_level("INFO"):
        model.predict_single_npy_array(values, properties)
    assert calls == [False] and "in bands" in caplog.text


def test_little_memory_lowers_the_limit(in_bands, monkeypatch):
    values, properties = image((8, 19, 14), [1.0, 1, 1])
    calls = in_bands()
    monkeypatch.setattr(memory_of_sums, "BANDED_PREDICTION_BYTES", 2**30)
    monkeypatch.setattr(memory_of_sums, "available_memory", lambda: 60_000)
    predictor(DEEP, [1.0] * 3).predict_single_npy_array(values, properties)
    assert calls == [False]


@pytest.mark.parametrize("members", [1, 3])
def test_max_ram_lowers_the_limit(members, in_bands, monkeypatch):
    values, properties = image((18, 19, 14), [1.0, 1, 1])
    model = predictor(DEEP, [1.0] * 3, members=members)
    monkeypatch.setattr(memory_of_sums, "BANDED_PREDICTION_BYTES", 2**30)
    expected = model.predict_single_npy_array(values, properties)
    calls = in_bands()
    monkeypatch.setattr(memory_of_sums, "BANDED_PREDICTION_BYTES", 2**30)
    np.testing.assert_array_equal(model.predict_single_npy_array(values, properties), expected)
    assert not calls
    model.max_ram = 100_000
    np.testing.assert_array_equal(model.predict_single_npy_array(values, properties), expected)
    (found,) = model.predict_from_list_of_npy_arrays(values, None, properties, None, 0, False, 0)
    np.testing.assert_array_equal(found, expected)
    assert calls == [False, False]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A CPU that says how much memory it has, as a GPU does; counts reductions there. Sums are to be kept on it."""
    calls: list[tuple[int, ...]] = []
    free = [2**30]
    reduce = device_reduction.reduce_logits_on_device

    def counted(logits: torch.Tensor, *args: Any) -> None:
        calls.append(tuple(logits.shape))
        reduce(logits, *args)

    for module in ("device_reduction", "device_memory"):
        monkeypatch.setattr(f"nnunet_lite.inference.{module}.free_memory", lambda device: free[0])
    for module in ("reduced_prediction", "plane_stream"):
        monkeypatch.setattr(f"nnunet_lite.inference.{module}.reduce_logits_on_device", counted)

    def switch(model: nnUNetPredictor, memory: int) -> list[tuple[int, ...]]:
        free[0] = memory
        model.perform_everything_on_device = True
        return calls

    with num_threads(2):
        yield switch


@pytest.mark.parametrize("spacing", SPACINGS[1:3])
@pytest.mark.parametrize("labels", [MANY, REGIONS], ids=["labels", "regions"])
def test_a_gpu_with_room_reduces_logits_itself(spacing, labels, gpu):
    values, properties = image((17, 14, 11), spacing)
    model = predictor(DEEP, [1.0] * 3, labels)
    whole = model.predict_single_npy_array(values, properties)
    calls = gpu(model, 2**30)
    np.testing.assert_array_equal(model.predict_single_npy_array(values, properties), whole)
    assert len(calls) == 1 and calls[0][0] == model.label_manager.num_segmentation_heads
    _, probabilities = model.predict_single_npy_array(values, properties, None, None, True)
    assert len(calls) == 1 and probabilities.shape[1:] == whole.shape  # probabilities are made on the CPU


def test_a_gpu_without_room_for_all_sums_reduces_band_by_band(gpu, monkeypatch):
    for module in ("memory_of_sums", "banded_prediction"):
        monkeypatch.setattr(f"nnunet_lite.inference.{module}.PIECE", 2**10)
    values, properties = image((60, 17, 14), [0.9, 0.8, 1.1])
    model = predictor(DEEP, [1.0] * 3)
    expected = model.predict_single_npy_array(values, properties)
    monkeypatch.setattr(memory_of_sums, "BANDED_PREDICTION_BYTES", 0)
    settings = model._settings()
    sums = settings.memory_of_sums((51, 14, 13), 1)
    band = sums.band(lines=False, tiles_per_pass=settings.tiles_per_pass)
    assert band < sums.whole
    calls = gpu(model, int((band + sums.whole) / 2 + sums.image(1)) * 10 // 7)
    budgets: list[int] = []
    boxes = device_reduction._boxes

    def watched(plan: Any, heads: int, budget: int) -> Any:
        budgets.append(budget)
        return boxes(plan, heads, budget)

    monkeypatch.setattr(device_reduction, "_boxes", watched)
    np.testing.assert_array_equal(model.predict_single_npy_array(values, properties), expected)
    assert len(calls) > 1
    # beside the network, which allocates meanwhile, not a share of what is free now
    assert set(budgets) == {device_reduction.BUDGET}


def test_estimates_know_of_bands():
    """A slide asks for its band, not for its logits: it is not announced as too large, nor given room on a disk."""
    model = predictor([512, 512], [1.0, 1.0])
    network = case_resources.Network(heads=5)
    size = case_resources.CaseSize(1, (1, 20000, 20000), (1, 20000, 20000))
    case = CaseToPredict("slide", ["slide_0000.png"])
    demand = case_resources.demand_of_case(case, size, model._documents(), model.plans_manager, network)
    assert demand.logits == 4e8 and demand.image == 1.6e9
    assert demand.network < 2.35e9
    assert demand.export < 2.1e9
