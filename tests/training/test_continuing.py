"""A training that is interrupted and continued, wherever and however often, is the uninterrupted one, bit for bit."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Folders
from helpers import tiny_training

from nnunet_lite.exceptions import CheckpointError, StorageError
from nnunet_lite.models.checkpoint import load_checkpoint, save_checkpoint
from nnunet_lite.training.interruption import TrainingInterrupted
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_lite.training.run_training import Start, _place, prepare_start

CPU = torch.device("cpu")
MIDDLE, BEFORE_VALIDATION, VALIDATION, BORDER = ("train", 2), ("train", 3), ("validation", 1), ("validation", 2)
SECOND_EPOCH, LAST = ("train", 4), ("validation", 4)


class _Watched(nnUNetTrainer):
    """Two epochs of three and two iterations; notes its batches, and gets a signal in the steps it is told."""

    stop_in: tuple[str, int] | None = None  # which step of which kind, counted over the whole training
    seen: list[tuple[str, int, float]]

    def _note(self, kind: str, batch: dict[str, Any]) -> None:
        done = self.current_epoch * (3 if kind == "train" else 2)
        position = done + (len(self.epoch_outputs) if kind == "train" else self._validated) + 1
        self.seen.append((kind, position, float(batch["data"].double().sum())))
        if self.stop_in == (kind, position):
            signal.raise_signal(signal.SIGTERM)

    def on_validation_epoch_start(self) -> None:
        self._validated = 0
        super().on_validation_epoch_start()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        self._note("train", batch)
        return super().train_step(batch)

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        self._note("validation", batch)
        self._validated += 1
        return super().validation_step(batch)


@pytest.fixture
def dataset(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    return nnunet_folders


def _trainer(configuration: str, precision: str = "float32", dropout: bool = False) -> _Watched:
    plans = tiny_training.plans()
    plans["configurations"]["3d_fullres"]["patch_size"] = [16, 8, 8]  # of which 4 are left, as of planned ones
    if dropout:
        architecture = plans["configurations"][configuration]["architecture"]["arch_kwargs"]
        axes = configuration[0]
        architecture |= {"dropout_op": f"torch.nn.Dropout{axes}d", "dropout_op_kwargs": {"p": 0.3}}
    trainer = _Watched(plans, configuration, 0, tiny_training.dataset_json(), CPU)
    trainer.override(epochs=2, iterations=3, precision=precision)
    trainer.num_val_iterations_per_epoch = 2
    trainer.seen = []
    return trainer


def _run(trainer: _Watched) -> dict[str, Any]:
    trainer.run_training()
    return load_checkpoint(Path(trainer.output_folder, "checkpoint_final.pth"))


def _run_in_pieces(stops: list[tuple[str, int]], **options: Any) -> tuple[dict[str, Any], list[Any]]:
    seen: list[Any] = []
    for number, stop in enumerate([*stops, None]):
        trainer = _trainer(**options)
        trainer.stop_in = stop
        if number:
            prepare_start(trainer, Start(continue_training=True))
        else:
            trainer.seed = 1  # later pieces have it from the checkpoint
        if stop is None:
            final = _run(trainer)
        else:
            with pytest.raises(TrainingInterrupted):
                trainer.run_training()
        seen += trainer.seen
    return final, seen


def _differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Names of what is not bit for bit the same in two checkpoints."""
    different = [name for name, w in b["network_weights"].items() if not torch.equal(a["network_weights"][name], w)]
    states = a["optimizer_state"]["state"], b["optimizer_state"]["state"]
    different += [f"momentum {i}" for i in states[1] if not torch.equal(*(s[i]["momentum_buffer"] for s in states))]
    curves = [key for key in b["logging"] if not key.startswith("epoch_")]
    different += [key for key in curves if str(a["logging"][key]) != str(b["logging"][key])]
    own = a["nnunet_lite"], b["nnunet_lite"]
    if own[0]["seed"] != own[1]["seed"]:
        different.append("seed")
    if not torch.equal(*(one["random_states"]["cpu"] for one in own)):
        different.append("random state")
    return different + ["_best_ema"] * (a["_best_ema"] != b["_best_ema"])


