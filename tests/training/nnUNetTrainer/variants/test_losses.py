"""Trainers with other losses: golden values of spec 02, section 12, and what must be refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nnunet_lite.exceptions import PlansError

IGNORE = {"background": 0, "one": 1, "two": 2, "ignore": 3}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
LOGITS = ((torch.arange(24) % 7 - 3) / 2).reshape(2, 3, 2, 2)
TARGET = torch.tensor([[[[0, 1], [2, 1]]], [[[0, 0], [2, 2]]]], dtype=torch.int16)
IGNORED = TARGET.clone()
IGNORED[1, 0, 1, 1] = 3


def _loss(make: Any, name: str, labels: dict[str, Any] | None = None, **changes: Any) -> Any:
    trainer = make(name, "2d", labels, **changes)
    trainer.enable_deep_supervision = False
    return trainer._build_loss()


@pytest.mark.parametrize(
    ("name", "labels", "batch_dice", "expected"),
    [
        ("nnUNetTrainerCELoss", None, False, 1.48537540),
        ("nnUNetTrainerCELoss", IGNORE, False, 1.43952107),
        ("nnUNetTrainerDiceLoss", None, False, -0.19051144),
        ("nnUNetTrainerDiceLoss", None, True, -0.23376551),
        ("nnUNetTrainerDiceLoss", IGNORE, True, -0.23972693),
        ("nnUNetTrainer", IGNORE, True, 1.19979417),
    ],
)
def test_golden_values(make: Any, name: str, labels: Any, batch_dice: bool, expected: float) -> None:
    loss = _loss(make, name, labels, batch_dice=batch_dice)
    assert float(loss(LOGITS, TARGET if labels is None else IGNORED)) == pytest.approx(expected, abs=1e-6)


def test_no_smoothing(make: Any) -> None:
    """A class that is nowhere, and nowhere predicted, has Dice 1 with smoothing and 0 without."""
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 0] = 200
    target = torch.zeros(1, 1, 4, 4, dtype=torch.int16)
    assert float(_loss(make, "nnUNetTrainer")(logits, target)) == pytest.approx(-1, abs=1e-5)
    assert float(_loss(make, "nnUNetTrainerDiceCELoss_noSmooth")(logits, target)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "k_of_all"),
    [("nnUNetTrainerTopk10Loss", 0.1), ("nnUNetTrainerTopk10LossLS01", 0.1), ("nnUNetTrainerDiceTopK10Loss", 0.1)],
)
def test_top_k(make: Any, name: str, k_of_all: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, 10, 10), generator=generator)
    target = torch.randint(0, 3, (2, 1, 10, 10), generator=generator, dtype=torch.int16)
    smoothing = 0.1 if name.endswith("LS01") else 0.0
    voxels = torch.nn.functional.cross_entropy(
        logits, target[:, 0].long(), reduction="none", label_smoothing=smoothing
    ).flatten()
    expected = float(voxels.sort(descending=True).values[: int(k_of_all * len(voxels))].mean())
    if "Dice" in name:
        expected += float(_loss(make, "nnUNetTrainerDiceLoss", batch_dice=False)(logits, target))
    assert float(_loss(make, name, batch_dice=False)(logits, target)) == pytest.approx(expected, abs=1e-5)


NAMES = [
    "nnUNetTrainerCELoss",
    "nnUNetTrainerDiceLoss",
    "nnUNetTrainerDiceCELoss_noSmooth",
    "nnUNetTrainerTopk10Loss",
    "nnUNetTrainerTopk10LossLS01",
    "nnUNetTrainerDiceTopK10Loss",
]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_ignored_voxels(make: Any, name: str) -> None:
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    loss = _loss(make, name, IGNORE)(logits, torch.full((2, 1, 8, 8), 3, dtype=torch.int16))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NAMES[1:3]])
def test_regions_are_refused(make: Any, name: str) -> None:
    with pytest.raises(PlansError, match=f"{name} learns labels"):
        _loss(make, name, REGIONS)


def test_dice_of_regions(make: Any) -> None:
    logits, target = torch.full((1, 2, 4, 4), 100.0), torch.ones((1, 2, 4, 4), dtype=torch.bool)
    assert float(_loss(make, "nnUNetTrainerDiceLoss", REGIONS)(logits, target)) == pytest.approx(-1, abs=1e-5)


def test_deep_supervision(make: Any) -> None:
    trainer = make("nnUNetTrainerCELoss")
    assert trainer._build_loss().weight_factors == pytest.approx((1, 0))
