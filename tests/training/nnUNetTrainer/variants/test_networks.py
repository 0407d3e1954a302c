"""Trainers with other networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nnunet_lite.exceptions import PlansError


@pytest.mark.parametrize(
    ("configuration", "kind"), [("2d", torch.nn.BatchNorm2d), ("3d_fullres", torch.nn.BatchNorm3d)]
)
def test_batch_normalization(make: Any, configuration: str, kind: type) -> None:
    trainer = make("nnUNetTrainerBN", configuration)
    trainer.override(epochs=1, iterations=1, seed=0)
    trainer.run_training()
    kinds = {
        type(module) for module in trainer.network.modules() if type(module).__module__.startswith("torch.nn.modules.")
    }
    assert kind in kinds
    assert not any("InstanceNorm" in found.__name__ for found in kinds)
    planned = trainer.configuration_manager.network_arch_init_kwargs["norm_op"]
    assert "InstanceNorm" in planned  # the plans stay as they are
    network = trainer.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 1, 3, False)
    assert list(network.state_dict()) == list(trainer.network.state_dict())


def test_one_voxel_is_enough_for_batch_normalization(make: Any) -> None:
    """Instance normalization cannot learn from it, so the planned network is refused."""
    for name in ("nnUNetTrainerBN", "nnUNetTrainer"):
        trainer = make(name, patch_size=[4, 4, 4])
        trainer.override(epochs=1, iterations=1, seed=0)
        if name == "nnUNetTrainer":
            with pytest.raises(PlansError, match="one voxel"):
                trainer.run_training()
        else:
            trainer.run_training()


def test_no_normalization_to_replace(make: Any) -> None:
    trainer = make("nnUNetTrainerBN")
    del trainer.configuration_manager.configuration["architecture"]["arch_kwargs"]["norm_op"]
    with pytest.raises(PlansError, match="norm_op"):
        trainer.initialize()


def test_no_deep_supervision(make: Any) -> None:
    trainer = make("nnUNetTrainerNoDeepSupervision")
    trainer.override(epochs=1, iterations=1, seed=0)
    trainer.run_training()
    assert isinstance(trainer.network(torch.zeros(1, 1, 8, 8, 8)), torch.Tensor)
