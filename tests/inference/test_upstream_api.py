"""Upstream's Python interface of prediction: names, positions, defaults, return values (spec 03, section 1)."""

from __future__ import annotations

import inspect
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import write_model
from torch import nn

from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunet_lite.inference import model_in_use
from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor
from nnunet_lite.utilities.parallel import Task, collect, run_tasks

sitk = pytest.importorskip("SimpleITK")

_ARRAYS = {
    "image_or_list_of_images": ...,
    "segs_from_prev_stage_or_list_of_segs_from_prev_stage": ...,
    "properties_or_list_of_properties": ...,
    "truncated_ofname": ...,
    "num_processes": 3,
}
_FILES = {
    "list_of_lists_or_source_folder": ...,
    "output_folder_or_list_of_truncated_output_files": ...,
    "save_probabilities": False,
    "overwrite": True,
}
# method -> argument -> default; ... has none, None here where ours is found out at the call
METHODS: dict[str, dict[str, Any]] = {
    "__init__": {
        "tile_step_size": 0.5,
        "use_gaussian": True,
        "use_mirroring": True,
        "perform_everything_on_device": True,
        "device": "cuda",
        "verbose": False,
        "verbose_preprocessing": False,
        "allow_tqdm": True,
    },
    "initialize_from_trained_model_folder": {
        "model_training_output_dir": ...,
        "use_folds": None,
        "checkpoint_name": "checkpoint_final.pth",
    },
    "auto_detect_available_folds": {
        "model_training_output_dir": ...,
        "checkpoint_name": "checkpoint_final.pth",
    },
    "manual_initialization": dict.fromkeys(
        (
            "network",
            "plans_manager",
            "configuration_manager",
            "parameters",
            "dataset_json",
            "trainer_name",
            "inference_allowed_mirroring_axes",
        ),
        ...,
    ),
    "predict_from_files": {
        **_FILES,
        "num_processes_preprocessing": None,
        "num_processes_segmentation_export": None,
        "folder_with_segs_from_prev_stage": None,
        "num_parts": 1,
        "part_id": 0,
    },
    "predict_from_files_sequential": {**_FILES, "folder_with_segs_from_prev_stage": None},
    "predict_from_list_of_npy_arrays": {
        **_ARRAYS,
        "save_probabilities": False,
        "num_processes_segmentation_export": None,
    },
    "get_data_iterator_from_raw_npy_data": _ARRAYS,
    "predict_from_data_iterator": {
        "data_iterator": ...,
        "save_probabilities": False,
        "num_processes_segmentation_export": None,
    },
    "predict_single_npy_array": {
        "input_image": ...,
        "image_properties": ...,
        "segmentation_previous_stage": None,
        "output_file_truncated": None,
        "save_or_return_probabilities": False,
    },
    "predict_logits_from_preprocessed_data": {"data": ...},
    "predict_sliding_window_return_logits": {"input_image": ...},
}
ATTRIBUTES = (
    "plans_manager",
    "configuration_manager",
    "list_of_parameters",
    "network",
    "dataset_json",
    "trainer_name",
    "allowed_mirroring_axes",
    "label_manager",
)


def without_model() -> nnUNetPredictor:
    return nnUNetPredictor(device="cpu", allow_tqdm=False, use_mirroring=False)


def predictor_of(model: Path, folds: Any = 0) -> nnUNetPredictor:
    predictor = without_model()
    predictor.initialize_from_trained_model_folder(model, folds)
    return predictor


@pytest.mark.parametrize("name", list(METHODS))
def test_arguments_have_upstreams_names_order_and_defaults(name: str) -> None:
    parameters = [p for p in inspect.signature(getattr(nnUNetPredictor, name)).parameters.values() if p.name != "self"]
    positional = {p.name: p.default for p in parameters if p.kind is not p.KEYWORD_ONLY}
    expected = {key: inspect.Parameter.empty if value is ... else value for key, value in METHODS[name].items()}
    assert list(positional.items()) == list(expected.items())
    assert all(p.default is not p.empty for p in parameters if p.kind is p.KEYWORD_ONLY)  # ours change nothing


