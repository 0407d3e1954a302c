"""The reference names every trainer of the package and every environment variable, and none that does not exist."""

from __future__ import annotations

import itertools
import pkgutil
import re
from importlib import import_module
from pathlib import Path

from nnunet_lite.training import nnUNetTrainer as trainers
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "documentation" / "reference.md").read_text(encoding="utf-8")
BASES = {"_LabelLossTrainer", "_AdamW"}  # complete trainers only together with a subclass


def _section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def _first_cells(title: str) -> list[str]:
    """What stands between backticks in the first column."""
    cells = re.findall(r"^\| (`[^|]*`) \|", _section(title), re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def expanded(pattern: str) -> list[str]:
    """The names that a pattern such as `a{1,2}b{,c}` stands for."""
    parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
    return ["".join(choice) for choice in itertools.product(*parts)]


def test_patterns_are_expanded() -> None:
    assert expanded("plain") == ["plain"]
    assert expanded("a{1,2}b{,c}") == ["a1b", "a1bc", "a2b", "a2bc"]


def test_every_trainer_is_named_once_and_no_other() -> None:
    modules = [
        import_module(module.name) for module in pkgutil.walk_packages(trainers.__path__, f"{trainers.__name__}.")
    ]
    classes = {
        name
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nnUNetTrainer) and value.__module__ == module.__name__
    }
    named = [name for pattern in _first_cells("Trainers") for name in expanded(pattern)]
    assert sorted(named) == sorted(classes - BASES)


def test_every_environment_variable_is_named_and_no_other() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "nnunet_lite").rglob("*.py"))
    read = set(re.findall(r'"((?:nnUNet_|nnssl_pretrained)\w+)"', source))
    named = set(_first_cells("Environment variables"))
    assert named - {"OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"} == read
