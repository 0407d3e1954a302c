"""Misspelled hooks and attributes of a user's trainer are said; names of the user's own are not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Folders
from helpers import tiny_training
from helpers.commands import run

from nnunet_lite.extensions import find_class, known_names
from nnunet_lite.training.misspelled_names import misspelled_names, warn_of_misspelled_names
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


def _found(trainer_class: Callable[..., Any]) -> list[tuple[str, str, str]]:
    arguments = (tiny_training.plans(), "2d", 0, tiny_training.dataset_json(), torch.device("cpu"))
    return misspelled_names(trainer_class(*arguments))


class Misspelled(nnUNetTrainer):
    num_epoch = 3

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.inital_lr = 0.1

    def trainstep(self, batch: Any) -> Any:
        return super().train_step(batch)

    def build_loss(self) -> Any:
        return super()._build_loss()


class Derived(Misspelled):
    weight_decays = 1


class Correct(nnUNetTrainer):
    num_epochs = 3
    initial_lr2 = 0.1
    train_steps = 4
    my_own = 1

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.initial_lr = 0.1
        self.weight_decay_2 = 0.1

    def configure_optimizers(self) -> Any:
        self.initial_lr += self.initial_lr2 + (lambda: self.weight_decay_2)()
        self.initial_lr += getattr(self, "train_steps")  # noqa: B009
        return super().configure_optimizers()


def test_misspelled_hooks_and_attributes(nnunet_folders: Folders) -> None:
    assert _found(Misspelled) == [
        ("Misspelled", "build_loss", "_build_loss"),
        ("Misspelled", "inital_lr", "initial_lr"),
        ("Misspelled", "num_epoch", "num_epochs"),
        ("Misspelled", "trainstep", "train_step"),
    ]
    assert ("Derived", "weight_decays", "weight_decay") in _found(Derived)


def test_correct_names_and_those_that_the_users_code_reads(nnunet_folders: Folders) -> None:
    assert _found(Correct) == []


def test_no_trainer_of_ours_is_suspected(nnunet_folders: Folders) -> None:
    assert _found(nnUNetTrainer) == []
    assert len(known_names("trainer")) > 50
    for name in known_names("trainer")[::10]:
        derived = type("Mine", (find_class("trainer", name),), {"__module__": __name__})
        suspects = {defined for _, defined, _ in _found(derived)} if "Pretrained" not in name else set()
        assert suspects == set(), name


def test_the_warning(nnunet_folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    trainer = Misspelled(tiny_training.plans(), "2d", 0, tiny_training.dataset_json(), torch.device("cpu"))
    with caplog.at_level(logging.WARNING):
        warn_of_misspelled_names(trainer)
    assert "Misspelled defines num_epoch, which nothing uses; did you mean num_epochs?" in caplog.text


def test_the_command_warns_before_anything_else(
    nnunet_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    (tmp_path / "misspelled_for_test.py").write_text(
        "from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class T7(nnUNetTrainer):\n    num_epoch = 3\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    assert run("nnUNetv2_train", tiny_training.NAME, "2d", 0, "-device", "cpu", "-tr", "T7", "--val") == 2
    warning, error = capfd.readouterr().err.splitlines()
    assert warning == "Warning: T7 defines num_epoch, which nothing uses; did you mean num_epochs?"
    assert "not finished yet" in error
