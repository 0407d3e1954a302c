"""The page on augmentation: its snippets are run, its trainer trains, its table is what the pipeline holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_training
from helpers.commands import succeed

from nnunet_lite.extensions import find_class
from nnunet_lite.training.data_augmentation.pipelines import get_training_transforms
from nnunet_lite.training.data_augmentation.transforms import RandomTransform

PAGE = (Path(__file__).parents[2] / "documentation" / "augmentation.md").read_text()
PROBABILITIES = re.compile(r"^\| ([^|]+) \| ([\d.]+) \|", re.MULTILINE)


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_own_trainer_trains(
    nnunet_folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    trainer, snippet = blocks("python")
    (tmp_path / "my_documented_trainer.py").write_text(trainer)
    (block,) = blocks("bash")
    export, command = block.splitlines()
    assert export.startswith("export nnUNet_extTrainer=")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    name, *arguments = command.split()
    assert arguments[0] == "4"
    quick = ["--epochs", "1", "--iterations", "2", "-device", "cpu"]
    succeed(name, "777", *arguments[1:], *quick)
    results = list(nnunet_folders.results.glob("*/MyTrainer*/fold_0/validation/summary.json"))
    assert len(results) == 1
    exec(compile(snippet, "documentation", "exec"), {})
    assert "torch.Size([1, 32, 40, 32])" in capfd.readouterr().out


def test_the_trainers_exist() -> None:
    section = PAGE.split("## Other trainers")[1].split("\n## ")[0]
    names = re.findall(r"`(nnUNetTrainer\w+)`", section)
    assert len(names) >= 5
    for name in names:
        assert find_class("trainer", name).__name__ == name


def test_the_table_of_probabilities() -> None:
    pipeline = get_training_transforms((8, 8, 8), 0.5, None, (0, 1, 2), False, is_cascaded=True, foreground_labels=[1])
    section = PAGE.split("## What the default pipeline does")[1].split("\n## ")[0]
    told = [float(probability) for _, probability in PROBABILITIES.findall(section)]
    spatial, *rows = pipeline.transforms
    applied = [row.apply_probability for row in rows if isinstance(row, RandomTransform)]
    assert told == [spatial.p_rotation, spatial.p_scaling, *applied[:-2], 1, *applied[-2:]]
