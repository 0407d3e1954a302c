"""Model folders as upstream's releases wrote them, old and new: each predicts the same (spec 03, 1.2, 5.2, 10)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import tiny_plans, write_model

from nnunet_lite.exceptions import CheckpointError, PlansError
from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor
from nnunet_lite.models.checkpoint import copy_weights, load_checkpoint
from nnunet_lite.models.trained_model import TrainedModel

Change = Callable[[dict[str, Any]], None]
_OPTIONAL = ("label_manager", "plans_name", "dataset_name", "experiment_planner_used")


def predict(folder: Path) -> np.ndarray:
    predictor = nnUNetPredictor(device="cpu", allow_tqdm=False, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(folder, 0)
    image = np.random.default_rng(0).normal(size=(1, 9, 8, 10)).astype(np.float32)
    return predictor.predict_single_npy_array(image, {"spacing": [1, 1, 1]}, None, None, True)[1]


def edit(file: Path, change: Change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def as_in_the_first_releases(plans: dict[str, Any]) -> None:
    """Single keys for the network, statistics by modality, no class of the labels."""
    for configuration in plans["configurations"].values():
        if "architecture" in configuration:
            arguments = configuration.pop("architecture")["arch_kwargs"]
            configuration.update(
                UNet_class_name="PlainConvUNet",
                UNet_base_num_features=4,
                unet_max_num_features=320,
                n_conv_per_stage_encoder=arguments["n_conv_per_stage"],
                n_conv_per_stage_decoder=arguments["n_conv_per_stage_decoder"],
                num_pool_per_axis=[1, 1, 1],
                pool_op_kernel_sizes=arguments["strides"],
                conv_kernel_sizes=arguments["kernel_sizes"],
            )
    statistics = plans.pop("foreground_intensity_properties_per_channel")
    plans["foreground_intensity_properties_by_modality"] = statistics
    del plans["label_manager"]


def without_optional_keys(plans: dict[str, Any]) -> None:
    for key in _OPTIONAL:
        del plans[key]
    for configuration in plans["configurations"].values():
        for key in ("data_identifier", "batch_size", "batch_dice"):
            configuration.pop(key, None)


def with_modality(dataset_json: dict[str, Any]) -> None:
    dataset_json["modality"] = dataset_json.pop("channel_names")


@pytest.mark.parametrize(
    ("document", "change"),
    [("plans", as_in_the_first_releases), ("plans", without_optional_keys), ("dataset", with_modality)],
)
def test_documents(tmp_path: Path, document: str, change: Change) -> None:
    folder = write_model(tmp_path / "model")
    expected = predict(folder)
    edit(folder / f"{document}.json", change)
    assert np.array_equal(predict(folder), expected)


def minimal(content: dict[str, Any]) -> dict[str, Any]:
    return {key: content[key] for key in ("network_weights", "trainer_name", "init_args")}


def everything(content: dict[str, Any]) -> dict[str, Any]:
    """All keys of upstream, numpy numbers and the device object among them."""
    weights = content["network_weights"]
    state = {"state": {0: {"momentum_buffer": next(iter(weights.values()))}}, "param_groups": [{"lr": 0.01}]}
    init = {"plans": tiny_plans(), "fold": 0, "dataset_json": {}, "device": torch.device("cuda")}
    curves = {"logging": {"mean_fg_dice": [np.float64(0.5)], "lrs": [0.01]}, "_best_ema": np.float32(0.5)}
    rest = {"optimizer_state": state, "grad_scaler_state": {"scale": 65536.0}, "current_epoch": 1000}
    return {**content, **rest, **curves, "init_args": {**init, **content["init_args"]}}


def prefixed(prefix: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(content: dict[str, Any]) -> dict[str, Any]:
        return {**content, "network_weights": {prefix + k: v for k, v in content["network_weights"].items()}}

    return change


def every_tensor_once(content: dict[str, Any]) -> dict[str, Any]:
    weights = content["network_weights"]
    once = {key: weights[key] for key in weights if "all_modules" not in key and "decoder.encoder" not in key}
    assert len(once) < len(weights) / 2
    return {**content, "network_weights": once}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize(
    "change", [minimal, everything, prefixed("module."), prefixed("_orig_mod."), every_tensor_once]
)
def test_checkpoints(tmp_path: Path, change: Any, zipped: bool) -> None:
    folder = write_model(tmp_path / "model")
    expected = predict(folder)
    file = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=True)
    torch.save(change(content), file, _use_new_zipfile_serialization=zipped)
    assert np.array_equal(predict(folder), expected)
    file.replace(folder / "fold_0" / "checkpoint_best.pth")
    with pytest.raises(CheckpointError, match=r"fold_0 \(checkpoint_best\.pth\)"):
        predict(folder)


def test_the_checkpoint_names_the_configuration(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "a folder of any name", "3d_lowres", (0,))
    predictor = nnUNetPredictor(device="cpu")
    predictor.initialize_from_trained_model_folder(folder)
    assert predictor.configuration_manager.name == "3d_lowres"
    edit(folder / "plans.json", lambda plans: plans["configurations"].pop("3d_lowres"))
    with pytest.raises(PlansError, match="3d_lowres.*3d_fullres, 3d_cascade_fullres"):
        predict(folder)


@pytest.mark.parametrize("axes", [5, "012", [0, 3], {"0": 1}])
def test_mirroring_axes_that_are_none(tmp_path: Path, axes: Any) -> None:
    folder = write_model(tmp_path / "model", folds=(0,))
    file = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(file, weights_only=True), "inference_allowed_mirroring_axes": axes}, file)
    with pytest.raises(CheckpointError, match=r"inference_allowed_mirroring_axes is .* expected spatial axes"):
        TrainedModel(folder).load_members()


def test_a_weight_that_is_no_tensor(tmp_path: Path) -> None:
    torch.save({"network_weights": {"a": torch.ones(1), "b": 3}}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="its weight b is no tensor"):
        load_checkpoint(tmp_path / "c.pth")


def test_members_hold_their_weights_once_and_nothing_of_the_file(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", folds=(0,))
    (member,) = TrainedModel(folder).load_members()
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in member.weights.values()}
    file = folder / "fold_0" / "checkpoint_final.pth"
    unmapped = load_checkpoint(file)["network_weights"]
    assert len(storages) == len({tensor.data_ptr() for tensor in unmapped.values()}) < len(member.weights) / 2
    # in a mapped file each tensor is a part of one large storage; copies own exactly what they need
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in storages.values())
    file.write_bytes(b"\0" * file.stat().st_size)  # a mapped tensor would change with its file
    assert all(torch.equal(member.weights[name], tensor) for name, tensor in unmapped.items())


def test_views_of_one_storage_stay_apart() -> None:
    whole = torch.arange(6.0)
    copies = copy_weights({"whole": whole, "row": whole.view(2, 3), "again": whole, "nothing": torch.empty(0)})
    assert copies["whole"] is copies["again"] and copies["row"].shape == (2, 3) and copies["nothing"].shape == (0,)
    assert torch.equal(copies["row"], whole.view(2, 3))