def test_before_there_is_a_model(tmp_path: Path) -> None:
    predictor = without_model()
    assert [getattr(predictor, name) for name in ATTRIBUTES] == [None] * len(ATTRIBUTES)
    assert (predictor.tile_step_size, predictor.use_gaussian, predictor.verbose) == (0.5, True, False)
    image, properties = np.zeros((1, 8, 8, 8), np.float32), {"spacing": [1, 1, 1]}
    for call in (
        lambda: predictor.predict_from_files(tmp_path, tmp_path / "out"),
        lambda: predictor.predict_from_files_sequential(tmp_path, None),
        lambda: predictor.predict_from_list_of_npy_arrays(image, None, properties, None),
        lambda: next(iter(predictor.get_data_iterator_from_raw_npy_data(image, None, properties, None))),
        lambda: predictor.predict_from_data_iterator([]),
        lambda: predictor.predict_single_npy_array(image, properties),
        lambda: predictor.predict_logits_from_preprocessed_data(torch.zeros(1, 8, 8, 8)),
        lambda: predictor.predict_sliding_window_return_logits(torch.zeros(1, 8, 8, 8)),
    ):
        with pytest.raises(ArgumentError, match="has no model yet: call initialize_from_trained_model_folder"):
            call()
    assert not (tmp_path / "out").exists()


def test_a_model_put_together_by_hand_as_other_programs_do(model: Path) -> None:
    loaded, bare = predictor_of(model, (0, 1)), without_model()
    for name in ATTRIBUTES:
        setattr(bare, name, getattr(loaded, name))
    data = torch.randn(1, 8, 9, 10)
    assert torch.equal(
        bare.predict_logits_from_preprocessed_data(data), loaded.predict_logits_from_preprocessed_data(data)
    )


def test_a_network_set_later_gets_the_members_weights(model: Path) -> None:
    """Upstream loads the weights for every case, so scripts may exchange the network in between."""
    predictor, data = predictor_of(model), torch.randn(1, 8, 8, 8)
    before = predictor.predict_logits_from_preprocessed_data(data)
    other = predictor_of(model, 1).network
    predictor.network = other
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(data), before)


def test_lists_of_files(model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = predictor_of(model)
    cases = [[images / "c_0000.nii.gz"], [str(images / "a_0000.nii.gz")]]
    monkeypatch.chdir(tmp_path)
    assert predictor.predict_from_files(cases, ["third", "first.of.all"], True) == [None, None]
    written = {"dataset.json", "plans.json", "predict_from_raw_data_args.json"}
    written |= {f"{name}.{ending}" for name in ("third", "first.of.all") for ending in ("nii.gz", "npz", "pkl")}
    assert {file.name for file in tmp_path.iterdir() if file.is_file()} == written
    returned = predictor.predict_from_files(tuple(cases), None, True)
    assert returned is not None and [type(result) for result in returned] == [tuple, tuple]
    for (labels, probabilities), name in zip(returned, ("third", "first.of.all"), strict=True):
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(f"{name}.nii.gz")), labels)
        with np.load(f"{name}.npz") as stored:
            assert list(stored) == ["probabilities"]
            np.testing.assert_allclose(stored["probabilities"], probabilities, atol=5e-7)  # summed in another way
        assert (labels.dtype, probabilities.dtype) == (np.uint8, np.float32)
        assert probabilities.shape == (3, *labels.shape)
    with pytest.raises(ArgumentError, match=r"written to the same file in the list of outputs: same"):
        predictor.predict_from_files(cases, ["same", "./same"])
    assert not (tmp_path / "same.nii.gz").exists()


