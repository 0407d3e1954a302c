"""Training by two processes is training by one with the same whole batch: batches, losses, counts, weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Folders
from helpers import tiny_training
from helpers.ranks import Ranks

from nnunet_lite.exceptions import WorkerError
from nnunet_lite.extensions import find_class
from nnunet_lite.models.checkpoint import unwrap
from nnunet_lite.training import distributed_training
from nnunet_lite.training.batch_distribution import BatchShare, gather_shares
from nnunet_lite.training.interruption import TrainingInterrupted
from nnunet_lite.utilities import distributed

CPU = torch.device("cpu")
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
IGNORE = {"background": 0, "one": 1, "ignore": 2}
REGIONS_IGNORE = {"background": 0, "whole": [1], "one": 1, "ignore": 2}


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    group = Ranks(2)
    yield group
    group.close()


@pytest.fixture
def dataset(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    return nnunet_folders


class Case(dict):
    """What is trained: batch size, batch_dice, labels, trainer."""


def _trainer(case: dict[str, Any]) -> Any:
    torch.set_num_threads(1)
    plans = tiny_training.plans()
    configuration = plans["configurations"]["2d"]
    configuration["batch_size"] = case.get("batch_size", 2)
    configuration["batch_dice"] = case.get("batch_dice", False)
    labels = case.get("labels")
    more = {"regions_class_order": [1, 2][: 2]} if labels and any(isinstance(v, list) for v in labels.values()) else {}
    trainer_class = find_class("trainer", case.get("trainer", "nnUNetTrainer"))
    trainer = trainer_class(plans, "2d", 0, tiny_training.dataset_json(labels, **more), CPU)
    trainer.override(epochs=case.get("epochs", 2), iterations=case.get("iterations", 3), seed=7, precision="float32")
    return trainer


def train(case: dict[str, Any]) -> dict[str, Any]:
    """Train and tell the curves, the weights, and the batches that were seen."""
    trainer = _trainer(case)
    seen: list[list[str]] = []
    draw = type(trainer)._draw

    def watched(loader: Any) -> Any:
        batch = draw(loader)
        seen.append([f"{key} {float(image.sum()):.3f}" for key, image in zip(batch["keys"], batch["data"])])
        if len(seen) == case.get("stop_at") and distributed.rank() == distributed.world_size() - 1:
            trainer._stop.received = "SIGTERM"
        return batch

    trainer._draw = watched
    if case.get("resume"):
        trainer.load_checkpoint(str(Path(trainer.output_folder, "checkpoint_latest.pth")))
    try:
        trainer.run_training()
    except TrainingInterrupted:
        assert case.get("stop_at")
    curves = {key: trainer.logger.my_fantastic_logging[key] for key in ("train_losses", "val_losses", "mean_fg_dice")}
    weights = {name: value.clone() for name, value in unwrap(trainer.network).state_dict().items()}
    return {"curves": curves, "weights": weights, "seen": seen, "p": trainer.oversample_foreground_percent}


def _assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for key, values in one["curves"].items():
        assert other["curves"][key] == pytest.approx(values, abs=2e-5), key
    for name, value in one["weights"].items():
        torch.testing.assert_close(other["weights"][name], value, atol=1e-4, rtol=1e-3, msg=lambda text: f"{name}: {text}")


CASES = {
    "equal shares": {},
    "unequal shares": {"batch_size": 3},
    "unequal shares, batch dice": {"batch_size": 3, "batch_dice": True},
    "equal shares, batch dice": {"batch_size": 4, "batch_dice": True},
    "regions": {"batch_size": 3, "labels": REGIONS, "batch_dice": True},
    "ignore label": {"batch_size": 3, "labels": IGNORE},
    "ignore label, batch dice": {"batch_size": 3, "labels": IGNORE, "batch_dice": True},
    "regions and ignore label": {"batch_size": 3, "labels": REGIONS_IGNORE},
    "without deep supervision": {"batch_size": 3, "trainer": "nnUNetTrainerNoDeepSupervision"},
    "cross entropy": {"batch_size": 3, "trainer": "nnUNetTrainerCELoss"},
    "foreground by chance": {"batch_size": 3, "trainer": "nnUNetTrainer_probabilisticOversampling"},
}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(ranks: Ranks, dataset: Folders, name: str) -> None:
    alone = train(CASES[name])
    first, second = ranks.run(train, CASES[name])
    assert [a + b for a, b in zip(first["seen"], second["seen"], strict=True)] == alone["seen"]
    _assert_same(alone, first)
    _assert_same(first, second)
