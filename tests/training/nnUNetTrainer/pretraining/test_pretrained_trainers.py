"""Fine-tuning through the commands: from a checkpoint to predictions; and what each trainer differs in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import nnssl, tiny_training
from helpers.commands import complaint, succeed
from helpers.datasets import make_dataset

from nnunet_lite.extensions import find_class, known_names
from nnunet_lite.models.checkpoint import load_checkpoint
from nnunet_lite.models.model_names import parse_model_folder_name
from nnunet_lite.models.network import build_network
from nnunet_lite.plans.plans_manager import load_plans
from nnunet_lite.training.nnUNetTrainer.pretraining.pretrained_trainers import PretrainedTrainer

TRAIN = "nnUNetv2_train_pretrained"
NAME = "Dataset031_Tune"
SHORT = ("--epochs", 1, "--iterations", 1, "-device", "cpu", "--precision", "float32")
CONFIGURATION = "3d_fullres"
KIND = "ResidualEncoderUNet"


@pytest.fixture
def folders(nnunet_folders: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Dataset 31 with two channels, planned."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    make_dataset(nnunet_folders.raw, 31, "Tune", n=5, shape=(10, 18, 18), channels=("T1", "T2"), vary=0, n_test=1)
    succeed("nnUNetv2_plan_and_preprocess", "-d", "31", "-npfp", "0", "--no_pp", "--no_pbar")
    return nnunet_folders


def pretrain(path: Path, kind: str = KIND, **changes: Any) -> Any:
    """A network with one channel, and its checkpoint."""
    arguments = nnssl.unet_arguments(kind, **changes)
    torch.manual_seed(5)
    network = build_network(f"{nnssl.UNETS}.{kind}", arguments, nnssl.IMPORTS, 1, 1)
    nnssl.write_checkpoint(path, network, f"{nnssl.UNETS}.{kind}", arguments)
    return network


def adapt(checkpoint: Path) -> str:
    """Plans for the checkpoint, made by the command."""
    succeed("nnUNetv2_preprocess_like_nnssl", "-d", "31", "-n", "ssl", "-pc", checkpoint, "-np", "0")
    return "ptPlans__ssl____Spacing__1.00_1.00_1.00___Norm__Z_Z"


def model_folder(folders: Any, plans: str, trainer: str = "PretrainedTrainer") -> Path:
    return folders.results / NAME / f"{trainer}_e1_i1__{plans}__{CONFIGURATION}"


def test_from_checkpoint_to_prediction(folders: Any, tmp_path: Path, capfd: Any) -> None:
    checkpoint = tmp_path / "pretrained.pth"
    network = pretrain(checkpoint)
    plans = adapt(checkpoint)
    succeed(TRAIN, "31", CONFIGURATION, "0", "-p", plans, *SHORT)
    fold = model_folder(folders, plans) / "fold_0"
    assert (fold / "validation" / "summary.json").is_file()
    log = next(fold.glob("training_log_*.txt")).read_text()
    assert "  copied   encoder.stages: " in log
    assert "(4, 1, 3, 3, 3) to (4, 2, 3, 3, 3): channels spread" in log
    assert "@article{a paper}" in log
    saved = load_checkpoint(fold / "checkpoint_final.pth")
    assert saved["trainer_name"] == "PretrainedTrainer"
    # one step with a small rate leaves the encoder where the pretraining put it
    name = "encoder.stages.1.blocks.0.conv1.conv.weight"
    assert float((saved["network_weights"][name] - network.state_dict()[name]).abs().max()) < 1e-3

    checkpoint.unlink()  # neither validation nor continuing nor prediction needs it
    succeed(TRAIN, "31", CONFIGURATION, "0", "-p", plans, *SHORT, "--val")
    succeed(TRAIN, "31", CONFIGURATION, "0", "-p", plans, *SHORT, "--c")
    images, out = folders.raw / NAME / "imagesTs", tmp_path / "out"
    model = ("-d", "31", "-p", plans, "-tr", "PretrainedTrainer_e1_i1", "-c", CONFIGURATION, "-f", "0")
    quick = ("-npp", "0", "-nps", "0", "-device", "cpu", "--disable_progress_bar")
    succeed("nnUNetv2_predict", "-i", images, "-o", out, *model, *quick)
    assert (out / "test_00.nii.gz").is_file()
    capfd.readouterr()


@pytest.mark.parametrize("kind", [KIND, "PlainConvUNet"])
def test_first_weights_are_those_of_the_pretraining(kind: str, folders: Any, tmp_path: Path) -> None:
    network = pretrain(tmp_path / "p.pth", kind)
    trainer = make_trainer(folders, adapt(tmp_path / "p.pth"))
    trainer.initialize()
    own, given = trainer.network.state_dict(), network.state_dict()
    first = {f"{name}.weight" for name in network.keys_to_in_proj}
    for name, tensor in own.items():
        if name.startswith("encoder."):
            expected = given[name].repeat(1, 2, 1, 1, 1) / 2 if name in first else given[name]
            assert torch.equal(tensor, expected), name


def make_trainer(folders: Any, plans: str, trainer: str = "PretrainedTrainer", **changes: Any) -> PretrainedTrainer:
    content = {**load_plans(folders.preprocessed / NAME / f"{plans}.json"), **changes}
    dataset_json = json.loads((folders.preprocessed / NAME / "dataset.json").read_text())
    made: PretrainedTrainer = find_class("trainer", trainer)(
        content, CONFIGURATION, 0, dataset_json, torch.device("cpu")
    )
    return made


def test_from_scratch_has_a_folder_of_its_own(folders: Any, tmp_path: Path) -> None:
    pretrain(tmp_path / "p.pth")
    plans = adapt(tmp_path / "p.pth")
    (tmp_path / "p.pth").unlink()
    succeed(TRAIN, "31", CONFIGURATION, "0", "-p", plans, *SHORT, "--from_scratch", "--disable_checkpointing")
    folder = model_folder(folders, f"{plans}__from_scratch")
    assert folder.is_dir()
    assert parse_model_folder_name(folder.name) == ("PretrainedTrainer_e1_i1", f"{plans}__from_scratch", CONFIGURATION)
    written = json.loads((folder / "plans.json").read_text())
    assert (written["plans_name"], written["pretrain_info"]["from_scratch"]) == (f"{plans}__from_scratch", True)
    assert written["pretrain_info"]["checkpoint_path"] == str(tmp_path / "p.pth")
    log = next((folder / "fold_0").glob("training_log_*.txt")).read_text()
    assert "copied" not in log
    assert "Current learning rate: 0.0002" in log  # 1e-2 / 50


def test_another_checkpoint_than_the_plans_name(folders: Any, tmp_path: Path) -> None:
    pretrain(tmp_path / "p.pth")
    plans = adapt(tmp_path / "p.pth")
    (tmp_path / "p.pth").rename(tmp_path / "moved.pth")
    flags = ("-overwrite_ckpt_path", tmp_path / "moved.pth", "--disable_checkpointing")
    succeed(TRAIN, "31", CONFIGURATION, "all", "-p", plans, *SHORT, *flags)
    written = json.loads((model_folder(folders, plans) / "plans.json").read_text())
    assert written["pretrain_info"]["checkpoint_path"] == str(tmp_path / "moved.pth")


def test_dynamic(folders: Any, tmp_path: Path) -> None:
    """The dataset's own network: other features, so that only what has the same shape is loaded."""
    file = folders.preprocessed / NAME / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    fullres = plans["configurations"][CONFIGURATION]
    fullres["architecture"] = {
        "network_class_name": f"{nnssl.UNETS}.{KIND}",
        "arch_kwargs": nnssl.unet_arguments(stages=2, kernel=1),
        "_kw_requires_import": nnssl.IMPORTS,
    }
    fullres["patch_size"] = nnssl.PATCH
    file.write_text(json.dumps(plans))
    network = pretrain(tmp_path / "p.pth")
    succeed("nnUNetv2_plan_like_dynamic", "-d", "31", "-n", "ssl", "-pc", tmp_path / "p.pth", "-np", "0")
    trainer = make_trainer(folders, "ptPlans_dynamic__ssl", "DynamicPretrainedTrainer")
    trainer.initialize()
    name = "encoder.stages.1.blocks.0.conv1.conv.weight"
    assert torch.equal(trainer.network.state_dict()[name], network.state_dict()[name])
    stem = "encoder.stem.convs.0.conv.weight"
    expected = (network.state_dict()[stem].repeat(1, 2, 1, 1, 1) / 2).mean(2, keepdim=True)
    assert torch.equal(trainer.network.state_dict()[stem], expected)
    train = ("-tr", "DynamicPretrainedTrainer", "-p", "ptPlans_dynamic__ssl", "--disable_checkpointing")
    succeed(TRAIN, "31", CONFIGURATION, "0", *train, *SHORT)