def test_one_file_in_one_file_out(model: Path, images: Path, tmp_path: Path) -> None:
    predictor = predictor_of(model)
    assert predictor.predict_from_files(images / "a_0000.nii.gz", tmp_path / "out" / "x.nii.gz") == [None]
    assert (tmp_path / "out" / "x.nii.gz").is_file()
    (labels,) = predictor.predict_from_files_sequential(str(images / "a_0000.nii.gz"), None)
    assert labels.shape == (9, 10, 11)


def test_sequential_returns_a_list_only_without_files(model: Path, images: Path, tmp_path: Path) -> None:
    assert predictor_of(model).predict_from_files_sequential(images, tmp_path / "new" / "out") == []
    assert len(list((tmp_path / "new" / "out").glob("*.nii.gz"))) == 3


def test_arrays_of_a_reader(model: Path, images: Path, tmp_path: Path) -> None:
    predictor = predictor_of(model)
    reader = SimpleITKIO()
    arrays, properties = zip(*(reader.read_images([str(images / f"{n}_0000.nii.gz")]) for n in "ab"), strict=True)
    before = [dict(own) for own in properties]
    names = [str(tmp_path / name) for name in "ab"]
    listed = predictor.predict_from_list_of_npy_arrays(list(arrays), [None, None], list(properties), None, 1)
    assert predictor.predict_from_list_of_npy_arrays(list(arrays), None, list(properties), names, 1, True) == [None] * 2
    assert predictor.predict_single_npy_array(arrays[0], properties[0], None, str(tmp_path / "single")) is None
    assert [dict(own) for own in properties] == before
    for labels, name in zip((*listed, listed[0]), ("a", "b", "single"), strict=True):
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{name}.nii.gz"))), labels)
    assert (tmp_path / "b.npz").is_file() and not (tmp_path / "single.npz").exists()


def test_an_iterator_of_preprocessed_cases(model: Path, images: Path, tmp_path: Path) -> None:
    predictor = predictor_of(model)
    (expected, probabilities) = predictor.predict_from_files_sequential(images, None, True)[0]
    preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
    managers = (predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json)
    data, _, properties = preprocessor.run_case([str(images / "a_0000.nii.gz")], None, *managers)
    stored = tmp_path / "preprocessed.npy"
    np.save(stored, data)

    def items() -> Any:
        yield {"data": torch.from_numpy(data), "data_properties": properties, "ofile": None}
        yield {"data": torch.from_numpy(data).double(), "data_properties": properties, "ofile": None}
        yield {"data": str(stored), "data_properties": properties, "ofile": None}
        yield {"data": torch.from_numpy(data), "data_properties": properties, "ofile": str(tmp_path / "a")}

    *returned, written = predictor.predict_from_data_iterator(items(), True, 0)
    assert written is None and not stored.exists()
    for labels, own in returned:
        assert np.array_equal(labels, expected) and np.allclose(own, probabilities, atol=1e-3)
    assert {file.name for file in tmp_path.glob("a.*")} == {"a.nii.gz", "a.npz", "a.pkl"}


def test_arrays_of_a_cascade(tmp_path: Path) -> None:
    image, properties = np.random.default_rng(0).normal(size=(1, 9, 8, 10)).astype(np.float32), {"spacing": [1, 1, 1]}
    previous = (image > 0).astype(np.uint8) * 2
    cascade = predictor_of(write_model(tmp_path / "cascade", "3d_cascade_fullres", (0,)))
    with_it, without = (cascade.predict_single_npy_array(image, properties, seg) for seg in (previous, previous * 0))
    assert with_it.shape == (9, 8, 10) and not np.array_equal(with_it, without)
    (again,) = cascade.predict_from_list_of_npy_arrays([image], [previous], [properties], None, 0, False, 0)
    assert np.array_equal(again, with_it)
    (item,) = cascade.get_data_iterator_from_raw_npy_data(image, previous, properties, None, 0)
    assert item["data"].shape == (3, 9, 8, 10) and item["data"].dtype == torch.float32
    assert torch.equal(item["data"][2], torch.from_numpy(previous[0] == 2).float())
    assert "class_locations" not in item["data_properties"]
    with pytest.raises(DatasetError, match="needs the segmentation that 3d_lowres predicts"):
        cascade.predict_single_npy_array(image, properties)
    with pytest.raises(DatasetError, match=r"shape \(1, 1, 1, 1\), expected \(1, 9, 8, 10\)"):
        cascade.predict_single_npy_array(image, properties, previous[:, :1, :1, :1])
    with pytest.raises(DatasetError, match="is not the second stage of a cascade; leave it out"):
        predictor_of(write_model(tmp_path / "fullres")).predict_single_npy_array(image, properties, previous)


