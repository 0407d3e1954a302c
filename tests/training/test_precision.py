"""The precision of a training, and bf16 on CPUs: where it is kept from, and that it is reproducible elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Folders
from helpers import tiny_training

from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.training.determinism import common_seed
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_lite.training.precision import training_precision
from nnunet_lite.training.run_training import get_trainer_from_args
from nnunet_lite.utilities import device as devices

CPU = torch.device("cpu")
BF16 = torch.bfloat16


@pytest.fixture(autouse=True)
def hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_supports_bf16", lambda: True)


@pytest.fixture
def dataset(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    return nnunet_folders


def _plan(patch: list[int], **network: Any) -> ConfigurationManager:
    return ConfigurationManager({"patch_size": patch, "architecture": {"arch_kwargs": network}})


HALVES = [[1, 1, 1], [2, 2, 2], [2, 2, 2]]


@pytest.mark.parametrize(
    ("patch", "strides", "kernels", "depth"),
    [
        ([16, 8, 8], HALVES, [[3, 3, 3]] * 3, None),
        ([8, 16, 16], HALVES, [[3, 3, 3]] * 3, 2),
        ([8, 16, 16], HALVES, 3, 2),
        ([8, 16, 16], [1, 2, 2], None, 2),
        ([4, 16, 16], HALVES, [[3, 3, 3]] * 3, 2),  # the last stage has 1, the one before has 2
        ([4, 16, 16], HALVES, [[1, 3, 3]] * 3, None),
        ([2, 16, 16], [[1, 1, 1], [1, 2, 2]], [[1, 3, 3], [3, 3, 3]], 2),
        ([12, 16, 16], HALVES, [[3, 3, 3]] * 3, None),
        ([16, 16, 16], HALVES, [[5, 5, 5]] * 3, 4),
        ([8, 8], [[1, 1], [2, 2], [2, 2]], [[3, 3]] * 3, None),
        ([8, 16, 16], None, None, None),  # a network of another kind
    ],
)
def test_depths_that_bf16_is_not_safe_for(patch: list[int], strides: Any, kernels: Any, depth: int | None) -> None:
    plan = _plan(patch, strides=strides, kernel_sizes=kernels)
    automatic, remark = training_precision("auto", CPU, plan)
    chosen, warning = training_precision("bf16", CPU, plan)
    assert chosen is BF16
    if depth is None:
        assert (automatic, remark, warning) == (BF16, None, None)
    else:
        assert automatic is None
        assert remark is not None and remark.startswith("Training in float32") and f" {depth} voxels" in remark
        assert warning is not None and warning.startswith("WARNING") and f" {depth} voxels" in warning


def test_nothing_is_said_of_other_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = _plan([8, 16, 16], strides=HALVES)
    assert training_precision("float32", CPU, plan) == (None, None)
    assert training_precision("auto", torch.device("cuda"), plan) == (torch.float16, None)
    monkeypatch.setattr(devices, "cpu_supports_bf16", lambda: False)
    assert training_precision("auto", CPU, plan) == (None, None)


def _train(
    configuration: str,
    trainer_class: type[nnUNetTrainer] | None = None,
    patch: list[int] | None = None,
    **flags: Any,
) -> nnUNetTrainer:
    trainer = get_trainer_from_args(tiny_training.NAME, configuration, 0, device=CPU)
    if trainer_class is not None:
        trainer = trainer_class(**trainer.my_init_kwargs)
    if patch is not None:
        trainer.configuration_manager.configuration["patch_size"] = patch
    trainer.override(epochs=1, iterations=3, **{"seed": 1, **flags})
    trainer.disable_checkpointing = True
    trainer.run_training()
    return trainer


@pytest.mark.parametrize(("configuration", "patch"), [("2d", None), ("3d_fullres", [16, 8, 8])])
def test_equal_seeds_give_equal_weights_in_bf16(dataset: Folders, configuration: str, patch: list[int] | None) -> None:
    first, second = (_train(configuration, patch=patch, deterministic=True) for _ in range(2))
    assert first._autocast_type is BF16
    pairs = zip(first.network.parameters(), second.network.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_the_log_says_why_it_is_float32(dataset: Folders) -> None:
    trainer = _train("3d_fullres", patch=[8, 8, 8])
    assert trainer._autocast_type is None
    text = Path(trainer.log_file).read_text()
    assert text.count("Training in float32: this network reduces the patch to 2 voxels along the first axis") == 1


class BuildsItself(nnUNetTrainer):
    """As upstream's `initialize`, which knows no precision."""

    def initialize(self) -> None:
        self._set_batch_size_and_oversample()
        self.num_input_channels = 1
        self.network = self._build_network().to(self.device)
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        self.loss = self._build_loss()
        self.was_initialized = True


def test_an_initialize_of_ones_own_keeps_mixed_precision_and_draws_a_seed(dataset: Folders) -> None:
    trainer = _train("2d", BuildsItself, seed=None)
    assert trainer._autocast_type is BF16
    assert trainer.seed


def test_a_seed_is_drawn_only_where_none_is_given() -> None:
    assert common_seed(0) == 0
    assert common_seed(None) != common_seed(None)


class InFloat32(nnUNetTrainer):
    """Has a precision of its own."""

    precision = "float32"


def test_a_flag_comes_before_the_trainers_own_precision(dataset: Folders) -> None:
    trainer = InFloat32(**get_trainer_from_args(tiny_training.NAME, "2d", 0, device=CPU).my_init_kwargs)
    trainer.override()
    assert trainer.precision == "float32"
    trainer.override(precision="bf16")
    assert trainer.precision == "bf16"
