"""The page on preprocessing: its commands and its snippet, run in their order on a tiny dataset."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import succeed
from helpers.datasets import make_dataset

from nnunet_lite.experiment_planning.default_experiment_planner import channel_name_to_normalization_mapping

PAGE = (Path(__file__).parents[2] / "documentation" / "preprocessing.md").read_text(encoding="utf-8")
INLINE = {  # no background processes, which would take longer than the work
    "nnUNetv2_extract_fingerprint": ["-np", "0", "--no_pbar"],
    "nnUNetv2_plan_and_preprocess": ["-npfp", "0", "-np", "0", "--no_pbar"],
    "nnUNetv2_preprocess": ["-np", "0", "--no_pbar"],
}


def test_commands_and_snippet(nnunet_folders: Any, capfd: pytest.CaptureFixture[str]) -> None:
    name = make_dataset(nnunet_folders.raw, 4, "Hippocampus", n=3).name
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        if kind == "python":
            exec(compile(block, "documentation", "exec"), {})
        for line in block.splitlines() if kind == "bash" else []:
            command, *arguments = shlex.split(line)
            succeed(command, *arguments, *INLINE.get(command, []))
    output = capfd.readouterr().out
    assert output.count("3 of 3 cases are preprocessed already") == 5
    assert "case_02 (1, 1" in output
    folder = nnunet_folders.preprocessed / name
    assert len(list((folder / "nnUNetPlans_3d_fullres").glob("*.pkl"))) == 3
    assert list((folder / ".nnunet_lite").glob("fingerprint*")) == []


def test_channel_names_and_schemes() -> None:
    rows = re.findall(r"^\| `([^`]+)`([^|]*)\| `(\w+Normalization)` \|", PAGE, re.MULTILINE)
    chosen = {name.casefold(): scheme for name, _, scheme in rows}
    assert chosen == channel_name_to_normalization_mapping
    others = next(others for name, others, _ in rows if name == "zscore")
    assert not {name.casefold() for name in re.findall(r"`(\w+)`", others)} & chosen.keys()