@pytest.mark.parametrize(
    ("configuration", "precision", "stops"),
    [
        ("2d", "float32", [MIDDLE]),
        ("3d_fullres", "float32", [BEFORE_VALIDATION]),
        ("2d", "bf16", [VALIDATION, SECOND_EPOCH]),
        ("3d_fullres", "bf16", [BORDER]),
        ("3d_fullres", "float32", [MIDDLE, VALIDATION, SECOND_EPOCH]),
    ],
)
def test_in_pieces_is_as_in_one_go(
    dataset: Folders, configuration: str, precision: str, stops: list[tuple[str, int]]
) -> None:
    options = {"configuration": configuration, "precision": precision, "dropout": True}
    reference = _trainer(**options)
    reference.seed = 1
    whole = _run(reference)
    for file in Path(reference.output_folder).glob("*.pth"):
        file.unlink()
    pieces, seen = _run_in_pieces(stops, **options)
    assert _differences(whole, pieces) == []
    assert sorted(set(seen)) == sorted(reference.seen)  # validation batches are drawn again
    trained = [position for kind, position, _ in seen if kind == "train"]
    assert trained == [1, 2, 3, 4, 5, 6]  # none is


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize(
    "stops", [[MIDDLE], [BEFORE_VALIDATION], [VALIDATION], [BORDER], [SECOND_EPOCH], [LAST], [MIDDLE, VALIDATION]]
)
def test_everywhere(
    dataset: Folders,
    monkeypatch: pytest.MonkeyPatch,
    configuration: str,
    precision: str,
    workers: str,
    stops: list[tuple[str, int]],
) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", workers)
    test_in_pieces_is_as_in_one_go(dataset, configuration, precision, stops)


def test_workers_may_come_and_go(dataset: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = _trainer("2d")
    reference.seed = 1
    whole = _run(reference)
    for file in Path(reference.output_folder).glob("*.pth"):
        file.unlink()
    first = _trainer("2d")
    first.seed, first.stop_in = 1, MIDDLE
    with pytest.raises(TrainingInterrupted):
        first.run_training()
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    second = _trainer("2d")
    prepare_start(second, Start(continue_training=True))
    assert _differences(whole, _run(second)) == []


def test_damaged_latest_falls_back_to_best_then_says_so(dataset: Folders, caplog: pytest.LogCaptureFixture) -> None:
    first = _trainer("2d")
    first.seed, first.stop_in = 1, SECOND_EPOCH
    with pytest.raises(TrainingInterrupted):
        first.run_training()
    latest, best = (Path(first.output_folder, f"checkpoint_{name}.pth") for name in ("latest", "best"))
    latest.write_bytes(latest.read_bytes()[:-500])
    second = _trainer("2d")
    prepare_start(second, Start(continue_training=True))
    assert f"{latest} (" in caplog.text and "is no checkpoint, or a damaged one" in caplog.text
    assert (second.current_epoch, len(second.epoch_outputs), second.seed) == (1, 0, 1)
    best.write_bytes(b"")
    with pytest.raises(CheckpointError, match="checkpoint_best.pth, checkpoint_latest.pth cannot be read"):
        prepare_start(_trainer("2d"), Start(continue_training=True))
    assert {latest.name, best.name} == {file.name for file in Path(first.output_folder).glob("*.pth")}


def test_pretrained_weights_are_for_the_start_only(dataset: Folders) -> None:
    donor = _trainer("2d")
    donor.seed = 7
    file = Path(donor.output_folder).parent / "donor.pth"
    save_checkpoint({"network_weights": _run(donor)["network_weights"]}, file)
    for old in Path(donor.output_folder).glob("*.pth"):
        old.unlink()
    start = Start(continue_training=True, pretrained_weights=str(file))
    first = _trainer("2d")
    prepare_start(first, start)
    name = next(name for name in first.network.state_dict() if ".seg_layers." not in name)
    assert torch.equal(first.network.state_dict()[name], load_checkpoint(file)["network_weights"][name])
    first.stop_in = MIDDLE
    with pytest.raises(TrainingInterrupted):
        first.run_training()
    second = _trainer("2d")
    prepare_start(second, start)
    assert len(second.epoch_outputs) == 2


def test_a_failed_iteration_leaves_what_was_before_it(dataset: Folders) -> None:
    class Failing(_Watched):
        def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
            if len(self.seen) == 2:
                torch.rand(3)
                raise RuntimeError("CUDA out of memory")
            return super().train_step(batch)

    reference = _trainer("2d", dropout=True)
    reference.seed = 1
    whole = _run(reference)
    for file in Path(reference.output_folder).glob("*.pth"):
        file.unlink()
    plans = reference.plans_manager.plans
    failing = Failing(plans, "2d", 0, tiny_training.dataset_json(), CPU)
    failing.override(epochs=2, iterations=3, precision="float32")
    failing.num_val_iterations_per_epoch, failing.seen, failing.seed = 2, [], 1
    with pytest.raises(RuntimeError, match="out of memory"):
        failing.run_training()
    latest = Path(failing.output_folder, "checkpoint_latest.pth")
    assert load_checkpoint(latest)["nnunet_lite"]["iterations_done"] == 2
    continued = _trainer("2d", dropout=True)
    Path(continued.output_folder).mkdir(parents=True, exist_ok=True)
    os.replace(latest, Path(continued.output_folder, latest.name))
    prepare_start(continued, Start(continue_training=True))
    assert _differences(whole, _run(continued)) == []


def test_a_full_disk_while_stopping_is_said(dataset: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("No space left on the disk")

    trainer = _trainer("2d")
    trainer.stop_in = MIDDLE
    monkeypatch.setattr("nnunet_lite.training.nnUNetTrainer.nnUNetTrainer.save_checkpoint", full)
    with pytest.raises(StorageError, match="No space left on the disk .with --c it goes on from the last checkpoint"):
        trainer.run_training()


def test_checkpoints_of_upstream_are_continued(
    shared: Path, dataset: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    file = shared / "goldens" / "Dataset004_Hippocampus" / "predictions" / "model" / "fold_0" / "checkpoint_final.pth"
    if not file.is_file():
        pytest.skip(f"no {file}")
    content = load_checkpoint(file)
    arguments = content["init_args"]
    plans = {**arguments["plans"], "dataset_name": tiny_training.NAME}
    trainer = nnUNetTrainer(plans, arguments["configuration"], 0, arguments["dataset_json"], CPU)
    folder = Path(trainer.output_folder)
    folder.mkdir(parents=True)
    (folder / "checkpoint_latest.pth").write_bytes(file.read_bytes())
    cases = dataset.preprocessed / tiny_training.NAME
    (cases / "nnUNetPlans_3d").rename(cases / trainer.configuration_manager.data_identifier)
    prepare_start(trainer, Start(continue_training=True))
    assert trainer.current_epoch == content["current_epoch"]
    assert trainer.logger.get_value("train_losses") == [float(loss) for loss in content["logging"]["train_losses"]]
    own = trainer.network.state_dict()
    assert all(torch.equal(own[name], weight) for name, weight in content["network_weights"].items())
    assert "has no state of an optimizer, which starts afresh" in caplog.text  # this recording was stripped of it
    foreign = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}, {"lr": 0.1, "params": [1]}]}
    with pytest.raises(CheckpointError, match="its optimizer is not that of nnUNetTrainer.*-pretrained_weights"):
        trainer.load_checkpoint({**content, "optimizer_state": foreign})


