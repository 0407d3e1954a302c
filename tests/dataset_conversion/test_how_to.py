"""The blocks of the how-to's sections on converting and looking at datasets run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from helpers.commands import succeed
from helpers.earlier_tasks import make_msd_task, make_v1_task
from helpers.pages import blocks

PAGE = Path(__file__).parents[2] / "documentation" / "how-to.md"


def _blocks(heading: str, language: str) -> list[str]:
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def test_documented_commands(tmp_path, nnunet_folders, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    make_msd_task(tmp_path, "Task04_Hippocampus", channels=1)
    make_v1_task(tmp_path, "Task501_Heart")
    blocks = _blocks("Converting datasets", "bash") + _blocks("Look at the training cases", "bash")
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(commands) == 4
    for command, *arguments in commands:
        succeed(command, *arguments)
    assert {folder.name for folder in nnunet_folders.raw.iterdir()} == {"Dataset004_Hippocampus", "Dataset501_Heart"}
    assert len(list((tmp_path / "pictures").iterdir())) == len(list((tmp_path / "pictures_with_names").iterdir())) == 2


def test_documented_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = _blocks("Converting datasets", "python")
    exec(compile(block, str(PAGE), "exec"), {})
    document = json.loads((tmp_path / "Dataset123_Liver" / "dataset.json").read_text())
    assert document["labels"] == {"background": 0, "liver": [1, 2], "tumour": 2}
    assert document["regions_class_order"] == [1, 2]


def test_the_page_on_v1(tmp_path, nnunet_folders, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_v1_task(tmp_path / "nnUNet_raw_data", "Task501_Heart", channels=1)
    (block,) = blocks("coming-from-v1.md", "bash")
    convert, plan = [shlex.split(line) for line in block.lines]
    succeed(*convert)
    succeed(*plan, "-npfp", "0", "-np", "0", "--no_pbar", "--no_pp")
    document = json.loads((nnunet_folders.raw / "Dataset501_Heart" / "dataset.json").read_text())
    assert {"channel_names", "labels", "file_ending"} <= document.keys()
    assert not {"modality", "training", "test", "numTest", "tensorImageSize"} & document.keys()
    assert document["labels"]["background"] == 0
