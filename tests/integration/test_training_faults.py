"""What goes wrong around a training: plans edited into nonsense, missing folders, full disks, killed processes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Folders
from helpers import tiny_training
from helpers.commands import complaint, files_below, half_written, run, start, succeed

from nnunet_lite.utilities import files

HELPERS = Path(__file__).resolve().parents[1] / "helpers"
TRAIN = ("nnUNetv2_train", tiny_training.NAME, "2d", 0, "-device", "cpu")
SHORT = (*TRAIN, "--epochs", 1, "--iterations", 1)


@pytest.fixture
def dataset(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    return nnunet_folders


def _refused(folders: Folders, capfd: Any, *words: str, command: tuple[object, ...] = TRAIN) -> None:
    before = files_below(folders.preprocessed, folders.results)
    line = complaint(capfd, *command)
    for word in words:
        assert word in line
    assert files_below(folders.preprocessed, folders.results) == before
    assert not any(folders.results.iterdir())


# plans and splits that a person has edited


@pytest.mark.parametrize("fault", ["splits", "no validation cases", "data"])
def test_a_training_that_is_refused_keeps_the_earlier_model(dataset: Folders, capfd: Any, fault: str) -> None:
    folder = dataset.preprocessed / tiny_training.NAME
    model = dataset.results / tiny_training.NAME / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0"
    model.mkdir(parents=True)
    for name in ("final", "best"):
        (model / f"checkpoint_{name}.pth").write_text(name)
    cases = list(tiny_training.CASES)
    if fault == "splits":
        (folder / "splits_final.json").write_text('[{"train": ["nobody"], "val": ["case_0"]}]')
    elif fault == "no validation cases":
        (folder / "splits_final.json").write_text(json.dumps([{"train": cases, "val": []}]))
    else:
        for file in (folder / "nnUNetPlans_2d").glob("case_3*.pkl"):
            file.write_bytes(b"")
            break
    capfd.readouterr()
    code = run(*TRAIN, "--overwrite")
    assert code == 2, capfd.readouterr().err
    assert {file.name for file in model.glob("*.pth")} == {"checkpoint_final.pth", "checkpoint_best.pth"}
    assert (model / "checkpoint_final.pth").read_text() == "final"
    if fault == "splits":
        assert "Starting anew" not in capfd.readouterr().err


def test_a_training_of_other_settings_is_named(dataset: Folders, capfd: Any) -> None:
    folder = dataset.results / tiny_training.NAME
    for name in ("nnUNetTrainer_e7_s1", "Other_e7"):
        fold = folder / f"{name}__nnUNetPlans__2d" / "fold_0"
        fold.mkdir(parents=True)
        (fold / "checkpoint_latest.pth").touch()
    (dataset.preprocessed / tiny_training.NAME / "splits_final.json").write_text("[]")  # ends it early
    assert run(*TRAIN, "--c") == 2
    error = capfd.readouterr()
    text = " ".join((error.out + error.err).split())
    flags = "nnUNetTrainer_e7_s1__nnUNetPlans__2d (--epochs 7 --seed 1)"
    assert f"starting a new training; to continue another one, give its flags: {flags}" in text
    assert "Other_e7" not in text


def _edit_plans(folders: Folders, **changes: Any) -> None:
    file = folders.preprocessed / tiny_training.NAME / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    configuration = plans["configurations"]["2d"]
    for name, value in changes.items():
        target = configuration if name in configuration else configuration["architecture"]
        (target if name in target else target["arch_kwargs"])[name] = value
    file.write_text(json.dumps(plans))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patch_size": [10, 8]}, ["patch_size [10, 8]", "divisible by [4, 4]", "[8, 8]"]),
        ({"patch_size": [8, 8, 8]}, ["patch_size [8, 8, 8] has 3 axes", "strides have [2]"]),
        ({"patch_size": [0, 8]}, ["patch_size", "0"]),
        ({"batch_size": 0}, ["batch_size", "0"]),
        ({"batch_size": -2}, ["batch_size", "-2"]),
        ({"batch_size": "two"}, ["batch_size", "two"]),
        ({"network_class_name": "my.networks.UNet"}, ["my.networks.UNet", "PlainConvUNet"]),
        ({"strides": [[1, 1], [2, 2]]}, ["strides"]),
        ({"strides": "none"}, ["arch_kwargs"]),
        ({"features_per_stage": [4, 8]}, ["features_per_stage"]),
        ({"conv_op": "torch.nn.Linear"}, ["torch.nn.Linear"]),
        ({"data_identifier": "elsewhere"}, ["elsewhere", "nnUNetv2_preprocess"]),
    ],
)
def test_plans_edited_into_nonsense(dataset: Folders, capfd: Any, change: dict[str, Any], words: list[str]) -> None:
    _edit_plans(dataset, **change)
    _refused(dataset, capfd, *words)


def test_missing_folders(dataset: Folders, capfd: Any) -> None:
    folder = dataset.preprocessed / tiny_training.NAME
    shutil.rmtree(folder / "nnUNetPlans_2d")
    _refused(dataset, capfd, "nnUNetPlans_2d", "nnUNetv2_preprocess")
    (folder / "nnUNetPlans_2d").mkdir()
    _refused(dataset, capfd, "nnUNetPlans_2d", "no preprocessed cases")
    (folder / "dataset.json").unlink()
    _refused(dataset, capfd, "dataset.json")
    shutil.rmtree(folder)
    _refused(dataset, capfd, tiny_training.NAME)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"train": ["case_0"', ["splits_final.json", "no valid JSON"]),
        ('[{"train": ["case_0", "patient_7"], "val": ["case_1"]}]', ["patient_7", "split 0"]),
        ('[{"train": ["case_0", "case_1"], "val": ["case_1"]}]', ["case_1", "both trains and validates", "'all'"]),
        ('[{"train": ["case_0"], "val": []}]', ["no validation cases"]),
    ],
)
def test_splits_that_cannot_be_used(dataset: Folders, capfd: Any, text: str, words: list[str]) -> None:
    (dataset.preprocessed / tiny_training.NAME / "splits_final.json").write_text(text)
    _refused(dataset, capfd, *words)


def test_a_fold_beyond_the_file_is_a_random_split(dataset: Folders, capfd: Any) -> None:
    succeed(*TRAIN[:3], 7, *SHORT[4:])
    file = dataset.preprocessed / tiny_training.NAME / "splits_final.json"
    said = [line for line in capfd.readouterr().err.splitlines() if "random 80:20" in line]
    assert set(said) == {f"Warning: {file} has folds 0 to 4: fold 7 is a random 80:20 split"}
    folder = dataset.results / tiny_training.NAME / "nnUNetTrainer_e1_i1__nnUNetPlans__2d" / "fold_7"
    assert len(json.loads((folder / "validation" / "summary.json").read_text())["metric_per_case"]) == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--lr", 0), ["--lr", "0"]),
        (("--lr", "inf"), ["--lr", "inf"]),
        (("--lr", "fast"), ["--lr", "fast"]),
        (("--batch-size", 0), ["--batch-size", "0"]),
        (("--batch-size", 2.5), ["--batch-size", "2.5"]),
        (("--epochs", 0), ["--epochs", "0"]),
        (("--seed", -1), ["--seed"]),
        (("--seed", 2**63), ["--seed", str(2**63)]),
        (("--batchsize", 2), ["--batchsize", "did you mean --batch-size"]),
    ],
)
def test_wrong_values_of_our_flags(dataset: Folders, capfd: Any, flags: tuple[Any, ...], words: list[str]) -> None:
    _refused(dataset, capfd, *words, command=(*TRAIN, *flags))


def test_validation_takes_no_other_weights(dataset: Folders, capfd: Any) -> None:
    words = ["--val", "leave out -pretrained_weights a.pth"]
    _refused(dataset, capfd, *words, command=(*SHORT, "--val", "-pretrained_weights", "a.pth"))


def test_a_finished_training_says_how_to_validate_it(dataset: Folders, capfd: Any) -> None:
    fold = dataset.results / tiny_training.NAME / "nnUNetTrainer_e1_i1__nnUNetPlans__2d" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_final.pth").touch()
    line = complaint(capfd, *SHORT)
    assert (
        f"{fold} holds a finished training; validate it with --val (with checkpoint_best: --val --val_best), " in line
    )


# full disks


@pytest.fixture
def full_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the disk be full whenever a file of this name is to be written."""

    def fill(name: str) -> None:
        flush, opened = files._flush_to_disk, Path.open

        def full_flush(path: Path) -> None:
            if path.name.endswith(f".tmp.{name}"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            flush(path)

        def full_open(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if mode == "a" and path.name.startswith(name):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return opened(path, mode, *rest, **more)

        monkeypatch.setattr(files, "_flush_to_disk", full_flush)
        monkeypatch.setattr(Path, "open", full_open)
        monkeypatch.setattr("nnunet_lite.training.validation.usable_processes", lambda _: 0)

    return fill


def _whole(folders: Folders) -> None:
    """Every JSON file can be read and every checkpoint be loaded."""
    from nnunet_lite.models.checkpoint import load_checkpoint

    for file in folders.results.rglob("*.json"):
        json.loads(file.read_text())
    for file in folders.results.rglob("*.pth"):
        load_checkpoint(file)
    assert half_written(folders.results) == []
    assert not list(folders.results.rglob(".in_use"))


@pytest.mark.parametrize(
    "name",
    [
        "splits_final.json", "plans.json", "dataset.json", "debug.json", "network_architecture.txt",
        "checkpoint_best.pth", "checkpoint_final.pth", "case_2.nii.gz", "summary.json",
    ],
)  # fmt: skip
def test_a_full_disk_ends_the_training_in_one_line(
    dataset: Folders, capfd: Any, full_for: Callable[[str], None], name: str
) -> None:
    full_for(name)
    if name == "case_2.nii.gz":
        splits = [{"train": ["case_0", "case_1"], "val": ["case_2"]}]
        (dataset.preprocessed / tiny_training.NAME / "splits_final.json").write_text(json.dumps(splits))
    line = complaint(capfd, *SHORT)
    assert "No space left" in line and name.partition(".")[0] in line
    _whole(dataset)


@pytest.mark.parametrize("name", ["training_log", "metrics.jsonl", "progress.png"])
def test_a_full_disk_is_a_warning_where_a_training_can_do_without(
    dataset: Folders, capfd: Any, full_for: Callable[[str], None], name: str
) -> None:
    full_for(name)
    succeed(*SHORT)
    warnings = [line for line in capfd.readouterr().err.splitlines() if name in line]
    assert warnings and all(line.startswith("Warning: ") and line.endswith("the training goes on") for line in warnings)
    assert len(warnings) <= 2
    _whole(dataset)


# processes that are killed


def _children(pid: int) -> list[int]:
    """Workers of a process: those that make batches or export, not multiprocessing's own helper."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            line = (entry / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == str(pid) and b"spawn_main" in line:
            found.append(int(entry.name))
    return sorted(found)


def _training(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> tuple[subprocess.Popen[str], Path]:
    """A training with two workers that is in its iterations, and its folder."""
    monkeypatch.setenv("nnUNet_extTrainer", str(HELPERS / "trainers"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    process = start(*TRAIN, "-tr", "EverSavingTrainer")
    fold = folders.results / tiny_training.NAME / "EverSavingTrainer__nnUNetPlans__2d" / "fold_0"
    deadline = time.monotonic() + 120
    while not (fold / "checkpoint_latest.pth").is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return process, fold


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
def test_a_killed_data_worker_ends_the_training_with_its_state_saved(
    dataset: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunet_lite.models.checkpoint import load_checkpoint

    process, fold = _training(dataset, monkeypatch)
    workers = _children(process.pid)
    assert len(workers) == 3  # two for training, one for validation
    os.kill(workers[0], signal.SIGKILL)
    said, errors = process.communicate(timeout=60)
    lines = [line for line in errors.splitlines() if not line.startswith("Warning: ")]
    assert (process.returncode, len(lines)) == (2, 1), errors
    assert "SIGKILL" in lines[0] and "case_" in lines[0]
    assert load_checkpoint(fold / "checkpoint_latest.pth")["current_epoch"] >= 1
    assert half_written(dataset.results) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
def test_a_killed_training_leaves_no_processes_and_a_fold_that_can_be_continued(
    dataset: Folders, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    process, fold = _training(dataset, monkeypatch)
    line = complaint(capfd, *TRAIN, "-tr", "EverSavingTrainer", "--c")
    assert f"{fold} is in use by process {process.pid} on " in line
    workers = _children(process.pid)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert (fold / ".in_use").exists()
    monkeypatch.setattr("nnunet_lite.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer.run_training", lambda _: None)
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    succeed(*TRAIN, "-tr", "EverSavingTrainer", "--c")
    assert f"Continuing from {fold / 'checkpoint_'}" in capfd.readouterr().out
    assert not (fold / ".in_use").exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
def test_a_killed_export_worker_costs_nothing(dataset: Folders, capfd: Any) -> None:
    before, killed = set(_children(os.getpid())), []

    def kill_the_first() -> None:
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            for pid in set(_children(os.getpid())) - before:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.005)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    succeed(*SHORT)
    killer.join()
    assert len(killed) == 1
    folder = dataset.results / tiny_training.NAME / "nnUNetTrainer_e1_i1__nnUNetPlans__2d" / "fold_0" / "validation"
    assert len(json.loads((folder / "summary.json").read_text())["metric_per_case"]) == 1
    _whole(dataset)


@pytest.mark.slow
def test_five_folds_at_once_on_an_empty_folder(dataset: Folders) -> None:
    processes = [start(*TRAIN[:3], fold, *SHORT[4:], "--seed", 1) for fold in range(5)]
    ends = [(*process.communicate(timeout=500), process.returncode) for process in processes]
    assert [code for *_, code in ends] == [0] * 5, ends
    model = dataset.results / tiny_training.NAME / "nnUNetTrainer_e1_i1_s1__nnUNetPlans__2d"
    splits = json.loads((dataset.preprocessed / tiny_training.NAME / "splits_final.json").read_text())
    for fold, split in enumerate(splits):
        scored = json.loads((model / f"fold_{fold}" / "validation" / "summary.json").read_text())["metric_per_case"]
        assert [Path(case["prediction_file"]).name[:6] for case in scored] == split["val"]
    _whole(dataset)
