"""The commands and snippets of the pages on planning, run in their order on a tiny dataset."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import succeed
from helpers.datasets import make_dataset
from helpers.pages import Block, blocks, pages

from nnunet_lite.experiment_planning.default_experiment_planner import channel_name_to_normalization_mapping
from nnunet_lite.extensions import find_class
from nnunet_lite.models.network import build_network
from nnunet_lite.plans.plans_manager import PlansManager, plans_file

QUICK = {  # flags that keep everything in this process
    "nnUNetv2_extract_fingerprint": ["-np", "0", "--no_pbar"],
    "nnUNetv2_plan_and_preprocess": ["-npfp", "0", "-np", "0", "--no_pbar"],
    "nnUNetv2_preprocess": ["-np", "0", "--no_pbar"],
    "nnUNetv2_preprocess_like_nnssl": ["-np", "0"],
    "nnUNetv2_plan_like_dynamic": ["-np", "0"],
}
CHECKPOINT = {
    "network_weights": {},
    "nnssl_adaptation_plan": {
        "pretrain_plan": {"configurations": {"onemmiso": {"spacing": [1.0, 1.0, 1.0], "patch_size": [160] * 3}}},
        "architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": {}, "arch_kwargs_requiring_import": []},
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": [],
        "key_to_lpe": None,
        "pretrain_num_input_channels": 1,
        "recommended_downstream_patchsize": [32, 32, 32],
    },
}


@pytest.fixture
def place(nnunet_folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Datasets 3 (planned) and 4, a checkpoint, and the working folder the snippets are run in."""
    for number, name in ((3, "Heart"), (4, "Hippocampus")):
        make_dataset(nnunet_folders.raw, number, name, n=3, vary=0)
    succeed("nnUNetv2_plan_and_preprocess", "-d", "3", "-npfp", "0", "--no_pp", "--no_pbar")
    monkeypatch.chdir(tmp_path)
    torch.save(CHECKPOINT, tmp_path / "pretrained.pth")
    return nnunet_folders


def run_page(page: Iterable[Block], folders: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run all blocks; JSON blocks are configurations added to the plans of dataset 4. Returns the commands."""
    commands = []
    for kind, block, _ in page:
        if kind == "json":
            file = folders.preprocessed / "Dataset004_Hippocampus" / "nnUNetPlans.json"
            plans = json.loads(file.read_text())
            plans["configurations"].update(json.loads(block))
            file.write_text(json.dumps(plans))
        elif kind == "python" and "\nclass " in block:
            (Path.cwd() / "my_documented_classes.py").write_text(block)
            monkeypatch.setenv("nnUNet_extTrainer", str(Path.cwd()))
        elif kind == "python":
            exec(compile(block, "documentation", "exec"), {})
        for line in block.splitlines() if kind == "bash" else []:
            commands.append(line)
            command, *arguments = shlex.split(line)
            if command == "export":
                monkeypatch.setenv("nnUNet_extTrainer", str(Path.cwd()))
            elif command == "nnUNetv2_train":
                _can_be_trained(arguments)
            else:
                succeed(command, *arguments, *QUICK.get(command, []))
    return commands


def _can_be_trained(arguments: list[str]) -> None:
    """The configuration exists, its patch fits the network, the network can be built, its cases are preprocessed."""
    plans = arguments[arguments.index("-p") + 1] if "-p" in arguments else "nnUNetPlans"
    file = plans_file("Dataset004_Hippocampus", plans)
    configuration = PlansManager(file).get_configuration(arguments[1])
    configuration.require_poolable_patch()
    names = (configuration.network_arch_init_kwargs, configuration.network_arch_init_kwargs_req_import)
    build_network(configuration.network_arch_class_name, *names, 1, 3)
    assert len(list((file.parent / configuration.data_identifier).glob("*.pkl"))) == 3


def test_plans_page(place: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    commands = run_page(blocks("plans.md", "bash", "python", "json"), place, monkeypatch)
    assert len(commands) >= 14
    assert "[24, 32, 24] [2.0, 2.0, 2.0]" in capfd.readouterr().out
    names = {file.stem for file in (place.preprocessed / "Dataset004_Hippocampus").glob("*.json")}
    assert {"nnUNetPlans", "myPlans", "nnUNetPlans_from3", "ptPlans_dynamic__mae"} <= names


def test_own_planner_of_the_how_to(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    section = "Plan and preprocess in your own way"
    run_page(blocks("how-to.md", "bash", "python", section=section), place, monkeypatch)
    plans = PlansManager(plans_file("Dataset004_Hippocampus", "myPlans"))
    fullres = plans.get_configuration("3d_fullres")
    assert fullres.spacing == [1.5, 1.5, 1.5]
    assert fullres.network_arch_init_kwargs["features_per_stage"][0] == 16
    assert (fullres.preprocessor_name, plans.experiment_planner_name) == ("MyPreprocessor", "MyPlanner")
    folder = place.preprocessed / "Dataset004_Hippocampus" / "myPlans_3d_fullres"
    assert len(list(folder.glob("*.pkl"))) == 3


def test_presets(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page = blocks("residual-encoder-presets.md", "bash", "python")
    assert len(run_page(page, place, monkeypatch)) == 7
    plans = {file.stem for file in (place.preprocessed / "Dataset004_Hippocampus").glob("*.json")}
    assert {"nnUNetResEncUNetMPlans", "nnUNetResEncUNetPlans_16G"} <= plans
    assert "nnUNetResEncUNetLPlans" not in plans
    succeed("nnUNetv2_plan_experiment", "-d", "4", "-pl", "SmallImages")
    small = PlansManager(plans_file("Dataset004_Hippocampus", "nnUNetResEncUNetMPlans_b16"))
    assert small.get_configuration("2d").batch_size == 16


def test_normalization(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    channels, *page = blocks("normalization.md", "json", "bash", "python")
    assert json.loads(channels.text)["channel_names"]["0"].casefold() in channel_name_to_normalization_mapping
    text = pages()["normalization.md"].read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)`[^|]*\| `(\w+)` \|", text, re.MULTILINE)
    assert {name.casefold(): scheme for name, scheme in rows} == channel_name_to_normalization_mapping
    assert len(run_page(page, place, monkeypatch)) == 6
    plans = PlansManager(plans_file("Dataset004_Hippocampus", "nnUNetPlans_rescaled"))
    assert plans.get_configuration("3d_fullres").normalization_schemes == ["RescaleTo01Normalization"]
    scaled = find_class("normalization", "MyWindow")().run(np.array([[[-1000.0, 40.0, 3000.0]]]))
    assert scaled.tolist() == [[[-1.0, 0.0, 1.0]]]


def test_porting(tmp_path: Path) -> None:
    (block,) = blocks("porting.md", "bash")
    (tmp_path / "my_trainer.py").write_text("from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n")
    (tmp_path / "classes").mkdir()
    line = block.text.replace("/path/to/my/classes", "classes")
    subprocess.run(["bash", "-ec", line], cwd=tmp_path, check=True)
    exec(compile((tmp_path / "classes" / "my_trainer.py").read_text(), "trainer", "exec"), {})
