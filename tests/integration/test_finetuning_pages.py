"""The commands of the pages on fine-tuning and on logging, run in their order on tiny datasets, trainings included."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import nnssl
from helpers.commands import succeed
from helpers.datasets import make_dataset

from nnunet_lite import configuration
from nnunet_lite.models.checkpoint import load_checkpoint
from nnunet_lite.models.network import build_network
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_lite.training.nnUNetTrainer.pretraining.pretrained_trainers import PretrainedTrainer

DOCUMENTATION = Path(__file__).parents[2] / "documentation"
ON_CPU = ["-device", "cpu"]
QUICK = {  # flags that keep everything in this process and short
    "nnUNetv2_plan_and_preprocess": ["-npfp", "0", "-np", "0", "--no_pbar"],
    "nnUNetv2_preprocess": ["-np", "0", "--no_pbar"],
    "nnUNetv2_preprocess_like_nnssl": ["-np", "0"],
    "nnUNetv2_plan_like_dynamic": ["-np", "0"],
    "nnUNetv2_train": [*ON_CPU, "--precision", "float32"],
    "nnUNetv2_train_pretrained": [*ON_CPU, "--precision", "float32", "--overwrite"],
    "nnUNetv2_predict": [*ON_CPU, "-npp", "0", "-nps", "0", "--disable_progress_bar"],
}


@pytest.fixture
def place(nnunet_folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Datasets 3 and 4, images to predict, a checkpoint; trainings of one iteration, small networks."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    for kind in (nnUNetTrainer, PretrainedTrainer):
        for name in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch"):
            monkeypatch.setattr(kind, name, 1)
    for number, name in ((3, "Heart"), (4, "Hippocampus")):
        folder = make_dataset(nnunet_folders.raw, number, name, n=5, shape=(8, 10, 10), vary=0, n_test=1)
    shutil.copytree(folder / "imagesTs", tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    write_checkpoint("PlainConvUNet")  # as planned by default, so that the dynamic trainer finds something
    return nnunet_folders


def write_checkpoint(kind: str) -> None:
    arguments = nnssl.unet_arguments(kind)
    network = build_network(f"{nnssl.UNETS}.{kind}", arguments, nnssl.IMPORTS, 1, 1)
    nnssl.write_checkpoint(Path("pretrained.pth"), network, f"{nnssl.UNETS}.{kind}", arguments)


def blocks(page: str, kind: str) -> list[str]:
    text = (DOCUMENTATION / page).read_text()
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_commands(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in block.splitlines():
        command, *arguments = shlex.split(os.path.expandvars(line))
        if command == "export":
            monkeypatch.setenv(*arguments[0].split("="))
        else:
            succeed(command, *arguments, *QUICK.get(command, []))


def small_networks(folder: Path) -> None:
    """Make the planned networks tiny, for the sake of time."""
    for file in folder.glob("Dataset*/*Plans*.json"):
        plans = json.loads(file.read_text())
        for fullres in plans["configurations"].values():
            if "architecture" in fullres:
                arguments = fullres["architecture"]["arch_kwargs"]
                arguments["features_per_stage"] = [4, 8, 8, 8][: arguments["n_stages"]]
        file.write_text(json.dumps(plans))


@pytest.mark.slow
def test_fine_tuning_page(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    heart, hippocampus = (place.results / name for name in ("Dataset003_Heart", "Dataset004_Hippocampus"))
    for block in blocks("pretraining-and-finetuning.md", "bash"):
        for line in block.splitlines():
            run_commands(line, monkeypatch)
            small_networks(place.preprocessed)
    assert {folder.name for folder in heart.iterdir()} == {
        "nnUNetTrainer__nnUNetPlans__3d_fullres",
        "nnUNetTrainer__nnUNetPlans_for4__3d_fullres",
    }
    ssl = "ptPlans__mae____Spacing__1.00_1.00_1.00___Norm__Z"
    assert {folder.name for folder in hippocampus.iterdir()} == {
        "nnUNetTrainer__nnUNetPlans_from3__3d_fullres",
        "nnUNetTrainer__nnUNetPlans__3d_fullres",
        f"PretrainedTrainer__{ssl}__3d_fullres",
        f"PretrainedTrainer__{ssl}__from_scratch__3d_fullres",
        "DynamicPretrainedTrainer__ptPlans_dynamic__mae__3d_fullres",
    }
    for folder in ("predictions", "predictions_mae"):
        assert Path(folder, "test_00.nii.gz").is_file()
    # one iteration away from the weights it started with; the heads are new
    name = "nnUNetTrainer__nnUNetPlans{}__3d_fullres"
    before = load_checkpoint(heart / name.format("_for4") / "fold_all" / "checkpoint_final.pth")["network_weights"]
    after = load_checkpoint(hippocampus / name.format("") / "fold_1" / "checkpoint_final.pth")["network_weights"]
    distance = {key: float((after[key] - before[key]).abs().max()) for key in after if key.endswith("weight")}
    assert max(value for key, value in distance.items() if ".seg_layers." not in key) < 0.05
    assert max(value for key, value in distance.items() if ".seg_layers." in key) > 0.1


def test_table_of_the_fine_tuning_page_looks_like_a_real_one(place: Any) -> None:
    from nnunet_lite.training.adapt_pretrained_weights import PretrainInfo, load_encoder

    write_checkpoint("ResidualEncoderUNet")
    weights = load_checkpoint("pretrained.pth")["network_weights"]
    network = build_network(f"{nnssl.UNETS}.ResidualEncoderUNet", nnssl.unet_arguments(), nnssl.IMPORTS, 2, 3)
    info = PretrainInfo("/data/pretrained.pth", "mae", "encoder.stages", "encoder.stem", None, 1, None, None)
    table = load_encoder(network, weights, info, 2, nnssl.PATCH)
    shapes = [re.sub(r"\d+", "N", line) for line in table]
    documented = blocks("pretraining-and-finetuning.md", "text")[0].splitlines()
    assert [re.sub(r"\d+", "N", line) for line in documented if re.sub(r"\d+", "N", line) not in shapes] == []


def test_logging_page(place: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    written: list[str] = []
    writer = SimpleNamespace(
        add_scalar=lambda key, *_: written.append(key), add_text=lambda *_: None, flush=lambda: None, close=lambda: None
    )
    monkeypatch.setitem(sys.modules, "tensorboard", ModuleType("tensorboard"))
    fake = SimpleNamespace(SummaryWriter=lambda *_, **__: writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    succeed("nnUNetv2_plan_and_preprocess", "-d", "4", "-c", "3d_fullres", *QUICK["nnUNetv2_plan_and_preprocess"])
    small_networks(place.preprocessed)
    (command,) = blocks("logging.md", "bash")
    run_commands(command, monkeypatch)
    assert {"train_losses", "dice_per_class_or_region/class_1", "final_val/foreground_dice"} <= set(written)
    reading, own = blocks("logging.md", "python")
    capsys.readouterr()
    exec(compile(reading, "documentation", "exec"), {})
    assert re.match(r"0 -?\d+\.\d+ ", capsys.readouterr().out)
    names: dict[str, Any] = {}
    exec(compile(own, "documentation", "exec"), names)
    plans = json.loads((place.preprocessed / "Dataset004_Hippocampus" / "nnUNetPlans.json").read_text())
    dataset_json = json.loads((place.preprocessed / "Dataset004_Hippocampus" / "dataset.json").read_text())
    trainer = names["MyLoggingTrainer"](plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
    trainer.logger.log("lrs", 0.5, 0)
    trainer.logger.update_config({"a": 1})
    assert capsys.readouterr().out == "0 lrs 0.5\nconfiguration: a\n"


def test_every_variable_of_the_logging_page_exists() -> None:
    variables = set(re.findall(r"nnUNet_(?:wandb|tensorboard|mlflow)_\w+", (DOCUMENTATION / "logging.md").read_text()))
    source = Path(configuration.__file__).read_text()
    assert variables == set(re.findall(r"nnUNet_(?:wandb|tensorboard|mlflow)_\w+", source))