def test_what_is_refused_leaves_nothing_behind(folders: Any, tmp_path: Path, capfd: Any) -> None:
    pretrain(tmp_path / "p.pth")
    plans = adapt(tmp_path / "p.pth")

    def refused(*arguments: object) -> str:
        return complaint(capfd, TRAIN, "31", CONFIGURATION, *arguments, *SHORT)

    assert "use PretrainedTrainer, DynamicPretrainedTrainer" in refused("0", "-p", plans, "-tr", "nnUNetTrainer")
    assert "fold" in refused("11", "-p", plans)
    assert "the following arguments are required: -p" in refused("0")
    assert "There is no checkpoint" in refused("0", "-p", plans, "-overwrite_ckpt_path", tmp_path / "none.pth")
    torch.save({"network_weights": {"a.b": torch.zeros(1)}}, tmp_path / "p.pth")
    assert "has no weights for encoder.stages; it has: a.b" in refused("0", "-p", plans)
    torch.save({"network_weights": {}, "code": Path("x")}, tmp_path / "p.pth")
    assert "asks for pathlib.PosixPath" in refused("0", "-p", plans)
    assert "no 'pretrain_info'" in refused("0", "-p", "nnUNetPlans")
    assert not list(folders.results.rglob("*"))


def test_state_is_restored_from_file_and_content(folders: Any, tmp_path: Path) -> None:
    pretrain(tmp_path / "p.pth")
    plans = adapt(tmp_path / "p.pth")
    trainer = make_trainer(folders, plans)
    trainer.initialize()
    trainer.current_epoch = 60
    for key in trainer.logger.my_fantastic_logging:
        trainer.logger.my_fantastic_logging[key] = [0.0] * 61
    trainer.save_checkpoint(str(tmp_path / "state.pth"))
    (tmp_path / "p.pth").unlink()
    for given in (str(tmp_path / "state.pth"), load_checkpoint(tmp_path / "state.pth")):
        again = make_trainer(folders, plans)
        again.load_checkpoint(given)
        assert (again.current_epoch, again.training_stage) == (61, "train")
        for name, tensor in trainer.network.state_dict().items():
            assert torch.equal(again.network.state_dict()[name], tensor), name


