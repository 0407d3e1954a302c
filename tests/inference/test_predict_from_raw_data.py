"""The predictor: its inputs and outputs, folds, workers, failures; and parity with a recorded model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import write_model

from nnunet_lite.cli.inference import predict_from_modelfolder_entry
from nnunet_lite.exceptions import ArgumentError, CheckpointError, DatasetError, ExtensionError, NumericalError
from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor
from nnunet_lite.utilities.files import load_json, load_pickle, save_json

sitk = pytest.importorskip("SimpleITK")


def predictor_of(model, folds=None, **options):
    predictor = nnUNetPredictor(device="cpu", allow_tqdm=False, **{"use_mirroring": False, **options})
    predictor.initialize_from_trained_model_folder(model, folds)
    return predictor


def read(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def test_attributes_after_loading(model):
    predictor = predictor_of(model)
    assert predictor.auto_detect_available_folds(model) == [0, 1]
    assert len(predictor.list_of_parameters) == 2 and predictor.trainer_name == "nnUNetTrainer"
    assert predictor.allowed_mirroring_axes == (0, 1, 2)
    assert predictor.configuration_manager.patch_size == [8, 8, 8]
    assert predictor.label_manager.num_segmentation_heads == 3
    assert not predictor.perform_everything_on_device


def test_files_of_a_folder(model, images, tmp_path):
    out = tmp_path / "out"
    predictor = predictor_of(model, 0)
    assert predictor.predict_from_files(images, out) == [None] * 3
    assert sorted(file.name for file in out.iterdir()) == [
        "a.nii.gz",
        "b.nii.gz",
        "c.nii.gz",
        "dataset.json",
        "plans.json",
        "predict_from_raw_data_args.json",
    ]
    assert sorted(load_json(out / "predict_from_raw_data_args.json")) == [
        "folder_with_segs_from_prev_stage",
        "list_of_lists_or_source_folder",
        "nnunet_lite",
        "num_parts",
        "num_processes_preprocessing",
        "num_processes_segmentation_export",
        "output_folder_or_list_of_truncated_output_files",
        "overwrite",
        "part_id",
        "save_probabilities",
    ]
    assert load_json(out / "plans.json") == load_json(model / "plans.json")
    assert list(load_json(out / "dataset.json")["labels"]) == ["background", "a", "b"]
    results = predictor.predict_from_files_sequential(images, None)
    for result, name in zip(results, "abc", strict=True):
        assert result.dtype == np.uint8
        assert np.array_equal(result, read(out / f"{name}.nii.gz"))


@pytest.mark.parametrize(
    ("device", "words"), [("cuda", "no CUDA GPU"), ("cuda:1", "no CUDA GPU"), ("mps", "no Apple GPU")]
)
def test_a_device_that_is_not_there(model, monkeypatch, device, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    loaded = predictor_of(model, 0)
    predictor = nnUNetPredictor(device=device)
    with pytest.raises(ArgumentError, match=f"{words} here; use -device cpu"):
        predictor.initialize_from_trained_model_folder(model, 0)
    with pytest.raises(ArgumentError, match=words):
        predictor.manual_initialization(
            loaded.network,
            loaded.plans_manager,
            loaded.configuration_manager,
            None,
            loaded.dataset_json,
            "nnUNetTrainer",
            None,
        )
    assert predictor.network is None


def test_a_model_of_unknown_origin_is_not_recorded(model, images, tmp_path):
    predictor = predictor_of(model, 0)
    predictor.manual_initialization(
        predictor.network,
        predictor.plans_manager,
        predictor.configuration_manager,
        None,
        predictor.dataset_json,
        "nnUNetTrainer",
        None,
    )
    predictor.predict_from_files_sequential(images, tmp_path / "out")
    assert "nnunet_lite" not in load_json(tmp_path / "out" / "predict_from_raw_data_args.json")


def test_a_transposed_and_cropped_case_from_end_to_end(model, tmp_path):
    """Spec 03, 11.6, last line: an image of 10 x 14 x 18 with two empty slices and three empty rows before the rest."""
    plans = load_json(model / "plans.json")
    save_json({**plans, "transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]}, model / "plans.json")
    values = np.random.default_rng(0).uniform(1, 2, (10, 14, 18)).astype(np.float32)
    values[:2] = 0
    values[:, :3] = 0
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "a_0000.nii.gz"))
    predictor_of(model, 0).predict_from_files([[str(tmp_path / "a_0000.nii.gz")]], [str(tmp_path / "a")], True)
    properties = load_pickle(tmp_path / "a.pkl")
    assert tuple(properties["shape_before_cropping"]) == (18, 10, 14)
    assert np.array_equal(properties["bbox_used_for_cropping"], [[0, 18], [2, 10], [3, 14]])
    assert tuple(properties["shape_after_cropping_and_before_resampling"]) == (18, 8, 11)
    probabilities = np.load(tmp_path / "a.npz")["probabilities"]
    assert probabilities.shape == (3, 10, 14, 18) and probabilities.dtype == np.float32
    assert probabilities[:, 0, 0, 0].tolist() == [1, 0, 0]
    assert np.array_equal(read(tmp_path / "a.nii.gz"), probabilities.argmax(0))


def test_workers_give_the_same(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr("nnunet_lite.inference.case_resources._WORKER_START", {"preprocessing": 0.0, "export": 0.0})
    monkeypatch.setattr("nnunet_lite.inference.data_iterators._LARGE", 0)
    predictor = predictor_of(model, 0)
    here = predictor.predict_from_files_sequential(images, None, save_probabilities=True)
    there = predictor.predict_from_files(images, None, True, True, 1, 1)
    for (seg, probabilities), (other, other_probabilities) in zip(here, there, strict=True):
        assert np.array_equal(seg, other) and np.array_equal(probabilities, other_probabilities)


def test_ensemble_is_the_mean_of_logits(model):
    data = torch.randn(1, 10, 8, 9, generator=torch.Generator().manual_seed(0))
    single = [predictor_of(model, fold).predict_logits_from_preprocessed_data(data) for fold in (0, 1)]
    both = predictor_of(model, ("0", 1)).predict_logits_from_preprocessed_data(data)
    assert both.dtype == torch.float16 and both.shape == (3, 10, 8, 9)
    assert torch.allclose(both.float(), (single[0].float() + single[1].float()) / 2, atol=2e-3)
    assert not torch.equal(single[0], single[1])


def test_network_without_parameters(model):
    loaded = predictor_of(model, 1)
    bare = nnUNetPredictor(device="cpu", allow_tqdm=False, use_mirroring=False)
    bare.manual_initialization(
        loaded.network,
        loaded.plans_manager,
        loaded.configuration_manager,
        None,
        loaded.dataset_json,
        "nnUNetTrainer",
        None,
    )
    data = torch.randn(1, 8, 8, 8)
    logits = bare.predict_logits_from_preprocessed_data(data)
    assert torch.equal(logits, loaded.predict_logits_from_preprocessed_data(data))
    assert torch.equal(logits, bare.predict_sliding_window_return_logits(data))


def test_arrays(model, images, tmp_path):
    predictor = predictor_of(model, 0, use_mirroring=True)
    image = read(images / "b_0000.nii.gz")[None]
    properties = {"spacing": [4, 0.8, 0.7]}
    seg, probabilities = predictor.predict_single_npy_array(image, properties, None, None, True)
    assert properties == {"spacing": [4, 0.8, 0.7]}
    assert seg.shape == image.shape[1:] and probabilities.shape == (3, *seg.shape)
    assert np.array_equal(predictor.predict_from_files_sequential(images, None)[1], seg)
    (again,) = predictor.predict_from_list_of_npy_arrays(image, None, properties, None, 0, False, 0)
    assert np.array_equal(again, seg)
    items = predictor.get_data_iterator_from_raw_npy_data([image], None, [properties], None, 0)
    ((other, _),) = predictor.predict_from_data_iterator(items, True, 0)
    assert np.array_equal(other, seg)
    with pytest.raises(ArgumentError, match="2 images"):
        predictor.predict_from_list_of_npy_arrays([image, image], None, [properties], None)


@pytest.mark.parametrize(
    ("shape", "properties", "expected"),
    [
        ((4, 5, 6), {"spacing": [1, 1, 1]}, r"shape \(4, 5, 6\); expected \(1, d0, d1, d2\)"),
        ((0, 4, 5, 6), {"spacing": [1, 1, 1]}, r"shape \(0, 4, 5, 6\)"),
        ((2, 4, 5, 6), {"spacing": [1, 1, 1]}, r"expected \(1, d0"),
        ((1, 4, 5, 6), {}, "spacing None; expected three"),
        ((1, 4, 5, 6), {"spacing": [1, 1]}, r"spacing \[1, 1\]"),
        ((1, 4, 5, 6), {"spacing": [1, 0, 1]}, "three positive"),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(model, shape, properties, expected):
    with pytest.raises(DatasetError, match=expected):
        predictor_of(model, 0).predict_single_npy_array(np.ones(shape, np.float32), properties)


def test_parts_and_continuing(model, images, tmp_path):
    out = tmp_path / "out"
    predictor = predictor_of(model, 0)
    predictor.predict_from_files(
        images, out, num_processes_preprocessing=0, num_processes_segmentation_export=0, num_parts=2, part_id=1
    )
    assert [file.name for file in out.glob("*.nii.gz")] == ["b.nii.gz"]
    (out / "c.nii.gz").write_bytes(b"cut off")
    before = (out / "b.nii.gz").stat().st_mtime_ns
    assert predictor.predict_from_files(images, out, overwrite=False) == [None, None]
    assert (out / "b.nii.gz").stat().st_mtime_ns == before and read(out / "c.nii.gz").shape == (8, 8, 8)
    assert predictor.predict_from_files(images, out, overwrite=False) is None
    assert predictor.predict_from_files(images, out, True, overwrite=False) == [None] * 3
    assert (out / "a.npz").is_file()


def test_failed_cases_are_reported_and_the_others_predicted(model, images, tmp_path):
    (images / "a_0000.nii.gz").write_bytes(b"no image")
    (images / "c_0000.nii.gz").write_bytes((images / "c_0000.nii.gz").read_bytes()[:-200])
    with pytest.raises(DatasetError, match=r"2 of 3 cases failed:\n  a: .*\n  c: ") as caught:
        predictor_of(model, 0).predict_from_files(images, tmp_path / "out")
    assert "a_0000.nii.gz" in str(caught.value)
    assert [file.name for file in (tmp_path / "out").glob("*.nii.gz")] == ["b.nii.gz"]


def test_output_that_is_no_number_names_the_case(model, images):
    predictor = predictor_of(model, 0)
    with torch.no_grad():
        predictor.list_of_parameters[0]["decoder.seg_layers.0.bias"].fill_(float("nan"))
    with pytest.raises(NumericalError, match=r"a: the network put out NaN .* tile \[0:8, 0:8, 0:8\]"):
        predictor.predict_from_files([[str(images / "a_0000.nii.gz")]], None)


def test_cascade_needs_the_previous_stage(tmp_path, images):
    model = write_model(tmp_path / "cascade", "3d_cascade_fullres", (0,))
    predictor = predictor_of(model)
    with pytest.raises(ArgumentError, match="3d_lowres first"):
        predictor.predict_from_files(images, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    previous = tmp_path / "previous"
    previous.mkdir()
    for file in images.iterdir():
        image = sitk.ReadImage(str(file))
        labels = sitk.GetImageFromArray((sitk.GetArrayFromImage(image) > 0).astype(np.uint8))
        labels.CopyInformation(image)
        sitk.WriteImage(labels, str(previous / file.name.replace("_0000", "")))
    predictor.predict_from_files(images, tmp_path / "out", folder_with_segs_from_prev_stage=previous)
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 3


def test_command_predicts_a_single_file(model, images, tmp_path, capfd):
    out = tmp_path / "result.nii.gz"
    arguments = [
        "-i",
        str(images / "a_0000.nii.gz"),
        "-o",
        str(out),
        "-m",
        str(model),
        "-device",
        "cpu",
        "-f",
        "0",
        "--disable_progress_bar",
    ]
    assert predict_from_modelfolder_entry(arguments) == 0
    assert read(out).shape == (9, 10, 11)
    (images / "a_0000.nii.gz").write_bytes(b"no image")
    assert predict_from_modelfolder_entry(arguments) == 2
    assert "a_0000.nii.gz" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("folder", "mirroring"), [("notta_seq", False), pytest.param("tta_prob_cli", True, marks=pytest.mark.slow)]
)
def test_recorded_model_predicts_the_same(goldens, shared_data, tmp_path, folder, mirroring):
    recorded = goldens / "Dataset004_Hippocampus" / "predictions"
    predictor = predictor_of(recorded / "model", 0, use_mirroring=mirroring)
    names = ["hippocampus_017"] if mirroring else ["hippocampus_017", "hippocampus_019"]
    images = tmp_path / "images"
    images.mkdir()
    for name in names:
        shutil.copyfile(
            shared_data / "Dataset004_Hippocampus" / "imagesTr" / f"{name}_0000.nii.gz", images / f"{name}_0000.nii.gz"
        )
    predictor.predict_from_files(images, tmp_path / "out", save_probabilities=mirroring)
    for name in names:
        same = read(tmp_path / "out" / f"{name}.nii.gz") == read(recorded / folder / f"{name}.nii.gz")
        assert same.mean() >= 0.99999  # all on the machine that recorded them
        if mirroring:
            files = (where / f"{name}.npz" for where in (tmp_path / "out", recorded / folder))
            ours, theirs = (np.load(file)["probabilities"] for file in files)
            difference = np.abs(ours - theirs)
            assert ours.dtype == theirs.dtype == np.float32
            assert (difference < 1e-3).mean() > 0.99999  # all there; another rounding shows in the corners


def test_missing_fold(model):
    with pytest.raises(CheckpointError, match=r"fold_0 \(checkpoint_final\.pth\), fold_1.*that are there: -f 0 1$"):
        predictor_of(model, 3)


@pytest.mark.parametrize("step", [0, -0.5, 1.5])
def test_a_step_that_cannot_work_is_refused_at_once(step):
    with pytest.raises(ArgumentError, match="tile step size"):
        nnUNetPredictor(tile_step_size=step, device="cpu")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preprocessor_name", "LostOne"),
        ("normalization_schemes", ["LostOne"]),
        ("resampling_fn_probabilities", "LostOne"),
    ],
)
def test_a_class_nobody_has_is_said_once_before_a_case_is_read(model, images, tmp_path, monkeypatch, key, value):
    monkeypatch.setattr("nnunet_lite.inference.prediction_request.find_cases", None)  # must not be reached
    predictor = predictor_of(model, 0)
    predictor.configuration_manager.configuration[key] = value
    with pytest.raises(ExtensionError, match="LostOne"):
        predictor.predict_from_files(images, tmp_path / "out")
    assert not (tmp_path / "out").exists()
