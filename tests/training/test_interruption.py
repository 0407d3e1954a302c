"""Requests to stop as schedulers send them: to real commands, at every stage, to the process or to its group."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Folders
from helpers import tiny_training
from helpers.commands import half_written, start, succeed

from nnunet_lite.cli.training import run_stoppable
from nnunet_lite.models.checkpoint import load_checkpoint
from nnunet_lite.training import interruption
from nnunet_lite.training.interruption import StopRequest, TrainingInterrupted, ends_at_once
from nnunet_lite.training.slow_iterations import SlowIterationGuard

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

TRAIN = ("nnUNetv2_train", tiny_training.NAME, "2d", 0, "-device", "cpu", "--precision", "float32", "-tr")
_TRAINERS = '''
import time
import torch
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class Slow(nnUNetTrainer):
    """Two epochs of three iterations and one; stops to be looked at where STAGE says."""

    def wait(self, stage):
        if stage == self.stage and not self.waited:
            self.waited = True
            print(f"now: {stage}", flush=True)
            for _ in range(self.naps):
                time.sleep(0.02)

    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        import os
        self.stage = os.environ["STAGE"]
        self.naps = int(os.environ.get("NAPS", 100))
        self.waited = os.environ.get("STAGE") == "none"
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 3, 2
        self.seed = 5
        self._guard.patience = 0.5 if self.stage.startswith("slow") else 60.0
        self.wait("constructor")

    def initialize(self):
        super().initialize()
        self.wait("initialize")

    def on_train_start(self):
        super().on_train_start()
        self.wait("on_train_start")

    def train_step(self, batch):
        if self.current_epoch == 1:
            self.wait("train_step")
            if self.stage == "slow train_step" and not self.waited:
                self.waited = True
                torch.rand(5)  # as dropout would
                print("now: slow train_step", flush=True)
                busy = torch.ones(2, 2)
                time.sleep(60)
        return super().train_step(batch)

    def validation_step(self, batch):
        self.wait("validation_step")
        return super().validation_step(batch)

    def save_checkpoint(self, filename):
        super().save_checkpoint(filename)
        self.wait("save_checkpoint")

    def perform_actual_validation(self, save_probabilities=False):
        super().perform_actual_validation(save_probabilities)
        self.wait("perform_actual_validation")
'''


@pytest.fixture
def dataset(nnunet_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    folder = tmp_path / "trainers"
    folder.mkdir()
    (folder / "slow_trainers.py").write_text(_TRAINERS)
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    return nnunet_folders


def _fold(folders: Folders, trainer: str = "Slow") -> Path:
    return folders.results / tiny_training.NAME / f"{trainer}__nnUNetPlans__2d" / "fold_0"


def _until(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    seen = []
    while text := process.stdout.readline():
        seen.append(text)
        if line in text:
            return
    raise AssertionError(f"{line!r} was not said: {''.join(seen)}{process.communicate()[1]}")


def _stopped(
    monkeypatch: pytest.MonkeyPatch, stage: str, number: int, group: bool = False, more: tuple[str, ...] = ()
) -> str:
    """Start a training, send the signal at the given stage, and return what was said after it; exit code 85."""
    monkeypatch.setenv("STAGE", stage)
    process = start(*TRAIN, "Slow", *more, new_session=True)
    _until(process, f"now: {stage}")
    (os.killpg if group else os.kill)(process.pid, number)
    said, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (85, ""), said + errors
    return said


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("constructor", marks=pytest.mark.slow),
        "initialize",
        pytest.param("on_train_start", marks=pytest.mark.slow),
    ],
)
def test_before_the_first_iteration(dataset: Folders, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    said = _stopped(monkeypatch, stage, signal.SIGUSR1)
    assert "there is nothing to save now" in said
    assert said.rstrip().endswith("Go on with the same command and --c")
    assert not list(dataset.results.rglob("*.pth"))
    assert half_written(dataset.results) == []


def _continued(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("STAGE", "none")
    succeed(*TRAIN, "Slow", "--c")
    return load_checkpoint(_fold(folders) / "checkpoint_final.pth")


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    weights = all(torch.equal(a["network_weights"][name], w) for name, w in b["network_weights"].items())
    return weights and all(str(a["logging"][key]) == str(b["logging"][key]) for key in ("train_losses", "val_losses"))


def test_at_every_stage_of_the_loop_and_the_end_is_that_of_an_uninterrupted_one(
    dataset: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = _continued(dataset, monkeypatch)
    assert (_fold(dataset) / "validation" / "summary.json").is_file()
    for stage, number, group, words in (
        ("validation_step", signal.SIGUSR1, False, "SIGUSR1 received"),
        ("save_checkpoint", signal.SIGINT, True, "SIGINT received"),
        ("slow train_step", signal.SIGTERM, True, "the state before it is saved. Go on with"),
    ):
        for file in _fold(dataset).glob("*.pth"):
            file.unlink()
        assert words in _stopped(monkeypatch, stage, number, group)
        assert (_fold(dataset) / "checkpoint_latest.pth").is_file()
        assert _same(_continued(dataset, monkeypatch), reference), stage


def test_in_the_final_validation_only_that_is_left(dataset: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    said = _stopped(monkeypatch, "perform_actual_validation", signal.SIGTERM, group=True)
    assert said.rstrip().endswith("Go on with the same command and --val")
    final = _fold(dataset) / "checkpoint_final.pth"
    before = final.read_bytes()
    monkeypatch.setenv("STAGE", "none")
    succeed(*TRAIN, "Slow", "--val")
    assert final.read_bytes() == before
    trained = load_checkpoint(final)
    succeed(*TRAIN, "Slow", "--c")  # what a scheduler does that knows nothing of stages
    assert _same(load_checkpoint(final), trained)


@pytest.mark.slow
def test_signals_to_the_group_spare_the_workers(dataset: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    said = _stopped(monkeypatch, "train_step", signal.SIGUSR1, group=True)
    assert "Stopped on request; the state is saved" in said
    assert load_checkpoint(_fold(dataset) / "checkpoint_latest.pth")["current_epoch"] == 1


_STARTING = """
import multiprocessing, os, signal, sys, time
from nnunet_lite.utilities.processes import environment, leave_ctrl_c_to_parent