def test_a_folder_of_a_previous_stage_that_nobody_reads_is_said(
    model: Path, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictor_of(model).predict_from_files(images, None, folder_with_segs_from_prev_stage=tmp_path)
    assert f"is not the second stage of a cascade: nothing is read from {tmp_path}" in caplog.text


def test_probabilities_of_regions_are_painted_in_their_order(tmp_path: Path) -> None:
    """Region labels beyond 255 arrive as they are (upstream: 300 becomes 44)."""
    labels = {"background": 0, "whole": [1, 2], "core": 2, "rim": [1]}
    change = {"labels": labels, "regions_class_order": [300, 2, 1]}
    predictor = predictor_of(write_model(tmp_path / "model"))
    dataset_json = {**predictor.dataset_json, **change}
    predictor.manual_initialization(
        predictor.network, predictor.plans_manager, predictor.configuration_manager, None, dataset_json, "T", None
    )
    with torch.no_grad():
        predictor.network.decoder.seg_layers[-1].weight.fill_(0)
        predictor.network.decoder.seg_layers[-1].bias.copy_(torch.tensor([9.0, -9.0, -9.0]))
    image = np.ones((1, 9, 8, 10), np.float32)
    out = tmp_path / "case"
    result = predictor.predict_single_npy_array(image, {"spacing": [1, 1, 1]})
    assert result.dtype == np.uint16 and set(np.unique(result)) == {300}
    geometry = {"spacing": (1.0,) * 3, "origin": (0.0,) * 3, "direction": (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}
    predictor.predict_single_npy_array(image, {"spacing": [1, 1, 1], "sitk_stuff": geometry}, None, str(out))
    written = sitk.GetArrayFromImage(sitk.ReadImage(f"{out}.nii.gz"))
    assert written.dtype == np.uint16 and set(np.unique(written)) == {300}


def test_attributes_may_be_set_by_hand(model: Path) -> None:
    made, empty = predictor_of(model), without_model()
    for name in ATTRIBUTES:
        setattr(empty, name, getattr(made, name))
    data = torch.randn(1, 9, 10, 11)
    expected = made.predict_logits_from_preprocessed_data(data)
    assert torch.equal(empty.predict_logits_from_preprocessed_data(data), expected)


def test_weights_of_the_callers_own_do_not_stay(model: Path) -> None:
    """Upstream loads the members before every prediction; a script may have loaded something else meanwhile."""
    predictor = predictor_of(model)
    data = torch.randn(1, 9, 10, 11)
    expected = predictor.predict_logits_from_preprocessed_data(data)
    own = {name: 2 * tensor for name, tensor in predictor.network.state_dict().items()}
    predictor.network.load_state_dict(own)
    assert not torch.equal(predictor.predict_sliding_window_return_logits(data), expected)
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(data), expected)


def test_weights_that_were_loaded_halfway_do_not_stay(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a notebook: what it interrupts is done again, whoever comes next."""
    predictor, load = predictor_of(model), model_in_use.load_weights
    data = torch.randn(1, 9, 10, 11)
    first = predictor.list_of_parameters
    assert first is not None
    expected = predictor.predict_logits_from_preprocessed_data(data)

    def stopped(network: nn.Module, weights: Any) -> None:
        load(network, {name: 2 * tensor for name, tensor in weights.items()})
        raise KeyboardInterrupt

    monkeypatch.setattr(model_in_use, "load_weights", stopped)
    predictor.list_of_parameters = [dict(first[0])]
    with pytest.raises(KeyboardInterrupt):
        predictor.predict_logits_from_preprocessed_data(data)
    monkeypatch.setattr(model_in_use, "load_weights", load)
    predictor.list_of_parameters = first
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(data), expected)


def test_members_may_be_changed_in_place(model: Path) -> None:
    """Upstream loads the members before every prediction, so it sees what scripts write into them."""
    predictor, data = predictor_of(model), torch.randn(1, 8, 8, 8)
    before = predictor.predict_logits_from_preprocessed_data(data)
    member = predictor.list_of_parameters[0]
    for name in member:
        member[name] = member[name] * 2
    changed = predictor.predict_logits_from_preprocessed_data(data)
    assert not torch.equal(changed, before)
    predictor.network.load_state_dict({name: 3 * tensor for name, tensor in member.items()})
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(data), changed)


class Around(nn.Module):
    """A network around another, which knows how it is loaded."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.inner = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -self.inner(x)

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        return self.inner.load_state_dict(state_dict, *args, **kwargs)


def test_a_network_around_the_models(model: Path) -> None:
    predictor, data = predictor_of(model, (0, 1)), torch.randn(1, 8, 8, 8)
    expected = -predictor.predict_logits_from_preprocessed_data(data)
    predictor.network = Around(predictor.network)
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(data), expected)


def test_threads_share_a_predictor(model: Path) -> None:
    """Without taking turns one would compute with the weights of the member that another has just loaded."""
    predictor = predictor_of(model, (0, 1))
    images = [np.random.default_rng(seed).normal(size=(1, 14, 15, 16)).astype(np.float32) for seed in range(8)]

    def predict(image: np.ndarray) -> Any:
        return predictor.predict_single_npy_array(image, {"spacing": [1, 1, 1]}, None, None, True)[1]

    expected = [predict(image) for image in images]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(predict, images * 2))
    finally:
        sys.setswitchinterval(interval)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected * 2, strict=True))


