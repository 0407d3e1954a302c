"""Model folders: folds, consistency, and where the network comes from (spec 03, 1.2 and 11.13)."""

from __future__ import annotations

import pytest
import torch

from nnunet_lite.exceptions import ArgumentError, CheckpointError, PathError
from nnunet_lite.models import trainer_network
from nnunet_lite.models.trained_model import TrainedModel
from nnunet_lite.models.trainer_network import network_of_trainer
from nnunet_lite.utilities.files import save_json


@pytest.fixture
def folder(tmp_path):
    """A model folder with documents and no folds."""
    model = tmp_path / "T__P__c"
    save_json({"labels": {"background": 0, "a": 1}, "channel_names": {"0": "CT"}}, model / "dataset.json")
    save_json(
        {
            "label_manager": "LabelManager",
            "configurations": {
                "c": {
                    "patch_size": [8, 8],
                    "architecture": {
                        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                        "arch_kwargs": {
                            "n_stages": 2,
                            "features_per_stage": [2, 4],
                            "conv_op": "torch.nn.Conv2d",
                            "kernel_sizes": [3, 3],
                            "strides": [1, 2],
                            "n_conv_per_stage": [1, 1],
                            "n_conv_per_stage_decoder": [1],
                        },
                        "_kw_requires_import": ["conv_op"],
                    },
                }
            },
        },
        model / "plans.json",
    )
    return model


def write_fold(folder, fold, name="checkpoint_final.pth", **changes):
    (folder / f"fold_{fold}").mkdir(exist_ok=True)
    content = {
        "network_weights": {"w": torch.zeros(1)},
        "trainer_name": "T",
        "init_args": {"configuration": "c"},
        "inference_allowed_mirroring_axes": (0, 1),
        **changes,
    }
    torch.save({key: value for key, value in content.items() if value is not ...}, folder / f"fold_{fold}" / name)


def test_folder_that_is_no_model(folder, tmp_path):
    with pytest.raises(PathError, match="has: T__P__c"):
        TrainedModel(tmp_path / "T__P__d")
    (folder / "plans.json").unlink()
    with pytest.raises(PathError, match=r"no plans\.json; it holds: dataset\.json"):
        TrainedModel(folder)


def test_models_under_other_flags_are_listed_with_them(nnunet_folders):
    dataset = nnunet_folders.results / "Dataset001_X"
    with pytest.raises(PathError, match=r"no model of Dataset001_X was trained yet: nnUNetv2_train Dataset001_X 2d "):
        TrainedModel.find("Dataset001_X", "nnUNetTrainer", "nnUNetPlans", "2d")
    names = ("Mine__nnUNetPlans__2d", "nnUNetTrainer__ResEnc__3d_fullres", "nnUNetTrainer__ptPlans__ssl__2d")
    for name in (*names, "ensembles", "a____b"):
        (dataset / name).mkdir(parents=True)
    with pytest.raises(PathError) as error:
        TrainedModel.find("Dataset001_X", "nnUNetTrainer", "nnUNetPlans", "2d")
    assert str(error.value).endswith(
        "trained were, with the flags to give: Mine__nnUNetPlans__2d (-tr Mine), "
        "nnUNetTrainer__ptPlans__ssl__2d (-p ptPlans__ssl), "
        "nnUNetTrainer__ResEnc__3d_fullres (-p ResEnc -c 3d_fullres)"
    )


def test_folds(folder):
    model = TrainedModel(folder)
    assert model.available_folds() == []
    with pytest.raises(CheckpointError, match="no folds"):
        model.load_members()
    write_fold(folder, "all")
    assert model.available_folds() == ["all"]
    for fold in (10, 2):
        write_fold(folder, fold)
    write_fold(folder, 3, "checkpoint_best.pth")
    assert model.available_folds() == [2, 10] and model.available_folds("checkpoint_best.pth") == [3]
    assert [member.fold for member in model.load_members()] == [2, 10]
    assert [member.fold for member in model.load_members(["10", "all"])] == [10, "all"]
    assert [member.fold for member in model.load_members(2)] == [2]
    with pytest.raises(CheckpointError, match=r"fold_3 \(checkpoint_best\.pth\)"):
        model.load_members(3)
    with pytest.raises(ArgumentError, match="'all'"):
        model.load_members("first")


def test_minimal_checkpoint_has_no_mirroring(folder):
    write_fold(folder, 0, inference_allowed_mirroring_axes=...)
    assert TrainedModel(folder).load_members(0)[0].mirroring_axes is None
    write_fold(folder, 1, init_args=...)
    with pytest.raises(CheckpointError, match="does not say how it was trained"):
        TrainedModel(folder).load_members(1)


def test_folds_must_belong_together(folder, caplog):
    write_fold(folder, 0)
    write_fold(folder, 1, trainer_name="Other")
    assert len(TrainedModel(folder).load_members()) == 2
    assert "trainer_name is T in fold 0 but Other in fold 1" in caplog.text
    write_fold(folder, 1, inference_allowed_mirroring_axes=None)
    with pytest.raises(CheckpointError, match="mirroring_axes"):
        TrainedModel(folder).load_members()


def test_network_comes_from_the_trainer_or_else_from_the_plans(folder, monkeypatch):
    model = TrainedModel(folder)
    managers = (model.plans_manager, model.plans_manager.get_configuration("c"), model.dataset_json)
    network, doubt = network_of_trainer("nnUNetTrainer", *managers)
    assert network(torch.zeros(1, 1, 8, 8)).shape == (1, 2, 8, 8) and doubt is None
    other, doubt = network_of_trainer("TrainerNobodyHas", *managers)
    assert type(other) is type(network) and doubt is not None and "TrainerNobodyHas" in doubt

    class Present:
        @staticmethod
        def build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision=True
        ):
            assert not enable_deep_supervision
            return torch.nn.Conv2d(num_input_channels, num_output_channels, 1)

    class Older:
        @staticmethod
        def build_network_architecture(
            architecture_class_name,
            arch_init_kwargs,
            arch_init_kwargs_req_import,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision=True,
        ):
            assert architecture_class_name.endswith("PlainConvUNet") and arch_init_kwargs_req_import == ["conv_op"]
            return torch.nn.Conv2d(num_input_channels, num_output_channels, 1 + arch_init_kwargs["n_stages"])

    for trainer, kernel in ((Present, (1, 1)), (Older, (3, 3))):
        monkeypatch.setattr(trainer_network, "find_class", lambda kind, name, trainer=trainer: trainer)
        assert network_of_trainer("Mine", *managers).network.kernel_size == kernel