SGD, ADAM = torch.optim.SGD, torch.optim.AdamW
BASE = {"lr": (1e-3, 1e-2), "wd": 3e-5, "clip": 12, "epochs": 1000, "warmup": 50, "kind": SGD, "mirror": True}
SLOW = {"lr": (3e-5, 1e-4), "wd": 5e-2}
EP150 = {"epochs": 150, "warmup": 15}
ADAMW = {"lr": (1e-4, 3e-4), "wd": 5e-2, "kind": ADAM}
PRIMUS = {**ADAMW, "clip": 1}
PLAIN = {"mirror": False}
EXPECTED: dict[str, dict[str, Any]] = {
    "PretrainedTrainer": {},
    "PretrainedTrainer_150ep": EP150,
    "PretrainedTrainer_300ep": {"epochs": 300},
    "PretrainedTrainer_smallerlr": SLOW,
    "PretrainedTrainer_nomirroring": PLAIN,
    "PretrainedTrainer_150ep_nomirroring": {**EP150, **PLAIN},
    "PretrainedTrainer_adam__nomirroring": PLAIN,
    "PretrainedTrainer_adam_150ep": {**ADAMW, **EP150},
    "PretrainedTrainer_adam_150ep_nomirroring": {**ADAMW, **EP150, **PLAIN},
    "PretrainedTrainer_Primus": PRIMUS,
    "PretrainedTrainer_Primus_150ep": {**PRIMUS, **EP150},
    "PretrainedTrainer_Primusx": PRIMUS,
    "PretrainedTrainer_Primusx_150ep": {**PRIMUS, **EP150},
    "PretrainedTrainer_Primusx_30ep": {**PRIMUS, "epochs": 30, "warmup": 3},
    "PretrainedTrainer_Primusx_300ep": {**PRIMUS, "epochs": 300},
    "PretrainedTrainer_Primusx_smallerlr": {**PRIMUS, **SLOW},
    "PretrainedTrainer_Primusx_150ep_lr3e4": {**PRIMUS, "epochs": 150, "lr": (3e-4, 3e-4)},
    "PretrainedTrainer_Primusx_150ep_small_debug": {**PRIMUS, **EP150, "patch": [48, 48, 48]},
    "PretrainedTrainer_Primusx_nomirroring": {**PRIMUS, **PLAIN},
    "PretrainedTrainer_Primusx_150ep_nomirroring": {**PRIMUS, **EP150, **PLAIN},
    "DynamicPretrainedTrainer": {},
    "DynamicPretrainedTrainer_adam_150ep": {**ADAMW, **EP150},
    "DynamicPretrainedTrainer_nomirroring": PLAIN,
    "DynamicPretrainedTrainer_adam_150ep_nomirroring": {**ADAMW, **EP150, **PLAIN},
}


