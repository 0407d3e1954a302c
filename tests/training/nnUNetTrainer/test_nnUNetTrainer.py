"""The trainer on a tiny dataset: hooks, resuming, requests to stop, a user's trainer."""

from __future__ import annotations

import copy
import itertools
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Folders
from helpers import tiny_training

from nnunet_lite.exceptions import (
    ArgumentError,
    CheckpointError,
    DatasetError,
    PathError,
    PlansError,
    StorageError,
    WorkerError,
)
from nnunet_lite.extensions import find_class
from nnunet_lite.models.checkpoint import load_checkpoint
from nnunet_lite.training.interruption import TrainingInterrupted
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_lite.training.nnUNetTrainer.variants.mirroring import nnUNetTrainerNoMirroring
from nnunet_lite.training.nnUNetTrainer.variants.training_length import nnUNetTrainer_5epochs
from nnunet_lite.training.run_training import Start, get_trainer_from_args, prepare_start

CPU = torch.device("cpu")


@pytest.fixture
def dataset(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    return nnunet_folders


def _trainer(configuration: str = "3d_fullres", trainer_class: type[nnUNetTrainer] = nnUNetTrainer) -> nnUNetTrainer:
    trainer = trainer_class(tiny_training.plans(), configuration, 0, tiny_training.dataset_json(), CPU)
    trainer.override(epochs=2, iterations=3, seed=1, precision="float32")
    return trainer


def _final(trainer: nnUNetTrainer) -> dict[str, Any]:
    return load_checkpoint(Path(trainer.output_folder, "checkpoint_final.pth"))


def _equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    weights = all(torch.equal(a["network_weights"][name], w) for name, w in b["network_weights"].items())
    states = a["optimizer_state"]["state"], b["optimizer_state"]["state"]
    momenta = all(torch.equal(states[0][i]["momentum_buffer"], s["momentum_buffer"]) for i, s in states[1].items())
    curves = ("train_losses", "val_losses", "ema_fg_dice", "mean_fg_dice", "lrs")
    return weights and momenta and all(str(a["logging"][key]) == str(b["logging"][key]) for key in curves)


def test_constructor_writes_nothing_and_leaves_its_arguments_alone(nnunet_folders: Folders) -> None:
    plans = {**tiny_training.plans(), "continue_training": True}
    before = copy.deepcopy(plans)
    trainer = nnUNetTrainer(plans, "3d_fullres", 0, tiny_training.dataset_json(), CPU)
    assert plans == before
    assert "continue_training" not in trainer.my_init_kwargs["plans"]
    assert not any(nnunet_folders.results.iterdir())
    assert trainer.output_folder.endswith("nnUNetTrainer__nnUNetPlans__3d_fullres" + os.sep + "fold_0")
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (1000, 250)
    assert trainer.num_val_iterations_per_epoch == 50
    assert trainer.grad_scaler is None


def test_constructor_without_folders(monkeypatch: pytest.MonkeyPatch, nnunet_folders: Folders) -> None:
    monkeypatch.delenv("nnUNet_results")
    with pytest.raises(PathError, match="nnUNet_results"):
        nnUNetTrainer(tiny_training.plans(), "2d", 0, tiny_training.dataset_json(), CPU)


def test_unknown_configuration(nnunet_folders: Folders) -> None:
    with pytest.raises(PlansError, match="3d_fullres"):
        nnUNetTrainer(tiny_training.plans(), "3d", 0, tiny_training.dataset_json(), CPU)


def test_flags_become_part_of_the_folder(nnunet_folders: Folders) -> None:
    trainer = nnUNetTrainer(tiny_training.plans(), "2d", "all", tiny_training.dataset_json(), CPU)
    trainer.override(epochs=20, iterations=100, seed=3)
    folder = Path(trainer.output_folder)
    assert folder.parent.name.split("__") == ["nnUNetTrainer_e20_i100_s3", "nnUNetPlans", "2d"]
    assert folder.name == "fold_all"
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (20, 100, 20)


def test_length_of_a_variant_and_of_a_constructor_that_sets_it(nnunet_folders: Folders) -> None:
    class Own(nnUNetTrainer):
        def __init__(
            self,
            plans: dict[str, Any],
            configuration: str,
            fold: int,
            dataset_json: dict[str, Any],
            device: torch.device = CPU,
        ) -> None:
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs = 7
            self.initial_lr = 1e-3

    trainer = Own(tiny_training.plans(), "2d", 0, tiny_training.dataset_json())
    optimizer_lr = _initialized(trainer, nnunet_folders).optimizer.param_groups[0]["lr"]
    assert (trainer.num_epochs, trainer.lr_scheduler.max_steps, optimizer_lr) == (7, 7, 1e-3)
    assert nnUNetTrainer_5epochs.num_epochs == 5
    assert find_class("trainer", "nnUNetTrainer_250epochs_NoMirroring").num_epochs == 250


def _initialized(trainer: nnUNetTrainer, folders: Folders) -> nnUNetTrainer:
    if not (folders.preprocessed / tiny_training.NAME).exists():
        tiny_training.write_dataset(folders.preprocessed)
    trainer.initialize()
    return trainer


def test_initialize_twice(dataset: Folders) -> None:
    trainer = _trainer()
    trainer.initialize()
    with pytest.raises(RuntimeError, match="twice"):
        trainer.initialize()


def test_hooks_are_called_in_upstreams_order(dataset: Folders) -> None:
    calls: list[str] = []
    names = (
        "initialize", "on_train_start", "on_epoch_start", "on_train_epoch_start", "train_step", "on_train_epoch_end",
        "on_validation_epoch_start", "validation_step", "on_validation_epoch_end", "on_epoch_end", "on_train_end",
    )  # fmt: skip

    def recording(name: str) -> Any:
        def hook(self: nnUNetTrainer, *args: Any) -> Any:
            calls.append(name)
            return getattr(nnUNetTrainer, name)(self, *args)

        return hook

    trainer_class = type("Recording", (nnUNetTrainer,), {name: recording(name) for name in names})
    trainer = _trainer("2d", trainer_class)
    trainer.run_training()
    epoch = [*names[2:4], *["train_step"] * 3, names[5], names[6], "validation_step", *names[8:10]]
    assert calls == ["on_train_start", "initialize", *epoch, *epoch, "on_train_end"]
    names_in_fold = {path.name for path in Path(trainer.output_folder).iterdir()}
    assert names_in_fold >= {"checkpoint_final.pth", "checkpoint_best.pth", "debug.json", "metrics.jsonl"}
    assert "progress.png" in names_in_fold
    assert "checkpoint_latest.pth" not in names_in_fold
    debug = json.loads(Path(trainer.output_folder, "debug.json").read_text())
    assert (debug["num_epochs"], debug["seed"], debug["network"]) == ("2", "1", "PlainConvUNet")
    beside = {path.name for path in Path(trainer.output_folder_base).iterdir()}
    assert beside == {"fold_0", "plans.json", "dataset.json"}


def test_checkpoint_has_upstreams_keys_and_plain_values(dataset: Folders) -> None:
    trainer = _trainer("2d")
    trainer.run_training()
    raw = torch.load(Path(trainer.output_folder, "checkpoint_final.pth"), weights_only=True)
    upstream = {
        "network_weights", "optimizer_state", "grad_scaler_state", "logging", "_best_ema", "current_epoch",
        "init_args", "trainer_name", "inference_allowed_mirroring_axes",
    }  # fmt: skip
    assert set(raw) == upstream | {"nnunet_lite"}
    assert (raw["current_epoch"], raw["trainer_name"], raw["inference_allowed_mirroring_axes"]) == (
        2, "nnUNetTrainer", (0, 1),
    )  # fmt: skip
    assert {len(values) for values in raw["logging"].values()} == {2}
    assert raw["nnunet_lite"]["seed"] == 1
    assert raw["optimizer_state"]["param_groups"][0]["fused"] is None


class _Stopping(nnUNetTrainer):
    """Gets a signal in one of its training steps."""

    stop_at = 4
    steps = 0

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.steps += 1
        if self.steps == self.stop_at:
            signal.raise_signal(signal.SIGTERM)
        return super().train_step(batch)


@pytest.mark.parametrize(("configuration", "stop_at"), [("2d", 2), ("3d_fullres", 5), ("3d_fullres", 6)])
def test_interrupted_and_continued_is_uninterrupted(dataset: Folders, configuration: str, stop_at: int) -> None:
    reference = _trainer(configuration)
    reference.run_training()
    stopped = _trainer(configuration, type("Stopping", (_Stopping,), {"stop_at": stop_at}))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingInterrupted) as caught:
        stopped.run_training()
    assert (caught.value.code, stopped.steps, signal.getsignal(signal.SIGTERM)) == (85, stop_at, before)
    continued = _trainer(configuration, type("Stopping", (nnUNetTrainer,), {}))
    continued.seed = None  # comes back with the checkpoint
    prepare_start(continued, Start(continue_training=True))
    epoch, iteration = divmod(stop_at - 1, 3)
    assert (continued.current_epoch, len(continued.epoch_outputs)) == (epoch, iteration + 1)
    continued.run_training()
    assert _equal(_final(reference), _final(continued))


