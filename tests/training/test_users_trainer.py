"""A user's trainer that fails in any of its hooks, or returns what it should not: one line that names the hook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Folders
from helpers import tiny_training
from helpers.commands import half_written, run

HOOKS = (  # spec 02, 1.4
    "__init__", "initialize", "_do_i_compile", "_save_debug_information", "build_network_architecture",
    "_get_deep_supervision_scales", "_set_batch_size_and_oversample", "_build_loss",
    "configure_rotation_dummyDA_mirroring_and_inital_patch_size", "print_to_log_file", "print_plans",
    "configure_optimizers", "plot_network_architecture", "do_split", "get_tr_and_val_datasets", "get_dataloaders",
    "get_training_transforms", "get_validation_transforms", "set_deep_supervision_enabled", "on_train_start",
    "on_train_end", "on_epoch_start", "on_epoch_end", "on_train_epoch_start", "train_step", "on_train_epoch_end",
    "on_validation_epoch_start", "validation_step", "on_validation_epoch_end", "save_checkpoint", "load_checkpoint",
    "perform_actual_validation", "run_training",
)  # fmt: skip
_STATIC = ("build_network_architecture", "get_training_transforms", "get_validation_transforms")
_LAST_LINE = 6  # of the file, where the error is

TRAIN = ("nnUNetv2_train", tiny_training.NAME, "2d", 0, "-device", "cpu", "-tr", "MyTrainer", "--epochs", 1)


@pytest.fixture
def dataset(nnunet_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "mine"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    return nnunet_folders


def _write(tmp_path: Path, hook: str, *body: str) -> Path:
    """A trainer with one hook; a function of its own name each time, since modules are imported once."""
    file = tmp_path / "mine" / "my_trainer.py"
    signature = "plans_manager, *others, **more" if hook == "build_network_architecture" else "*arguments, **more"
    if hook == "__init__":
        signature = "self, plans, configuration, fold, dataset_json, device"
    decorator = "    @staticmethod" if hook in _STATIC else "    # an ordinary method"
    lines = (
        "from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer",
        "class MyTrainer(nnUNetTrainer):",
        "    num_iterations_per_epoch, num_val_iterations_per_epoch = 1, 1",
        decorator,
        f"    def {hook}({signature}):",
        *(f"        {line}" for line in body),
    )
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_raises_is_named(dataset: Folders, tmp_path: Path, capfd: Any, hook: str) -> None:
    file = _write(tmp_path, hook, "raise ZeroDivisionError('of my own making')")
    if hook == "load_checkpoint":
        assert run(*TRAIN[:8], *TRAIN[8:]) == 0
    code = run(*TRAIN, *(["--c"] if hook == "load_checkpoint" else []))
    first, *more = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("Warning: ")]
    assert code == 2
    assert first.startswith(f"Error: MyTrainer.{hook} failed at {file}:{_LAST_LINE}: ZeroDivisionError: of my own")
    assert more[0].startswith("Traceback") and "ZeroDivisionError: of my own making" in more[-1]
    assert half_written(dataset.results) == []
    logs = list(dataset.results.rglob("training_log_*.txt"))
    if hook not in ("print_to_log_file", "load_checkpoint") and logs:  # which works; which comes before the log
        assert any("ZeroDivisionError: of my own making" in log.read_text() for log in logs)


@pytest.mark.parametrize(
    ("hook", "body", "words"),
    [
        ("configure_optimizers", "import torch; return torch.optim.SGD(arguments[0].network.parameters(), 0.1)",
         "returned a SGD, expected two: (optimizer, lr_scheduler)"),
        ("configure_optimizers", "return 1, 2, 3", "returned 3 of them (int, int, int), expected two"),
        ("get_dataloaders", "return None", "returned None, expected two: (training, validation batches)"),
        ("build_network_architecture", "return 'U-Net'", "returned a str, expected a torch.nn.Module"),
        ("_build_loss", "return None", "returned None, expected a callable"),
        ("train_step", "return None", "returned None, expected a dictionary with loss"),
        ("train_step", "return {'Loss': 1.0}", "returned a dictionary of Loss, expected a dictionary with loss"),
        ("validation_step", "return {'loss': 1.0}", "expected a dictionary with loss, tp_hard, fp_hard, fn_hard"),
    ],
)  # fmt: skip
def test_what_a_hook_returns_is_checked(
    dataset: Folders, tmp_path: Path, capfd: Any, hook: str, body: str, words: str
) -> None:
    file = _write(tmp_path, hook, body)
    assert run(*TRAIN) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"Error: MyTrainer.{hook} ({file}:")
    assert words in line
    assert not list(dataset.results.rglob("*.pth"))


def test_steps_with_results_of_their_own(dataset: Folders, tmp_path: Path) -> None:
    file = _write(tmp_path, "train_step", "return {'mine': 1.0}")
    with file.open("a") as stream:
        stream.write("    def on_train_epoch_end(self, outputs):\n")
        stream.write("        self.logger.log('train_losses', outputs[0]['mine'], self.current_epoch)\n")
    assert run(*TRAIN) == 0


def test_our_own_errors_stay_what_they_are(dataset: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("nnunet_lite.training.nnUNetTrainer.nnUNetTrainer.epoch_report", broken)
    with pytest.raises(ZeroDivisionError, match="of ours"):
        run(*TRAIN[:6], "--epochs", 1, "--iterations", 1)
    log = next(dataset.results.rglob("training_log_*.txt")).read_text()
    assert "Traceback" in log and "ZeroDivisionError: of ours" in log


@pytest.mark.parametrize(
    ("hook", "line", "message"),
    [
        ("_build_loss", "import torch; return torch.nn.CrossEntropyLoss()", "wrap it with self._deeply_supervised"),
        ("configure_optimizers", "self = arguments[0]; self.initial_lr = '1e-3'; return super(MyTrainer, self)."
         "configure_optimizers()", "MyTrainer"),
    ],
)  # fmt: skip
def test_what_fails_outside_of_its_own_lines_is_still_of_its_making(
    dataset: Folders, tmp_path: Path, capfd: Any, hook: str, line: str, message: str
) -> None:
    file = _write(tmp_path, hook, line)
    assert run(*TRAIN) == 2
    first, *more = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("Warning: ")]
    assert first.startswith("Error: MyTrainer") and str(file) in first and message in first
    assert more[0].startswith("Traceback")