def test_every_trainer_is_in_the_table() -> None:
    assert {name for name in known_names("trainer") if "PretrainedTrainer" in name} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("scratch", [False, True])
def test_hyperparameters(name: str, scratch: bool, nnunet_folders: Any) -> None:
    """Spec 02, 9.4."""
    expected = {**BASE, **EXPECTED[name]}
    content = tiny_training.plans()
    content["configurations"][CONFIGURATION]["batch_size"] = 5
    content["pretrain_info"] = {"from_scratch": scratch}
    trainer = find_class("trainer", name)(content, CONFIGURATION, 0, tiny_training.dataset_json(), torch.device("cpu"))
    assert content["configurations"][CONFIGURATION]["batch_size"] == 5, "the caller's plans stay as they are"
    assert trainer.configuration_manager.batch_size == 2
    assert trainer.plans_manager.plans["configurations"][CONFIGURATION]["batch_size"] == 2
    assert list(trainer.configuration_manager.patch_size) == expected.get("patch", [8, 8, 8])
    assert (trainer.num_epochs, trainer.warmup_duration_whole_net) == (expected["epochs"], expected["warmup"])
    assert (trainer.gradient_clip_norm, trainer.enable_deep_supervision) == (expected["clip"], False)
    trainer.network = torch.nn.Conv3d(1, 1, 1)
    optimizer, schedule = trainer.configure_optimizers()
    assert type(optimizer) is expected["kind"]
    (group,) = optimizer.param_groups
    lr, warmup = expected["lr"][scratch], expected["warmup"]
    schedule.step(warmup - 1)
    assert (group["lr"], group["weight_decay"]) == (pytest.approx(lr), expected["wd"])
    if optimizer.__class__ is ADAM:
        assert (group["betas"], group["amsgrad"]) == ((0.9, 0.98), False)
    else:
        assert (group["momentum"], group["nesterov"]) == (0.99, True)
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert (trainer.inference_allowed_mirroring_axes is not None) == expected["mirror"]
    trainer_part, plans_name = type(trainer).__name__, "ptPlans__x____Spacing__1.00__from_scratch"
    assert parse_model_folder_name(f"{trainer_part}__{plans_name}__2d") == (trainer_part, plans_name, "2d")