def work(connection):
    leave_ctrl_c_to_parent()
    connection.send(os.getpid())
    time.sleep(600)

if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: None)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=work, args=(theirs,), daemon=True)
    with environment({}):
        worker.start()
    os.killpg(0, signal.SIGUSR1)
    os.killpg(0, signal.SIGTERM)
    assert ours.poll(60) and ours.recv() == worker.pid
    worker.terminate()  # from now on it can be ended
    worker.join(60)
    sys.exit(0 if worker.exitcode == -signal.SIGTERM else 3)
"""


def test_a_worker_that_is_starting_survives_what_its_parent_is_to_decide(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_STARTING)
    ended = subprocess.run(
        [sys.executable, str(script)], start_new_session=True, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_several_signals_are_one_request_but_a_second_ctrl_c_is_obeyed() -> None:
    with StopRequest() as stop:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            signal.raise_signal(number)
        assert stop.received == "SIGUSR1"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(TrainingInterrupted) as caught, ends_at_once("--val"):
        signal.raise_signal(number)
    assert (caught.value.code, caught.value.flag, signal.getsignal(number)) == (85, "--val", before)


@pytest.fixture
def handlers() -> Iterator[list[int]]:
    """The signals, whose handlers are put back after the test."""
    numbers = interruption.signal_numbers()
    before = [signal.getsignal(number) for number in numbers]
    yield numbers
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_a_rank_that_leaves_is_not_disturbed(monkeypatch: pytest.MonkeyPatch, handlers: list[int]) -> None:
    monkeypatch.setattr(interruption, "_is_rank", lambda: True)
    with pytest.raises(TrainingInterrupted), ends_at_once(), ends_at_once("--val"):
        try:
            signal.raise_signal(signal.SIGUSR1)
        finally:
            signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert {signal.getsignal(number) for number in handlers} == {signal.SIG_IGN}


@pytest.mark.parametrize(("flags", "advice"), [([], " and --c"), (["--c"], ""), (["--val"], "")])
def test_a_command_that_ends_is_not_disturbed(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, handlers: list[int], flags: list[str], advice: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", "777", "2d", "0", *flags])
    asked = argparse.Namespace(val=False)  # the advice is right even where a rank did not know of --val
    with pytest.raises(TrainingInterrupted):
        run_stoppable(asked, None, lambda _: signal.raise_signal(signal.SIGTERM))
    signal.raise_signal(signal.SIGTERM)
    assert {signal.getsignal(number) for number in handlers} == {signal.SIG_IGN}
    assert capsys.readouterr().out.splitlines()[-1] == f"Go on with the same command{advice}"


@pytest.mark.parametrize(("left_out", "kept"), [(None, 2), (1, 1)])
def test_an_update_that_was_left_out_is_repeated_after_a_save_of_the_guard(left_out: int | None, kept: int) -> None:
    class Trainer:
        is_ddp, disable_checkpointing, current_epoch, output_folder = False, False, 3, ""
        epoch_outputs = ("first", "second")
        _finite_updates = SimpleNamespace(left_out=lambda: left_out)
        saved: tuple[Any, ...] = ()

        def save_checkpoint(self, filename: str) -> None:
            self.saved = (filename, self.current_epoch, self.epoch_outputs)

    trainer = Trainer()
    SlowIterationGuard(trainer)._save()
    assert trainer.saved == ("checkpoint_latest.pth", 2, ("first", "second")[:kept])
    assert (trainer.current_epoch, trainer.epoch_outputs) == (3, ("first", "second"))
