"""Training and validation steps never read a number from the device, so that the host need not wait for a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import Folders
from helpers import tiny_training
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_lite.training.numerical_faults import FiniteUpdates

READING = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "_unique2",
    "is_nonzero",
)  # need values or shapes


class NoReading(TorchDispatchMode):
    """Refuses operations whose result the host has to wait for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in READING, f"{name} waits for the device"
        assert not (name == "index" and any(one is not None and one.dtype == torch.bool for one in args[1])), "mask"
        return func(*args, **(kwargs or {}))


def _labels(regions: bool, ignore: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    labels: dict[str, Any] = (
        {"background": 0, "whole": [1, 2], "core": 2} if regions else {"background": 0, "a": 1, "b": 2}
    )
    return {**labels, **({"ignore": 3} if ignore else {})}, {"regions_class_order": [1, 2]} if regions else {}


@pytest.mark.parametrize("ignore", [False, True], ids=["all voxels", "ignore label"])
@pytest.mark.parametrize("regions", [False, True], ids=["labels", "regions"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_steps(
    nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch, regions: bool, ignore: bool, device: str
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    labels, more = _labels(regions, ignore)
    tiny_training.write_dataset(nnunet_folders.preprocessed, labels)
    monkeypatch.setenv("nnUNet_compile", "false")
    trainer = nnUNetTrainer(
        tiny_training.plans(), "3d_fullres", 0, tiny_training.dataset_json(labels, **more), torch.device(device)
    )
    trainer.override(seed=1)
    trainer.initialize()
    trainer.logger = None
    if device == "cpu":  # takes the path of a GPU
        monkeypatch.setattr(FiniteUpdates, "decides_on_device", lambda self: True)
        trainer.optimizer = torch.optim.SGD(trainer.network.parameters(), 0.01, 0.99, nesterov=True, fused=True)
    channels = 2 + ignore if regions else 1
    sizes = [8, 4]
    if regions:
        target = [torch.rand(2, channels, *[size] * 3) > 0.5 for size in sizes]
    else:
        target = [torch.randint(0, 3 + ignore, (2, 1, *[size] * 3), dtype=torch.int16) for size in sizes]
    batch = trainer._feed.draw(lambda: {"data": torch.randn(2, 1, 8, 8, 8), "target": target, "keys": ["a", "b"]})
    trainer.train_step(batch)  # kernels and the first state of the optimizer
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        with NoReading():
            loss = trainer.train_step(batch)["loss"]
            with torch.no_grad():
                results = trainer.validation_step(batch)
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert all(isinstance(value, torch.Tensor) for value in results.values())
    trainer._finite_updates.settle()
    assert torch.isfinite(loss)
