"""The learning rate that rises before it decays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

NAME = "nnUNetTrainer_warmup"
RATES = {0: 0.0002, 1: 0.0004, 24: 0.005, 49: 0.01, 50: 0.01, 51: 0.00999052581698196, 100: 0.009525044508886254}
LATE = {500: 0.005612052939360663, 999: 2.0895306948576246e-05}


def test_golden_rates(make: Any) -> None:
    """Spec 02, section 12."""
    trainer = make(NAME)
    trainer.initialize()
    optimizer = trainer.optimizer
    for epoch, rate in {**RATES, **LATE}.items():
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        assert trainer.optimizer is optimizer
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate, rel=1e-9)


def test_continuing_in_any_epoch(make: Any) -> None:
    trainer = make(NAME)
    trainer.override(epochs=4, iterations=1, seed=1, precision="float32")
    trainer.warmup_duration_whole_net = 2
    trainer.save_every = 3
    trainer.run_training()
    rates = trainer.logger.my_fantastic_logging["lrs"]
    assert rates == pytest.approx([0.005, 0.01, 0.01, 0.01 * 0.5**0.9])

    again = make(NAME)
    again.override(epochs=4, iterations=1, seed=1, precision="float32")
    again.warmup_duration_whole_net = 2
    again.load_checkpoint(str(Path(trainer.output_folder, "checkpoint_final.pth")))
    assert again.training_stage == "train"
    assert again.current_epoch == 4