def test_the_device_may_be_set_by_its_name(model: Path, images: Path) -> None:
    predictor = predictor_of(model)
    before = predictor.predict_from_files(images, None, False, True, 0, 0)
    predictor.device = "cpu:0"  # type: ignore[assignment]
    predictor.initialize_from_trained_model_folder(model, 0)
    found = predictor.predict_from_files(images, None, False, True, 0, 0)
    assert before and found and all(np.array_equal(one, other) for one, other in zip(before, found, strict=True))


def predicted_twice(model: Path, images: Path) -> list[Any]:
    predictor = predictor_of(model, (0, 1))
    results = predictor.predict_from_files(str(images), None, False, True, 0, 0)
    assert results
    return results + predictor.predict_from_files_sequential(str(images), None)


@pytest.mark.parametrize("stream", [None, types.SimpleNamespace(write=lambda text: None, flush=lambda: None)])
def test_a_program_without_a_terminals_streams(
    model: Path, images: Path, monkeypatch: pytest.MonkeyPatch, stream: Any
) -> None:
    """As those with windows only, or with an object of their own that takes what is printed."""
    expected = predicted_twice(model, images)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    predictor = nnUNetPredictor(device="cpu", allow_tqdm=True, verbose=True, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(model, (0, 1))
    found = predictor.predict_from_files(str(images), None, False, True, 0, 0)
    assert found is not None
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=False))
    collect(run_tasks([Task("one", max, (1, 2))], 0))


def test_a_program_in_inference_mode(model: Path, images: Path) -> None:
    expected = predicted_twice(model, images)
    with torch.inference_mode():
        found = predicted_twice(model, images)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_program_with_a_default_dtype_of_its_own(model: Path, images: Path) -> None:
    expected = predicted_twice(model, images)
    torch.set_default_dtype(torch.float64)
    try:
        found = predicted_twice(model, images)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
