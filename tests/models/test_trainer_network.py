"""Where a trained model's network comes from: plans, built-in trainers, a user's trainers of every age, nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import DATASET_JSON, tiny_plans, write_model

from nnunet_lite.exceptions import CheckpointError, ExtensionError
from nnunet_lite.extensions import find_class, known_names
from nnunet_lite.models import trainer_network
from nnunet_lite.models.checkpoint import load_checkpoint, save_checkpoint
from nnunet_lite.models.trained_model import TrainedModel
from nnunet_lite.models.trainer_network import builds_from_plans, network_of_trainer
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

_IMPORTS = "import torch\nfrom nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
_SIGNATURES = {
    "Present": "plans_manager, configuration_manager, num_input_channels, num_output_channels, ",
    "Older": "architecture_class_name, arch_init_kwargs, arch_init_kwargs_req_import, num_input_channels, "
    "num_output_channels, ",
    "Oldest": "plans_manager, dataset_json, configuration_manager, num_input_channels, ",
}


def trainer_source(name: str, body: str, signature: str = "Present") -> str:
    return (
        f"{_IMPORTS}class {name}(nnUNetTrainer):\n    @staticmethod\n"
        f"    def build_network_architecture({_SIGNATURES[signature]}enable_deep_supervision=True):\n        {body}\n"
    )


def managers() -> tuple[PlansManager, Any, dict[str, Any]]:
    plans = PlansManager(tiny_plans())
    return plans, plans.get_configuration("3d_fullres"), DATASET_JSON


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for trainers of one's own."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    return folder


def test_what_is_read_of_the_source_is_what_the_classes_do() -> None:
    built_in = [name for name in known_names("trainer") if find_class("trainer", name).__module__.startswith("nnunet")]
    assert len(built_in) > 40
    for name in built_in:
        trainer = find_class("trainer", name)
        same = trainer.build_network_architecture is nnUNetTrainer.build_network_architecture
        assert builds_from_plans(name) == same, name
    assert not builds_from_plans("nnUNetTrainerBN") and not builds_from_plans("NobodyHasIt")


def test_prediction_imports_nothing_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TrainedModel(write_model(tmp_path / "model", folds=(0,), trainer="nnUNetTrainer_250epochs_NoMirroring"))
    monkeypatch.setattr(trainer_network, "find_class", None)  # must not be reached
    assert model.load_network(model.load_members()) is not None


@pytest.mark.parametrize("signature", list(_SIGNATURES))
def test_a_trainer_of_ones_own_of_every_age(own: Path, signature: str) -> None:
    name = f"My{signature}"
    body = "assert not enable_deep_supervision; return torch.nn.Conv3d(num_input_channels, 7, 1)"
    (own / f"{name}.py").write_text(trainer_source(name, body, signature))
    network, doubt = network_of_trainer(name, *managers())
    assert isinstance(network, torch.nn.Conv3d) and network.in_channels == 1 and doubt is None


def test_a_trainer_that_fails_is_one_line(own: Path) -> None:
    (own / "failing.py").write_text(trainer_source("Failing", "raise ValueError('no such thing')"))
    with pytest.raises(ExtensionError, match="the trainer Failing failed: ValueError: no such thing"):
        network_of_trainer("Failing", *managers())


def test_weights_that_fit_need_no_trainer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = TrainedModel(write_model(tmp_path / "model", trainer="TrainerOfSomebodyElse"))
    members = model.load_members()
    network = model.load_network(members)
    assert caplog.messages == [
        "This model's trainer TrainerOfSomebodyElse is not here; the network of the plans fits its weights"
    ]
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, members[-1].weights[name])


def test_weights_that_do_not_fit_ask_for_the_trainer(tmp_path: Path, own: Path) -> None:
    folder = write_model(tmp_path / "model", folds=(0,), trainer="TrainerOfAnotherNetwork")
    file = folder / "fold_0" / "checkpoint_final.pth"
    weights = torch.nn.Conv3d(1, 3, 1).state_dict()
    save_checkpoint({**load_checkpoint(file), "network_weights": weights}, file)
    model = TrainedModel(folder)
    with pytest.raises(CheckpointError) as caught:
        model.load_network(model.load_members())
    for words in ("trainer TrainerOfAnotherNetwork, which is not here", "export nnUNet_extTrainer=", str(own), "bias"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    body = "return torch.nn.Conv3d(num_input_channels, num_output_channels, 1)"
    (own / "another.py").write_text(trainer_source("TrainerOfAnotherNetwork", body))
    assert isinstance(model.load_network(model.load_members()), torch.nn.Conv3d)


def test_weights_of_a_known_trainer_that_do_not_fit(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", folds=(0,))
    file = folder / "fold_0" / "checkpoint_final.pth"
    save_checkpoint({**load_checkpoint(file), "network_weights": {"a": torch.ones(1)}}, file)
    model = TrainedModel(folder)
    with pytest.raises(CheckpointError, match=r"weights of fold 0 of .* do not fit the network"):
        model.load_network(model.load_members())