class _Arrays(_Watched):
    """Returns numpy arrays from its steps, as upstream's trainers do."""

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"loss": super().train_step(batch)["loss"].numpy()}


def test_steps_that_return_arrays_are_continued(dataset: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "_Watched", _Arrays)
    whole = _run(_trainer("2d"))
    pieces, _ = _run_in_pieces([MIDDLE], configuration="2d")
    assert pieces["logging"]["train_losses"] == whole["logging"]["train_losses"]


def test_an_epoch_that_is_continued_lasts_as_long_as_its_parts(dataset: Folders) -> None:
    started = _trainer("2d")
    started.stop_in = MIDDLE
    before = time.time()
    with pytest.raises(TrainingInterrupted):
        started.run_training()
    state = load_checkpoint(Path(started.output_folder, "checkpoint_latest.pth"))
    assert 0 < state["nnunet_lite"]["seconds_of_epoch"] < time.time() - before
    again = _trainer("2d")
    again.load_checkpoint({**state, "nnunet_lite": {**state["nnunet_lite"], "seconds_of_epoch": 1000.0}})
    for epoch, earlier in ((0, 1000.0), (1, 0.0)):
        again.current_epoch = epoch
        again.on_epoch_start()
        spent = time.time() - again.logger.get_value("epoch_start_timestamps", epoch)
        assert earlier <= spent < earlier + 100


def test_where_a_training_stands(dataset: Folders) -> None:
    trainer = _trainer("2d")
    trainer.num_epochs = trainer.current_epoch = 1
    assert _place(trainer) == "its one epoch is done, its end and the final validation are repeated"
    trainer.num_epochs = trainer.current_epoch = 2
    assert _place(trainer).startswith("all 2 epochs are done")
