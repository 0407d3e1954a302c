"""Trainers with other networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_lite.exceptions import PlansError
from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor


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


OLD_AND_NEW = '''
import torch
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class Single(torch.nn.Conv3d):
    """One convolution without deep supervision."""

    def __init__(self, channels, heads):
        super().__init__(channels, heads, 3, padding=1)


class OldTrainer(nnUNetTrainer):
    enable_deep_supervision = False

    @staticmethod
    def build_network_architecture(architecture_class_name, arch_init_kwargs, arch_init_kwargs_req_import,
                                   num_input_channels, num_output_channels, enable_deep_supervision=True):
        assert "PlainConvUNet" in architecture_class_name and "conv_op" in arch_init_kwargs_req_import
        return Single(num_input_channels, num_output_channels)

    def set_deep_supervision_enabled(self, enabled):
        pass


class NewTrainer(OldTrainer):
    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, num_input_channels, num_output_channels,
                                   enable_deep_supervision=True):
        assert configuration_manager.patch_size == [8, 8, 8]
        return Single(num_input_channels, num_output_channels)
'''


@pytest.mark.parametrize("name", ["OldTrainer", "NewTrainer"])
def test_both_forms_of_building_a_network(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "networks.py").write_text(OLD_AND_NEW)
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "mine"))
    trainer = make(name)
    trainer.override(epochs=1, iterations=1, seed=1, precision="float32")
    if name == "OldTrainer":
        with pytest.warns(DeprecationWarning, match="without plans_manager"):
            trainer.initialize()
    trainer.run_training()
    predictor = nnUNetPredictor(device="cpu", allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, 0)
    assert type(predictor.network).__name__ == "Single"
    assert predictor.predict_logits_from_preprocessed_data(torch.zeros(1, 8, 8, 8)).shape == (3, 8, 8, 8)
