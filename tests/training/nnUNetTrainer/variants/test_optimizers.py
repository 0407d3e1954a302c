"""Trainers with other optimizers and schedules."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from nnunet_lite.exceptions import ExtensionError


def _pair(make: Any, name: str) -> tuple[Any, Any]:
    trainer = make(name)
    trainer.network = torch.nn.Conv3d(1, 1, 1)
    pair: tuple[Any, Any] = trainer.configure_optimizers()
    return pair


@pytest.mark.parametrize(
    ("name", "kind", "lr", "amsgrad"),
    [
        ("nnUNetTrainerAdam", torch.optim.AdamW, 1e-2, True),
        ("nnUNetTrainerAdam1en3", torch.optim.AdamW, 1e-3, True),
        ("nnUNetTrainerAdam3en4", torch.optim.AdamW, 3e-4, True),
        ("nnUNetTrainerVanillaAdam", torch.optim.Adam, 1e-2, False),
        ("nnUNetTrainerVanillaAdam1en3", torch.optim.Adam, 1e-3, False),
        ("nnUNetTrainerVanillaAdam3en4", torch.optim.Adam, 3e-4, False),
    ],
)
def test_adam(make: Any, name: str, kind: type, lr: float, amsgrad: bool) -> None:
    optimizer, schedule = _pair(make, name)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["amsgrad"]) == (lr, 3e-5, amsgrad)
    schedule.step(500)
    assert group["lr"] == pytest.approx(lr * 0.5**0.9)


def test_cosine(make: Any) -> None:
    optimizer, schedule = _pair(make, "nnUNetTrainerCosAnneal")
    assert isinstance(optimizer, torch.optim.SGD)
    rates = []
    for epoch in (1, 250, 500, 999):
        schedule.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    expected = [0.009999975326009292, 0.008535533905932738, 0.005, 2.467399070893439e-08]  # spec 02, section 12
    assert rates == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "lr"),
    [
        ("nnUNetTrainerAdan", 1e-2),
        ("nnUNetTrainerAdan1en3", 1e-3),
        ("nnUNetTrainerAdan3en4", 3e-4),
        ("nnUNetTrainerAdan1en1", 1e-1),
        ("nnUNetTrainerAdanCosAnneal", 1e-2),
    ],
)
def test_adan(make: Any, monkeypatch: pytest.MonkeyPatch, name: str, lr: float) -> None:
    monkeypatch.setitem(sys.modules, "adan_pytorch", None)
    with pytest.raises(ExtensionError, match="pip install adan-pytorch"):
        _pair(make, name)
    package = ModuleType("adan_pytorch")
    package.Adan = torch.optim.SGD  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "adan_pytorch", package)
    (group,) = _pair(make, name)[0].param_groups
    assert (group["lr"], group["weight_decay"]) == (lr, 3e-5)
