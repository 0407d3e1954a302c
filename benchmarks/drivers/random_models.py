"""Run by either interpreter: makes model folders with random weights by this package's trainer.

usage: random_models.py PACKAGE JOBS_JSON

A job: `plans` and `dataset_json` (documents), `configuration`, `folds` (list of numbers), `folder` (to make). Heads are
scaled so that each has mean 0 and a standard deviation of 3 on a smooth random image: every label occurs, and the
logits have the size of a trained network's.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

SPREAD = 3.0


def smooth_noise(channels: int, size: list[int]) -> torch.Tensor:
    """Noise at three resolutions, (1, channels, *size), standard deviation about 1."""
    mode = "trilinear" if len(size) == 3 else "bilinear"
    image = torch.zeros((1, channels, *size))
    for factor in (1, 4, 16):
        coarse = torch.randn((1, channels, *(max(2, n // factor) for n in size)))
        image += F.interpolate(coarse, size=size, mode=mode) * 0.6
    return image


@torch.no_grad()
def scale_heads(network: nn.Module, image: torch.Tensor) -> None:
    """Give every head of the finest resolution mean 0 and the wanted spread on this image."""
    head: Any = network.decoder.seg_layers[-1]  # type: ignore[union-attr, index]
    network.decoder.deep_supervision = False  # type: ignore[union-attr, assignment]
    network.eval()
    logits = network(image).transpose(0, 1).flatten(1)
    mean, spread = logits.mean(1), logits.std(1)
    factor = SPREAD / spread
    head.weight *= factor.reshape(-1, *[1] * (head.weight.ndim - 1))
    head.bias[:] = (head.bias - mean) * factor


def make(package: str, job: dict[str, Any]) -> None:
    """Write one model folder."""
    module = importlib.import_module(f"{package}.training.nnUNetTrainer.nnUNetTrainer")
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("plans", "dataset_json"):
        (folder / f"{name.removesuffix('_json')}.json").write_text(json.dumps(job[name], indent=4))
    preprocessed = Path(os.environ["nnUNet_preprocessed"], job["plans"]["dataset_name"])
    for fold in job["folds"]:
        torch.manual_seed(1234 + fold)
        plans = {**job["plans"], "continue_training": False}
        trainer = module.nnUNetTrainer(plans, job["configuration"], fold, job["dataset_json"], torch.device("cpu"))
        configuration = trainer.configuration_manager
        data = preprocessed / configuration.data_identifier  # upstream asks it for the kind of files
        data.mkdir(parents=True, exist_ok=True)
        (data / "case.b2nd").touch()
        trainer.initialize()
        patch = list(configuration.patch_size)
        trainer.inference_allowed_mirroring_axes = tuple(range(len(patch)))  # else the start of training sets it
        scale_heads(trainer.network, smooth_noise(trainer.num_input_channels, patch))
        target = folder / f"fold_{fold}"
        target.mkdir(exist_ok=True)
        trainer.save_checkpoint(str(target / "checkpoint_final.pth"))


def main() -> None:
    """Make all models."""
    torch.set_num_threads(1)
    for job in json.loads(Path(sys.argv[2]).read_text()):
        make(sys.argv[1], job)


if __name__ == "__main__":
    main()
