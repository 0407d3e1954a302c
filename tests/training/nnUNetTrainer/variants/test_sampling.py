"""Trainers that fill their batches differently."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("name", "batch_size", "probability"),
    [
        ("nnUNetTrainer_probabilisticOversampling", 2, 0.5),
        ("nnUNetTrainer_probabilisticOversampling", 12, 4 / 12),
        ("nnUNetTrainer_probabilisticOversampling", 1, 0),
        ("nnUNetTrainer_probabilisticOversampling_033", 2, 0.33),
        ("nnUNetTrainer_probabilisticOversampling_010", 2, 0.1),
    ],
)
def test_probability(make: Any, name: str, batch_size: int, probability: float) -> None:
    trainer = make(name, batch_size=batch_size)
    trainer.initialize()
    assert trainer.probabilistic_oversampling
    assert trainer.oversample_foreground_percent == pytest.approx(probability)
    loader = trainer.get_dataloaders()[0]._plan.loader
    assert loader.probabilistic_oversampling
    assert loader.oversample_foreground_percent == pytest.approx(probability)


def test_batches_of_eight(make: Any) -> None:
    trainer = make("nnUNet_Trainer_BS8")
    trainer.initialize()
    assert trainer.batch_size == 8
    assert trainer.plans_manager.plans["configurations"]["3d_fullres"]["batch_size"] == 2