def test_a_request_after_the_last_step_ends_before_the_final_validation(dataset: Folders) -> None:
    class Late(nnUNetTrainer):
        def on_train_end(self) -> None:
            signal.raise_signal(signal.SIGTERM)
            super().on_train_end()

    trainer = _trainer("2d", Late)
    trainer.override(epochs=1, iterations=1, seed=1, precision="float32")
    with pytest.raises(TrainingInterrupted):
        trainer.run_training()
    assert _final(trainer)["current_epoch"] == 1


def test_a_failed_worker_saves_first(dataset: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(nnUNetTrainer):
        def on_train_start(self) -> None:
            super().on_train_start()
            good = self.dataloader_train

            def batches() -> Any:
                yield next(good)
                raise WorkerError("case_3 cannot be read")

            self.dataloader_train = batches()

    trainer = _trainer("2d", Failing)
    with pytest.raises(WorkerError, match="case_3"):
        trainer.run_training()
    checkpoint = load_checkpoint(Path(trainer.output_folder, "checkpoint_latest.pth"))
    assert (checkpoint["current_epoch"], checkpoint["nnunet_lite"]["iterations_done"]) == (0, 1)
    assert {len(values) for values in checkpoint["logging"].values()} == {0}


def test_continue_with_nothing_there_starts_fresh(dataset: Folders) -> None:
    trainer = _trainer("2d")
    prepare_start(trainer, Start(continue_training=True))
    assert trainer.was_initialized
    assert trainer.current_epoch == 0


def test_finished_training_is_not_overwritten_by_accident(dataset: Folders) -> None:
    first = _trainer("2d")
    first.run_training()
    with pytest.raises(CheckpointError, match="--overwrite"):
        prepare_start(_trainer("2d"), Start())
    again = _trainer("2d")
    prepare_start(again, Start(overwrite=True))
    folder = Path(again.output_folder)
    assert sorted(path.name for path in folder.glob("*.pth")) == [
        "previous_checkpoint_best.pth", "previous_checkpoint_final.pth",
    ]  # fmt: skip
    again.run_training()
    assert sorted(path.name for path in folder.glob("*.pth")) == ["checkpoint_best.pth", "checkpoint_final.pth"]


def test_only_validation_needs_a_finished_training(dataset: Folders) -> None:
    with pytest.raises(CheckpointError, match="not finished"):
        prepare_start(_trainer("2d"), Start(only_run_validation=True))


def test_pretrained_weights_leave_the_heads_alone(dataset: Folders) -> None:
    first = _trainer("2d")
    first.run_training()
    second = _trainer("2d")
    second.override(epochs=2, iterations=3, seed=2)
    prepare_start(second, Start(pretrained_weights=str(Path(first.output_folder, "checkpoint_final.pth"))))
    own, given = second.network.state_dict(), _final(first)["network_weights"]
    same = {name: torch.equal(own[name], given[name]) for name in own}
    assert all(equal for name, equal in same.items() if ".seg_layers." not in name)
    assert not all(equal for name, equal in same.items() if ".seg_layers." in name)


def test_regions_with_ignore_label(dataset: Folders) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    document = tiny_training.dataset_json(labels, regions_class_order=[1, 2])
    trainer = nnUNetTrainer(tiny_training.plans(), "2d", 0, document, CPU)
    trainer.override(epochs=1, iterations=1, seed=1)
    trainer.run_training()
    assert len(trainer.logger.get_value("dice_per_class_or_region", 0)) == 2


def test_no_mirroring(dataset: Folders) -> None:
    trainer = _trainer("2d", nnUNetTrainerNoMirroring)
    trainer.run_training()
    assert _final(trainer)["inference_allowed_mirroring_axes"] is None


def test_trainer_of_a_user(dataset: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "my_trainer.py").write_text(
        "import torch\n"
        "from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class MyTrainer(nnUNetTrainer):\n"
        "    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,\n"
        "                 device: torch.device = torch.device('cuda')):\n"
        "        super().__init__(plans, configuration, fold, dataset_json, device)\n"
        "        self.num_epochs = 1\n"
        "        self.num_iterations_per_epoch = 1\n"
        "        self.num_val_iterations_per_epoch = 1\n"
        "        self.enable_deep_supervision = False\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    trainer = get_trainer_from_args(tiny_training.NAME, "2d", "0", "MyTrainer", device=CPU)
    trainer.run_training()
    assert _final(trainer)["trainer_name"] == "MyTrainer"
    with pytest.raises(ArgumentError, match="fold"):
        get_trainer_from_args(tiny_training.NAME, "2d", "-1", device=CPU)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # their thread's end
@pytest.mark.parametrize("processes", ["0", "2"])
def test_trainer_of_upstream_that_builds_its_loaders(
    dataset: Folders, monkeypatch: pytest.MonkeyPatch, processes: str
) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", str(Path(tiny_training.__file__).parent / "trainers"))
    monkeypatch.setenv("nnUNet_n_proc_DA", processes)
    trainer = get_trainer_from_args(tiny_training.NAME, "3d_fullres", "0", "OwnLoadersTrainer", device=CPU)
    trainer.run_training()
    assert _final(trainer)["current_epoch"] == 1
    assert trainer.dataloader_train.__class__.__module__.startswith("batchgenerators")
    assert not multiprocessing.active_children()
    debug = json.loads(Path(trainer.output_folder, "debug.json").read_text())
    assert "ComposeTransforms" in debug["dataloader_train.generator.transforms"]


def test_a_loader_of_a_user_that_fails(dataset: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        yield from itertools.islice(get_dataloaders()[0], 4)
        raise ValueError("out of luck")

    trainer = _trainer("2d")
    get_dataloaders = trainer.get_dataloaders
    monkeypatch.setattr(trainer, "get_dataloaders", lambda: (broken(), get_dataloaders()[1]))
    with pytest.raises(WorkerError, match="generator.*out of luck"):
        trainer.run_training()
    assert load_checkpoint(Path(trainer.output_folder, "checkpoint_latest.pth"))["current_epoch"] == 1


@pytest.mark.parametrize(
    ("damaged", "missing"), [("case_1.b2nd", False), ("case_2_seg.b2nd", True), ("case_0.pkl", False)]
)
def test_a_damaged_case_is_named_before_anything_is_written(dataset: Folders, damaged: str, missing: bool) -> None:
    file = dataset.preprocessed / tiny_training.NAME / "nnUNetPlans_2d" / damaged
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    if missing:
        file.unlink()
    with pytest.raises(
        DatasetError, match=rf"nnUNetPlans_2d: 1 of \d cases .* \({damaged[:6]}\); run nnUNetv2_preprocess"
    ):
        _trainer("2d").run_training()
    assert not any(dataset.results.rglob("*.pth"))


def test_a_new_split_of_too_few_cases_is_said(dataset: Folders, caplog: pytest.LogCaptureFixture) -> None:
    trainer = _trainer("2d")
    trainer.dataset_json["numTraining"] = 12
    trainer.do_split()
    trainer.do_split()
    assert caplog.text.count("5 cases are preprocessed, dataset.json speaks of 12") == 1


_LITTLE_ROOM = """
import resource, signal, sys
from nnunet_lite.cli.training import train_entry
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(train_entry(sys.argv[2:]))
"""


def test_no_room_for_a_checkpoint(dataset: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resource")
    monkeypatch.setenv("nnUNet_extTrainer", str(Path(tiny_training.__file__).parent / "trainers"))
    command = [tiny_training.NAME, "2d", "0", "-tr", "EverSavingTrainer", "-device", "cpu"]
    trainer = get_trainer_from_args(tiny_training.NAME, "2d", "0", "EverSavingTrainer", device=CPU)
    trainer.num_epochs = 3
    monkeypatch.setattr(trainer, "on_train_end", trainer._close_dataloaders)
    trainer.run_training()
    folder = Path(trainer.output_folder)
    before = {file.name: file.read_bytes() for file in folder.glob("checkpoint_*.pth")}
    room = min(map(len, before.values())) - 1000
    ended = subprocess.run(
        [sys.executable, "-c", _LITTLE_ROOM, str(room), *command, "--c"], capture_output=True, text=True, check=False
    )
    errors = [line for line in ended.stderr.splitlines() if not line.startswith("Warning: ")]
    assert (ended.returncode, len(errors)) == (2, 1), ended.stderr
    assert re.search(r"Error: .*checkpoint_\w+\.pth is larger than a file may be here .*with --c", errors[0])
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.name in before} == before
    assert not list(folder.glob(".*"))
    trainer = get_trainer_from_args(tiny_training.NAME, "2d", "0", "EverSavingTrainer", device=CPU)
    trainer.num_epochs = 4
    prepare_start(trainer, Start(continue_training=True))
    assert trainer.current_epoch >= 2
    trainer.run_training()
    assert _final(trainer)["current_epoch"] == 4


def test_no_room_for_a_picture_does_not_end_the_training(
    dataset: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise StorageError("No space left: progress.png was not written")

    monkeypatch.setattr("nnunet_lite.training.logging.loggers.draw_progress", full)
    trainer = _trainer("2d")
    trainer.run_training()
    assert _final(trainer)["current_epoch"] == 2
    assert "progress.png was not written; the training goes on" in caplog.text


def test_no_checkpoints_when_disabled(dataset: Folders) -> None:
    trainer = _trainer("2d")
    trainer.disable_checkpointing = True
    trainer.run_training()
    assert not list(Path(trainer.output_folder).glob("*.pth"))


def test_nothing_is_called_saved_when_checkpoints_are_disabled(dataset: Folders) -> None:
    trainer = _trainer("2d")
    trainer.disable_checkpointing = True
    trainer._stop.receive("SIGTERM")
    with pytest.raises(TrainingInterrupted):
        trainer.run_training()
    lines = Path(trainer.log_file).read_text()
    assert "Stopped on request" in lines
    assert "is saved" not in lines


def test_bf16_follows_float32(dataset: Folders) -> None:
    losses = {}
    for precision in ("float32", "bf16"):
        trainer = _trainer("3d_fullres")
        trainer.configuration_manager.configuration["patch_size"] = [
            16,
            8,
            8,
        ]  # of which 4 are left, as of planned ones
        trainer.override(epochs=1, iterations=2, seed=1, precision=precision)
        trainer.run_training()
        losses[precision] = trainer.logger.get_value("train_losses", 0)
    assert losses["bf16"] != losses["float32"]
    assert losses["bf16"] == pytest.approx(losses["float32"], abs=0.02)
