"""The transformer family (spec 02, 8.2): with timm where torchvision does not work, and where it is made to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import nnssl, tiny_training
from helpers.torchvision_stand_in import stand_in

from nnunet_lite.exceptions import ExtensionError, PlansError
from nnunet_lite.extensions import find_class, known_names
from nnunet_lite.models.checkpoint import load_checkpoint
from nnunet_lite.models.trainer_network import network_of_trainer
from nnunet_lite.plans.plans_manager import PlansManager

FAMILY = {
    f"nnUNet_Primus{version or '_'}{size}_Trainer": f"Primus{version}{size}"
    for version in ("", "V2", "V3")
    for size in "SBML"
}
PRIMUS = "dynamic_network_architectures.architectures.primus"
TINY = {"eva_depth": 2, "eva_numheads": 1, "embed_dim": 24}


@pytest.fixture(scope="module")
def primus_module() -> Iterator[Any]:
    """The module of the networks, importable; size S made tiny."""
    if find_spec("timm") is None:
        pytest.skip("timm is not installed")
    with stand_in():
        module = import_module(PRIMUS)
        module._PRIMUS_CONFIGS = {**module._PRIMUS_CONFIGS, "S": TINY}
        yield module


@pytest.mark.parametrize("name", FAMILY)
def test_hyperparameters(name: str, make: Any) -> None:
    trainer = make(name)
    assert trainer.network_name == FAMILY[name]
    assert (trainer.initial_lr, trainer.weight_decay, trainer.gradient_clip_norm) == (3e-4, 5e-2, 1)
    assert (trainer.num_epochs, trainer.warmup_duration_whole_net, trainer.enable_deep_supervision) == (1000, 50, False)
    trainer.network = torch.nn.Conv3d(1, 1, 1)
    trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers()
    assert type(trainer.optimizer) is torch.optim.AdamW
    (group,) = trainer.optimizer.param_groups
    assert (group["betas"], group["weight_decay"], group["amsgrad"]) == ((0.9, 0.98), 5e-2, False)
    trainer.lr_scheduler.step(24)
    assert group["lr"] == pytest.approx(1.5e-4)
    optimizer, schedule = trainer.configure_optimizers("train")
    schedule.step(500)
    assert optimizer is trainer.optimizer
    assert group["lr"] == pytest.approx(3e-4 * (1 - 450 / 950) ** 0.9)


@pytest.mark.parametrize(
    ("name", "patch", "batch", "lr"),
    [
        ("nnUNet_Primus_M_Trainer_BS8", [8, 8, 8], 8, 3e-4),
        ("nnUNet_Primus_M_Trainer_BS8_2e4", [8, 8, 8], 8, 2e-4),
        ("_Primus_S_96_BS1", [96, 96, 96], 1, 3e-4),
        ("_Primus_B_96_BS1", [96, 96, 96], 1, 3e-4),
        ("_Primus_M_96_BS1", [96, 96, 96], 1, 3e-4),
        ("_Primus_L_48_BS1", [48, 48, 48], 1, 3e-4),
    ],
)
def test_what_some_change_in_the_plans(name: str, patch: list[int], batch: int, lr: float, make: Any) -> None:
    trainer = make(name)
    written = trainer.plans_manager.plans["configurations"]["3d_fullres"]
    assert (written["patch_size"], written["batch_size"], trainer.initial_lr) == (patch, batch, lr)
    assert trainer.configuration_manager.batch_size == batch


def test_a_missing_package_is_named(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PRIMUS, None)
    with pytest.raises(ExtensionError, match="PrimusM needs the packages timm and torchvision.*install timm"):
        make("nnUNet_Primus_M_Trainer").initialize()
    assert make("nnUNetTrainer_1epoch").num_epochs == 1


def test_patches_that_do_not_fit(make: Any) -> None:
    with pytest.raises(
        PlansError, match=r"divisible by \[8, 8, 8\].*has \[12, 16, 20\], the nearest .* \[16, 16, 16\]"
    ):
        make("nnUNet_Primus_S_Trainer", patch_size=[12, 16, 20]).initialize()
    with pytest.raises(PlansError, match=r"network for 3D patches; configuration 2d has patch_size \[8, 8\]"):
        make("nnUNet_PrimusV2S_Trainer", "2d").initialize()
    with pytest.raises(ExtensionError, match="AbstractPrimus is abstract"):
        make("AbstractPrimus").initialize()


def test_listed_among_the_trainers() -> None:
    assert set(FAMILY) <= set(known_names("trainer"))


@pytest.mark.parametrize("version", ["_", "V2", "V3"])
def test_training_step(version: str, make: Any, primus_module: Any) -> None:
    """The network learns: every weight that the loss depends on moves, gradients are clipped at 1."""
    trainer = make(f"nnUNet_Primus{version}S_Trainer", patch_size=[8, 16, 16])
    trainer.override(seed=3, precision="float32")
    trainer.initialize()
    network = trainer.network
    assert float(network.eva.blocks[0].gamma_1.detach().mean()) == pytest.approx(0.1)
    assert len(network.eva.blocks) == 2
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    batch = {"data": torch.randn(2, 1, 8, 16, 16), "target": torch.randint(0, 3, (2, 1, 8, 16, 16)).float()}
    trainer.on_train_epoch_start()
    assert torch.isfinite(trainer.train_step(batch)["loss"])
    moved = [name for name, weight in network.named_parameters() if not torch.equal(weight, before[name])]
    assert "eva.pos_embed" in moved
    assert any(name.startswith("down_projection") for name in moved)
    norm = torch.linalg.vector_norm(torch.stack([w.grad.norm() for w in network.parameters() if w.grad is not None]))
    assert float(norm) <= 1 + 1e-5


def test_a_whole_training_and_its_prediction_network(make: Any, primus_module: Any) -> None:
    trainer = make("nnUNet_Primus_S_Trainer", patch_size=[8, 16, 16])
    trainer.override(epochs=1, iterations=1, seed=1, precision="float32")
    trainer.run_training()
    trainer.perform_actual_validation()
    folder = Path(trainer.output_folder)
    assert (folder / "validation" / "summary.json").is_file()
    saved = load_checkpoint(folder / "checkpoint_final.pth")
    manager = trainer.plans_manager
    network, _ = network_of_trainer(
        saved["trainer_name"], manager, manager.get_configuration("3d_fullres"), trainer.dataset_json
    )
    network.load_state_dict(saved["network_weights"])


def test_fine_tuning_a_transformer(tmp_path: Path, make: Any, primus_module: Any) -> None:
    """Position embeddings for patches of 16^3 are resized to those of the plans; tokens and channels fit."""
    arguments = {**TINY, "patch_embed_size": [8, 8, 8], "init_values": 0.1, "scale_attn_inner": True}
    pretrained = primus_module.Primus(1, num_classes=1, input_shape=(16, 16, 16), **arguments)
    path = nnssl.write_checkpoint(tmp_path / "p.pth", pretrained, "Primus", arguments)
    configuration = {
        "patch_size": [8, 16, 16],
        "architecture": {"network_class_name": "Primus", "arch_kwargs": arguments, "_kw_requires_import": None},
    }
    content = tiny_training.plans()
    content["configurations"]["3d_fullres"].update(configuration)
    content["pretrain_info"] = {
        "checkpoint_path": str(path),
        "key_to_encoder": "eva",
        "key_to_stem": "down_projection",
        "key_to_lpe": "eva.pos_embed",
        "pt_num_in_channels": 1,
        "pt_used_patchsize": [16, 16, 16],
    }
    make("nnUNetTrainer")  # writes the dataset
    kind = find_class("trainer", "PretrainedTrainer_Primusx")
    trainer = kind(content, "3d_fullres", 0, tiny_training.dataset_json(), torch.device("cpu"))
    trainer.override(epochs=1, iterations=1, precision="float32")
    trainer.initialize()
    own, given = trainer.network.state_dict(), pretrained.state_dict()
    for name in given:
        if name.startswith(("eva.", "down_projection.")) and name != "eva.pos_embed":
            assert torch.equal(own[name], given[name]), name
    upper = given["eva.pos_embed"][:, :4]
    torch.testing.assert_close(own["eva.pos_embed"], (upper + given["eva.pos_embed"][:, 4:]) / 2)
    trainer.run_training()
    network, _ = network_of_trainer(
        "PretrainedTrainer_Primusx", PlansManager(content), trainer.configuration_manager, trainer.dataset_json
    )
    network.load_state_dict(trainer.network.state_dict())


def test_numbers_of_a_transformer(make: Any, primus_module: Any) -> None:
    def built(arguments: dict[str, Any], name: str = "Primus") -> Any:
        architecture = {"network_class_name": name, "arch_kwargs": arguments, "_kw_requires_import": []}
        trainer = make("PretrainedTrainer_Primusx", patch_size=[8, 16, 16], architecture=architecture)
        return trainer.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 1, 2)

    token = {"patch_embed_size": [8, 8, 8]}
    assert len(built({**TINY, **token, "eva_depth": 3}).eva.blocks) == 3
    for name, arguments in (("PrimusS", {}), ("PrimusS", token), ("PrimusX", {**token, "config_name": "S"})):
        network = built(arguments, name)
        assert (len(network.eva.blocks), network.embed_dim) == (2, 24)
        assert network(torch.zeros(1, 1, 8, 16, 16)).shape == (1, 2, 8, 16, 16)
    with pytest.raises(PlansError, match="patch_embed_size None, expected three whole numbers"):
        built({"embed_dim": 24})
    with pytest.raises(PlansError, match="Primus cannot be built from the plans' arch_kwargs: TypeError"):
        built({**TINY, "patch_embed_size": [8, 8, 8], "depth": 3})
