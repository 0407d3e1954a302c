"""Our own flags: valid, in the folder's name, in checkpoint and debug.json, and in force with every optimizer."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Folders
from helpers import tiny_training

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.extensions import find_class
from nnunet_lite.models.checkpoint import load_checkpoint
from nnunet_lite.training.determinism import set_determinism
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_lite.training.overrides import Overrides, trainer_and_flags, trainer_and_overrides
from nnunet_lite.training.run_training import Start, prepare_start

CPU = torch.device("cpu")


@pytest.fixture
def dataset(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    return nnunet_folders


def _trainer(trainer_class: type[nnUNetTrainer] = nnUNetTrainer, **flags: Any) -> nnUNetTrainer:
    trainer = trainer_class(tiny_training.plans(), "2d", 0, tiny_training.dataset_json(), CPU)
    trainer.override(**{"epochs": 1, "iterations": 1, "precision": "float32", **flags})
    return trainer


def test_names() -> None:
    assert Overrides().name_parts() == []
    everything = Overrides(20, 100, 1e-05, 4, 1, True)
    assert "_".join(everything.name_parts()) == "e20_i100_lr1e-05_b4_s1_det"
    assert "__" not in "_".join(Overrides(lr=0.001, deterministic=True).name_parts())
    assert Overrides(lr=0.1).name_parts() != Overrides(lr=0.10000001).name_parts()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"iterations": -1}, "--iterations -1"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"lr": 0.0}, "--lr 0.0"),
        ({"lr": float("nan")}, "--lr nan"),
        ({"lr": float("inf")}, "--lr inf"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**63}, "--seed 9223372036854775808"),
    ],
)
def test_values_that_cannot_work(nnunet_folders: Folders, flags: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=f"{words}: expected"):
        _trainer(**flags)


def test_flags_are_in_folder_checkpoint_and_debug_json_and_the_plans_stay(dataset: Folders) -> None:
    plans = copy.deepcopy(tiny_training.plans())
    trainer = _trainer(lr=0.5, batch_size=3, seed=2)
    trainer.run_training()
    assert Path(trainer.output_folder_base).name == "nnUNetTrainer_e1_i1_lr0.5_b3_s2__nnUNetPlans__2d"
    checkpoint = load_checkpoint(Path(trainer.output_folder, "checkpoint_final.pth"))
    recorded = checkpoint["nnunet_lite"]["hyperparameters"]
    names = ("initial_lr", "batch_size", "seed", "num_epochs", "num_iterations_per_epoch", "deterministic")
    assert [recorded[name] for name in names] == [0.5, 3, 2, 1, 1, False]
    assert checkpoint["logging"]["lrs"] == [0.5]
    debug = json.loads(Path(trainer.output_folder, "debug.json").read_text())
    assert (debug["initial_lr"], debug["batch_size"], debug["deterministic"]) == ("0.5", "3", "False")
    assert checkpoint["init_args"]["plans"] == plans
    assert json.loads(Path(trainer.output_folder_base, "plans.json").read_text()) == plans
    on_disk = json.loads((dataset.preprocessed / tiny_training.NAME / "nnUNetPlans.json").read_text())
    assert on_disk["configurations"]["2d"]["batch_size"] == 2


def test_batches_have_the_size_that_was_asked_for(dataset: Folders) -> None:
    trainer = _trainer(batch_size=5)
    trainer.on_train_start()
    assert next(trainer.dataloader_train)["data"].shape[0] == 5


class _OwnRate(nnUNetTrainer):
    """Sets its learning rate in the constructor, as upstream's users do."""

    def __init__(self, plans: Any, configuration: str, fold: Any, dataset_json: Any, device: Any = CPU) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = 1e-3


class _Stubborn(nnUNetTrainer):
    """Ignores initial_lr."""

    def configure_optimizers(self) -> tuple[Any, Any]:
        optimizer = torch.optim.SGD(self.network.parameters(), 0.25)
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


class _TorchSchedule(nnUNetTrainer):
    """A schedule of torch's, that begins far below its learning rate."""

    def configure_optimizers(self) -> tuple[Any, Any]:
        optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr)
        return optimizer, torch.optim.lr_scheduler.LinearLR(optimizer, 0.01)


@pytest.mark.parametrize(
    "name",
    ["nnUNetTrainer", "nnUNetTrainerAdam3en4", "nnUNetTrainerVanillaAdam", "nnUNetTrainerCosAnneal", _OwnRate],
)
def test_lr_takes_effect(dataset: Folders, name: Any) -> None:
    trainer = _trainer(find_class("trainer", name) if isinstance(name, str) else name, lr=0.125)
    trainer.initialize()
    trainer.lr_scheduler.step(0)
    assert trainer.optimizer.param_groups[0]["lr"] == 0.125


def test_lr_with_warm_up(dataset: Folders) -> None:
    trainer = _trainer(find_class("trainer", "nnUNetTrainer_warmup"), lr=0.125, epochs=100)
    trainer.initialize()
    trainer.lr_scheduler.step(49)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.125)
    _trainer(_TorchSchedule, lr=0.125).initialize()


def test_a_trainer_that_ignores_lr_is_refused(dataset: Folders) -> None:
    with pytest.raises(ArgumentError, match=r"--lr 0.125: _Stubborn.configure_optimizers does not use self.initial_lr"):
        _trainer(_Stubborn, lr=0.125).initialize()
    _trainer(_Stubborn).initialize()


@pytest.fixture
def put_determinism_back() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


def _weights(seed: int) -> dict[str, torch.Tensor]:
    trainer = _trainer(seed=seed, deterministic=True, iterations=3)
    set_determinism(trainer.deterministic, CPU)
    trainer.run_training()
    assert "_det__" in trainer.output_folder_base
    weights = load_checkpoint(Path(trainer.output_folder, "checkpoint_final.pth"))["network_weights"]
    assert isinstance(weights, dict)
    return weights


@pytest.mark.usefixtures("put_determinism_back")
def test_equal_seeds_give_equal_weights_and_others_do_not(dataset: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    first, again, other = _weights(1), _weights(1), _weights(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert torch.are_deterministic_algorithms_enabled()


def test_another_seed_or_rate_than_the_checkpoints(dataset: Folders, caplog: pytest.LogCaptureFixture) -> None:
    first = _trainer(seed=1)
    first.run_training()
    again = _trainer(seed=1)
    again.overrides = again.overrides._replace(seed=2)
    with pytest.raises(ArgumentError, match=r"--seed 2: .*checkpoint_final.pth was trained with seed 1"):
        prepare_start(again, Start(continue_training=True))
    again = _trainer(seed=1)
    again.initial_lr = 0.02
    prepare_start(again, Start(continue_training=True))
    assert "was trained with initial_lr 0.01; it goes on with 0.02" in caplog.text


@pytest.mark.parametrize(
    "chosen",
    [
        Overrides(),
        Overrides(epochs=20),
        Overrides(5, 10, 1e-05, 4, 0, True),
        Overrides(lr=0.001, deterministic=True),
        Overrides(batch_size=3, seed=2**63 - 1),
    ],
)
@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "nnUNetTrainer_5epochs", "My_e_Trainer", "nnUNetTrainerDA5ord0"])
def test_flags_of_a_folders_name(trainer: str, chosen: Overrides) -> None:
    name = "_".join([trainer, *chosen.name_parts()])
    assert trainer_and_overrides(name) == (trainer, chosen) and trainer_and_flags(name) == (trainer, chosen.flags())
