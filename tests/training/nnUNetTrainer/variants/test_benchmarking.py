"""Trainers that measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.extensions import find_class

NAMES = ["nnUNetTrainerBenchmark_5epochs", "nnUNetTrainerBenchmark_5epochs_noDataLoading"]
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def _result(trainer: Any) -> dict[str, Any]:
    (result,) = json.loads(Path(trainer.output_folder, "benchmark_result.json").read_text()).values()
    return dict(result)


@pytest.mark.parametrize("labels", [None, REGIONS])
@pytest.mark.parametrize("name", NAMES)
def test_measures(make: Any, name: str, labels: Any) -> None:
    trainer = make(name, labels=labels)
    assert trainer.num_epochs == 5
    trainer.override(epochs=2, iterations=2)
    trainer.run_training()
    trainer.perform_actual_validation()
    result = _result(trainer)
    assert result["fastest_epoch"] > 0
    assert result["num_gpus"] == 1
    written = {file.name for file in Path(trainer.output_folder).iterdir()}
    assert "benchmark_result.json" in written
    assert not any(name.endswith(".pth") or name == "validation" for name in written)


def test_a_failure_is_the_result(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(NAMES[0])
    trainer.override(epochs=2, iterations=2)

    def fail(batch: Any) -> Any:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(trainer, "train_step", fail)
    trainer.run_training()
    assert _result(trainer)["fastest_epoch"] == "RuntimeError: CUDA out of memory"


def test_a_mistake_is_no_result(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(NAMES[0])

    def refuse() -> Any:
        raise DatasetError("cases are incomplete")

    monkeypatch.setattr(trainer, "get_dataloaders", refuse)
    with pytest.raises(DatasetError, match="incomplete"):
        trainer.run_training()


def test_only_fold_0(make: Any) -> None:
    made = make(NAMES[0])
    with pytest.raises(ArgumentError, match="fold 3"):
        find_class("trainer", NAMES[0])(made.plans_manager.plans, "2d", 3, made.dataset_json, made.device)
