"""Every shipped variant trains and validates: in 2D, in 3D, and the losses with regions and an ignore label."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import Folders
from helpers import cascade_training, tiny_training
from helpers.cascade_training import LABELS_AND_IGNORE, REGIONS, REGIONS_AND_IGNORE

from nnunet_lite.extensions import find_class, known_names
from nnunet_lite.models.checkpoint import load_checkpoint

EPOCHS = (1, 5, 10, 20, 50, 100, 250, 500, 750, 2000, 4000, 8000)
LENGTHS = {f"nnUNetTrainer_{n}epoch{'s' if n > 1 else ''}": n for n in EPOCHS}
LENGTHS |= {f"nnUNetTrainer_{n}epochs_NoMirroring": n for n in (250, 2000, 4000, 8000)}
VARIANTS = [
    "nnUNetTrainerAdam",
    "nnUNetTrainerVanillaAdam",
    "nnUNetTrainerAdan",
    "nnUNetTrainerAdanCosAnneal",
    "nnUNetTrainerBN",
    "nnUNetTrainerCELoss",
    "nnUNetTrainerCosAnneal",
    "nnUNetTrainerDA5",
    "nnUNetTrainerDA5Segord0",
    "nnUNetTrainerDA5ord0",
    "nnUNetTrainerDiceCELoss_noSmooth",
    "nnUNetTrainerDiceLoss",
    "nnUNetTrainerDiceTopK10Loss",
    "nnUNetTrainerNoDA",
    "nnUNetTrainerNoDeepSupervision",
    "nnUNetTrainerNoMirroring",
    "nnUNetTrainerTopk10Loss",
    "nnUNetTrainerTopk10LossLS01",
    "nnUNetTrainer_DASegOrd0",
    "nnUNetTrainer_DASegOrd0_NoMirroring",
    "nnUNetTrainer_noDummy2DDA",
    "nnUNetTrainer_onlyMirror01",
    "nnUNetTrainer_onlyMirror01_DA5",
    "nnUNetTrainer_onlyMirror01_DASegOrd0",
    "nnUNetTrainer_probabilisticOversampling",
    "nnUNetTrainer_warmup",
    "nnUNet_Trainer_BS8",
]
DIFFER_IN_A_NUMBER = {  # from one of the above, which are run
    "nnUNetTrainerAdam1en3",
    "nnUNetTrainerAdam3en4",
    "nnUNetTrainerAdan1en1",
    "nnUNetTrainerAdan1en3",
    "nnUNetTrainerAdan3en4",
    "nnUNetTrainerVanillaAdam1en3",
    "nnUNetTrainerVanillaAdam3en4",
    "nnUNetTrainerCELoss_5epochs",
    "nnUNetTrainerDA5_10epochs",
    "nnUNetTrainer_onlyMirror01_1500ep",
    "nnUNetTrainer_probabilisticOversampling_010",
    "nnUNetTrainer_probabilisticOversampling_033",
}
ELSEWHERE = {"nnUNetTrainerBenchmark_5epochs", "nnUNetTrainerBenchmark_5epochs_noDataLoading"}
LABEL_LOSSES = [
    "nnUNetTrainerCELoss",
    "nnUNetTrainerDiceTopK10Loss",
    "nnUNetTrainerTopk10Loss",
    "nnUNetTrainerTopk10LossLS01",
]
ALL_LOSSES = ["nnUNetTrainer", "nnUNetTrainerDiceLoss", "nnUNetTrainerDiceCELoss_noSmooth"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setattr("nnunet_lite.training.logging.loggers.MetaLogger.plot_progress_png", lambda *_, **__: None)
    package = ModuleType("adan_pytorch")
    package.Adan = torch.optim.SGD  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "adan_pytorch", package)


def _check(trainer: Any) -> None:
    """Train for two iterations and look at the curves and the checkpoint."""
    trainer.override(epochs=1, iterations=2, seed=1, precision="float32")
    before = {name: weight.clone() for name, weight in _weights(trainer).items()}
    trainer.run_training()
    curves = trainer.logger.my_fantastic_logging
    assert all(math.isfinite(curves[key][0]) for key in ("train_losses", "val_losses")), curves
    saved = load_checkpoint(Path(trainer.output_folder, "checkpoint_final.pth"))
    assert saved["trainer_name"] == type(trainer).__name__
    assert any(not torch.equal(saved["network_weights"][name], before[name]) for name in before)
    trainer.set_deep_supervision_enabled(False)
    channels, patch = trainer.num_input_channels, trainer.configuration_manager.patch_size
    with torch.no_grad():
        output = trainer.network(torch.rand(1, channels, *patch))
    assert output.shape == (1, trainer.label_manager.num_segmentation_heads, *patch)


def _weights(trainer: Any) -> dict[str, torch.Tensor]:
    trainer.initialize()
    return dict(trainer.network.state_dict())


def test_every_name_is_here() -> None:
    tested = {"nnUNetTrainer", *VARIANTS, *DIFFER_IN_A_NUMBER, *ELSEWHERE, *LENGTHS}
    families = ("nnUNet_Primus", "PretrainedTrainer", "DynamicPretrainedTrainer", "AbstractPrimus")
    shipped = {name for name in known_names("trainer") if not name.startswith(families)}
    assert shipped == tested


def test_lengths() -> None:
    for name, epochs in LENGTHS.items():
        trainer = find_class("trainer", name)
        assert trainer.num_epochs == epochs
        assert any(base.__name__ == "nnUNetTrainerNoMirroring" for base in trainer.__mro__) == ("NoMirr" in name)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("name", VARIANTS)
def test_trains(make: Any, name: str, configuration: str) -> None:
    _check(make(name, configuration))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (LABELS_AND_IGNORE, [*ALL_LOSSES, *LABEL_LOSSES]),
        (REGIONS, ALL_LOSSES),
        (REGIONS_AND_IGNORE, [*ALL_LOSSES, "nnUNetTrainerDA5", "nnUNetTrainer_DASegOrd0"]),
    ],
    ids=["ignore", "regions", "both"],
)
def test_losses_with_regions_and_ignore_label(nnunet_folders: Folders, labels: Any, names: list[str]) -> None:
    cascade_training.write_dataset(nnunet_folders.preprocessed, labels)
    for name in names:
        _check(cascade_training.make("2d", 0, name))


@pytest.mark.parametrize(("configuration", "axes"), [("2d", 2), ("3d_fullres", 3)])
def test_residual_encoder(make: Any, configuration: str, axes: int) -> None:
    architecture = tiny_training.plans()["configurations"][configuration]["architecture"]
    arguments = architecture["arch_kwargs"]
    arguments["n_blocks_per_stage"] = arguments.pop("n_conv_per_stage")
    name = architecture["network_class_name"].replace("PlainConvUNet", "ResidualEncoderUNet")
    trainer = make("nnUNetTrainer", configuration, architecture={**architecture, "network_class_name": name})
    _check(trainer)
    assert type(trainer.network).__name__ == "ResidualEncoderUNet"
    assert trainer.network.encoder.stem.convs[0].conv.weight.ndim == axes + 2
