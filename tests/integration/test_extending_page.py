"""Every class of the page on extending is trained with, through the command, as the page says."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_training
from helpers.commands import run, succeed
from helpers.trainers import upstream_style

from nnunet_lite.extensions import find_class
from nnunet_lite.models.checkpoint import load_checkpoint

PAGE = (Path(__file__).parents[2] / "documentation" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
CLASSES = [(name, block) for kind, block in BLOCKS for name in re.findall(r"^class (nnUNetTrainer_\w+)", block, re.M)]
SHORT = ["--epochs", "1", "--iterations", "2", "-device", "cpu", "--disable_checkpointing"]


@pytest.fixture
def classes(nnunet_folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Dataset 4 and an empty folder of own classes."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setattr(tiny_training, "NAME", "Dataset004_Hippocampus")
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    folder = tmp_path / "classes"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    return folder


def test_the_page_has_them_all() -> None:
    assert len(CLASSES) == 6 == sum(kind == "python" for kind, _ in BLOCKS)
    assert sum(kind == "bash" for kind, _ in BLOCKS) == 2


@pytest.mark.parametrize(("name", "block"), CLASSES, ids=[name for name, _ in CLASSES])
def test_own_trainers(classes: Path, nnunet_folders: Any, name: str, block: str) -> None:
    (classes / f"page_{name}.py").write_text(block)
    succeed("nnUNetv2_train", "4", "3d_fullres", "0", "-tr", name, *SHORT)
    (summary,) = nnunet_folders.results.rglob("summary.json")
    assert summary.parts[-4].startswith(name)


def test_a_trainer_of_upstream(classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = Path(upstream_style.__file__).read_text().replace("OwnLoadersTrainer", "MyUpstreamTrainer")
    Path("my_trainer.py").write_text(source.replace("nnunet_lite", "nnunetv2"))
    for line in (line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()):
        line = line.replace("/path/to/my/classes", str(classes))
        command, *arguments = shlex.split(line)
        if command == "export":
            monkeypatch.setenv(*arguments[0].split("="))
        elif command == "sed":
            subprocess.run(line, shell=True, check=True)
        else:
            succeed(command, *arguments, *SHORT)


def test_sampling_probabilities_reach_the_batches(classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = next(block for name, block in CLASSES if name == "nnUNetTrainer_RareCases")
    (classes / "rare_cases.py").write_text(block.replace("hospitalB", "case_3").replace("3.0", "1e6"))
    trainer_class = find_class("trainer", "nnUNetTrainer_RareCases")
    seen: list[str] = []
    train_step = trainer_class.train_step

    def recording(self: Any, batch: Any) -> Any:
        seen.extend(batch["keys"])
        return train_step(self, batch)

    monkeypatch.setattr(trainer_class, "train_step", recording)
    succeed("nnUNetv2_train", "4", "2d", "all", "-tr", "nnUNetTrainer_RareCases", *SHORT)
    assert seen == ["case_3"] * 4


@pytest.mark.parametrize(
    ("value", "words"), [("cuda", "nnUNet_DA_device='cuda': expected auto"), ("gpu", "-device cpu do not go together")]
)
def test_a_wrong_augmentation_device(
    classes: Path,
    nnunet_folders: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    value: str,
    words: str,
) -> None:
    monkeypatch.setenv("nnUNet_DA_device", value)
    assert run("nnUNetv2_train", "4", "2d", "0", *SHORT) == 2
    assert words in capfd.readouterr().err
    assert not any(nnunet_folders.results.iterdir())


def test_speed_stands_in_log_and_metrics(classes: Path, nnunet_folders: Any) -> None:
    succeed("nnUNetv2_train", "4", "2d", "0", *[flag for flag in SHORT if not flag.startswith("--disable")])
    (log,) = nnunet_folders.results.rglob("training_log_*.txt")
    lines = [line.split(": ", 1)[1] for line in log.read_text().splitlines() if re.match(r"\d{4}-", line)]
    upstreams = [i for i, line in enumerate(lines) if line.startswith("Epoch time:")]
    assert re.fullmatch(
        r"([\d.]+ iterations/s|[\d.]+ s per iteration), \d+% of it waiting for data, memory .* \(all processes\) ?",
        lines[upstreams[0] + 1],
    )
    (metrics,) = nnunet_folders.results.rglob("metrics.jsonl")
    assert re.search(r'"iterations_per_second": [\d.]+, "data_wait_share": [\d.]+, "memory": \d+', metrics.read_text())
    (final,) = nnunet_folders.results.rglob("checkpoint_final.pth")
    assert len(load_checkpoint(final)["logging"]) == 8  # upstream knows no others
