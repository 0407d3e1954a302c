"""NaN and infinity never reach the weights; an iteration is repeated in float32 once, or the training says why not."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Folders
from helpers import tiny_training
from torch import Tensor, nn

from nnunet_lite.exceptions import NumericalError
from nnunet_lite.models.checkpoint import load_checkpoint
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_lite.training.numerical_faults import SKIPS_OF_A_SCALER, FiniteUpdates

CPU = torch.device("cpu")
NAN, INF = float("nan"), float("inf")


class Small:
    """As much of a trainer as FiniteUpdates needs; `faults`: what to multiply images and gradients with, by call."""

    def __init__(
        self, fused: bool = False, scaler: Any = None, momentum: float = 0.9, device: torch.device = CPU
    ) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).to(device)
        self.loss = nn.MSELoss()
        self.device = device
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), 0.1, momentum, nesterov=momentum > 0, weight_decay=0.01, fused=fused
        )
        self.grad_scaler = scaler
        self.current_epoch, self.epoch_outputs = 0, []
        self.log: list[str] = []
        self.faults: dict[int, tuple[float, float]] = {}
        self.in_float32: tuple[float, float] = (1.0, 1.0)
        self.calls = 0

    def compute_gradients(self, data: Tensor, target: Any, in_float32: bool = False) -> tuple[Tensor, Tensor]:
        factor, gradient_factor = self.in_float32 if in_float32 else self.faults.get(self.calls, (1.0, 1.0))
        self.calls += not in_float32
        self.optimizer.zero_grad()
        scaler = None if in_float32 else self.grad_scaler
        loss = self.loss(self.network(data * factor), target)
        (loss if scaler is None else scaler.scale(loss)).backward()
        for parameter in self.network.parameters():
            parameter.grad *= gradient_factor
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        return loss.detach(), nn.utils.clip_grad_norm_(self.network.parameters(), 12)

    def print_to_log_file(self, line: str) -> None:
        self.log.append(line)


class OnDevice(FiniteUpdates):
    """Takes the path of a GPU."""

    def decides_on_device(self) -> bool:
        return True


BATCHES = [(torch.randn(8, 3), torch.randn(8, 1)) for _ in range(4)]


def _run(trainer: Small, updates: FiniteUpdates, batches: list[Any] = BATCHES) -> list[float]:
    for data, target in batches:
        trainer.epoch_outputs.append(updates.step(data, target, ["a", "b"]))
    updates.settle()
    return [float(loss) for loss in trainer.epoch_outputs]


def _weights(trainer: Small) -> list[Tensor]:
    return [tensor.clone() for tensor in trainer.network.state_dict().values()]


def _same(a: list[Tensor], b: list[Tensor], tolerance: float = 0.0) -> bool:
    return all(torch.allclose(x.float(), y.float(), rtol=tolerance, atol=tolerance) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("kind", "fused"), [(FiniteUpdates, False), (OnDevice, True)], ids=["host", "device"])
@pytest.mark.parametrize("fault", [(NAN, 1.0), (INF, 1.0), (1.0, NAN), (1.0, INF)], ids=str)
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_bad_iteration_is_repeated_in_float32(
    kind: type[FiniteUpdates], fused: bool, fault: tuple[float, float], at: int
) -> None:
    trainer, reference = Small(fused), Small(fused)
    trainer.faults = {at: fault}
    losses = _run(trainer, kind(trainer))
    order = [0, 1, 2, 3]
    if kind is OnDevice and at < 3:  # judged when the next iteration has been launched
        order[at : at + 2] = [at + 1, at]
    expected = _run(reference, FiniteUpdates(reference), [BATCHES[i] for i in order])
    assert _same(_weights(trainer), _weights(reference), 1e-5)
    assert [losses[i] for i in order] == pytest.approx(expected, rel=1e-4)
    (line,) = trainer.log
    assert line.startswith(f"Epoch 0, iteration {at} (cases a, b)")
    assert "float32" in line


@pytest.mark.parametrize(("kind", "fused"), [(FiniteUpdates, False), (OnDevice, True)], ids=["host", "device"])
def test_without_faults_nothing_is_changed(kind: type[FiniteUpdates], fused: bool) -> None:
    trainer, reference = Small(fused), Small(fused)
    _run(trainer, kind(trainer))
    for data, target in BATCHES:
        reference.compute_gradients(data, target)
        reference.optimizer.step()
    assert _same(_weights(trainer), _weights(reference))
    assert trainer.log == []


def test_infinite_gradients_of_a_finite_loss_are_the_scalers_business() -> None:
    trainer = Small(fused=True, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**16))
    trainer.faults = {0: (1.0, INF), 1: (1.0, INF)}
    before = _weights(trainer)
    updates = FiniteUpdates(trainer)
    _run(trainer, updates, BATCHES[:2])
    assert _same(before[:2], _weights(trainer)[:2])
    assert trainer.grad_scaler.get_scale() == 2.0**14
    reference = Small(fused=True)
    _run(trainer, updates)
    _run(reference, FiniteUpdates(reference))
    assert _same(_weights(trainer)[:2], _weights(reference)[:2], 1e-5), "the momentum of the first, skipped step is 0"
    assert trainer.log == []


@pytest.mark.parametrize(("factor", "expected"), [(1.0, None), (NAN, 1)])
def test_an_iteration_that_is_not_judged_yet_and_was_left_out_is_known(factor: float, expected: int | None) -> None:
    trainer = Small(fused=True)
    trainer.faults = {1: (factor, 1.0)}
    updates = OnDevice(trainer)
    assert updates.left_out() is None
    for data, target in BATCHES[:2]:
        trainer.epoch_outputs.append(updates.step(data, target))
    assert updates.left_out() == updates.left_out() == expected, "asking changes nothing"
    updates.settle()
    assert len(trainer.log) == (expected is not None), "judged afterwards as if nobody had asked"
    assert updates.left_out() is None


def test_an_update_that_a_scaler_leaves_out_is_its_business_in_a_save_too() -> None:
    trainer = Small(fused=True, scaler=torch.amp.GradScaler("cpu"))
    trainer.faults = {0: (1.0, INF)}
    updates = FiniteUpdates(trainer)
    updates.step(*BATCHES[0])
    assert updates.left_out() is None


def test_a_bad_loss_with_a_scaler_is_repeated() -> None:
    trainer = Small(fused=True, scaler=torch.amp.GradScaler("cpu"))
    trainer.faults = {1: (NAN, 1.0)}
    losses = _run(trainer, FiniteUpdates(trainer))
    assert all(torch.isfinite(torch.tensor(losses)))
    assert all(torch.isfinite(tensor).all() for tensor in _weights(trainer))
    assert len(trainer.log) == 1


def test_a_scaler_that_never_finds_a_scale_is_overruled() -> None:
    trainer = Small(fused=True, scaler=torch.amp.GradScaler("cpu"), momentum=0)
    trainer.faults = dict.fromkeys(range(100), (1.0, INF))
    _run(trainer, FiniteUpdates(trainer), BATCHES[:1] * (SKIPS_OF_A_SCALER + 1))
    assert len(trainer.log) == 2


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_other_fused_optimizers(kind: Any) -> None:
    trainer, reference = Small(), Small()
    for one in (trainer, reference):
        one.optimizer = kind(one.network.parameters(), 0.1, fused=True, amsgrad=True)
    trainer.faults = {0: (NAN, 1.0)}
    _run(trainer, OnDevice(trainer))
    _run(reference, FiniteUpdates(reference), [BATCHES[i] for i in (1, 0, 2, 3)])
    assert _same(_weights(trainer), _weights(reference), 1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("fault", [(NAN, 1.0), (1.0, NAN)], ids=str)
def test_on_a_gpu(scaled: bool, fault: tuple[float, float]) -> None:
    cuda = torch.device("cuda")
    batches = [(data.to(cuda), target.to(cuda)) for data, target in BATCHES]
    trainer = Small(fused=True, scaler=torch.amp.GradScaler("cuda") if scaled else None, device=cuda)
    reference = Small(fused=True, device=cuda)
    trainer.faults = {0: fault}
    _run(trainer, FiniteUpdates(trainer), batches)
    left_to_the_scaler = scaled and fault[1] != 1.0
    order = (1, 2, 3) if left_to_the_scaler else (1, 0, 2, 3)
    _run(reference, FiniteUpdates(reference), [batches[i] for i in order])
    assert _same(_weights(trainer), _weights(reference), 1e-4)
    assert len(trainer.log) == (0 if left_to_the_scaler else 1)


# the trainer


@pytest.fixture
def dataset(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    return nnunet_folders


def _trainer(kind: type[nnUNetTrainer] = nnUNetTrainer, precision: str = "float32") -> nnUNetTrainer:
    trainer = kind(tiny_training.plans(), "2d", 0, tiny_training.dataset_json(), CPU)
    trainer.override(epochs=2, iterations=3, seed=1, precision=precision)
    return trainer


class _Prepared(nnUNetTrainer):
    """Spoils something before iteration 1."""

    spoil: Callable[[nnUNetTrainer, dict[str, Any]], object]

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        if len(self.epoch_outputs) == 1:
            self.before = copy.deepcopy(self.network.state_dict())
            type(self).spoil(self, batch)
        return super().train_step(batch)


def _image(trainer: nnUNetTrainer, batch: dict[str, Any]) -> None:
    batch["data"][1, 0, 2, 3] = NAN
    trainer.bad_case = batch["keys"][1]


def _layer(trainer: nnUNetTrainer, batch: dict[str, Any]) -> None:
    trainer.network.encoder.stages[1].register_forward_hook(lambda module, arguments, output: output * INF)


def _loss(trainer: nnUNetTrainer, batch: dict[str, Any]) -> None:
    trainer.loss.register_forward_hook(lambda module, arguments, output: output * NAN)


def _gradient(trainer: nnUNetTrainer, batch: dict[str, Any]) -> None:
    trainer.network.decoder.seg_layers[1].weight.register_hook(lambda gradient: gradient * NAN)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_image, r"the loss is not finite.*the image of case {case} holds NaN.*preprocess it again"),
        (_layer, r"the loss is not finite.*output of layer encoder\.stages\.1.*--lr"),
        (_loss, r"the loss is not finite.*outputs of the network are finite"),
        (_gradient, r"the gradient is not finite.*gradient of decoder\.seg_layers\.1\.weight.*--lr"),
    ],
)
def test_the_training_stops_with_its_reason_and_its_state(dataset: Folders, spoil: Any, expected: str) -> None:
    trainer = _trainer(type("Spoilt", (_Prepared,), {"spoil": staticmethod(spoil)}))
    with pytest.raises(NumericalError) as caught:
        trainer.run_training()
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("Epoch 0, iteration 1 (cases case_")
    pattern = expected.format(case=getattr(trainer, "bad_case", ""))
    assert re.search(pattern, message), message
    assert "--c" in message
    checkpoint = load_checkpoint(Path(trainer.output_folder, "checkpoint_latest.pth"))
    assert checkpoint["nnunet_lite"]["iterations_done"] == 1
    assert all(torch.equal(checkpoint["network_weights"][name], value) for name, value in trainer.before.items())


def test_an_iteration_that_only_float32_can_do(dataset: Folders) -> None:
    class Overflow(_Prepared):
        @staticmethod
        def spoil(trainer: nnUNetTrainer, batch: dict[str, Any]) -> None:
            def hook(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
                return output * (NAN if torch.is_autocast_enabled("cpu") else 1.0)

            trainer.handle = trainer.loss.register_forward_hook(hook)

        def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
            output = super().train_step(batch)
            if hasattr(self, "handle"):
                self.handle.remove()
            return output

    trainer = _trainer(Overflow, "bf16")
    trainer.run_training()
    log = Path(trainer.log_file).read_text()
    assert log.count("repeated in float32") == 2, "one in each epoch"
    assert "Epoch 0, iteration 1 (cases case_" in log
    curves = load_checkpoint(Path(trainer.output_folder, "checkpoint_final.pth"))["logging"]
    assert all(torch.isfinite(torch.tensor(curves["train_losses"])))


def test_lost_weights_are_not_saved(dataset: Folders) -> None:
    class Lost(_Prepared):
        @staticmethod
        def spoil(trainer: nnUNetTrainer, batch: dict[str, Any]) -> None:
            with torch.no_grad():
                trainer.network.encoder.stages[0][0].convs[0].conv.weight[0] = NAN

    trainer = _trainer(Lost)
    with pytest.raises(NumericalError, match=r"weight encoder\.stages\.0.*earlier checkpoint.*Nothing was saved"):
        trainer.run_training()
    assert not list(Path(trainer.output_folder).glob("*.pth"))


def test_a_train_step_of_the_users_that_loses_the_weights(dataset: Folders) -> None:
    class Own(nnUNetTrainer):
        def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
            self.optimizer.zero_grad()
            loss = self.loss(self.network(batch["data"]), batch["target"])
            if self.current_epoch == 1:
                loss = loss * NAN
            loss.backward()
            self.optimizer.step()
            return {"loss": loss.detach().cpu().numpy()}

    trainer = _trainer(Own)
    with pytest.raises(NumericalError, match=r"Epoch 1: the weights are lost.*--lr.*checkpoints in"):
        trainer.run_training()
    weights = load_checkpoint(Path(trainer.output_folder, "checkpoint_best.pth"))["network_weights"]
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


# losses that stay finite


def _batch(trainer: nnUNetTrainer, axes: int, channels: int, value: int, dtype: torch.dtype) -> dict[str, Any]:
    scales = trainer._get_deep_supervision_scales() or [[1.0] * axes]
    levels = [torch.full((2, channels, *(round(8 * f) for f in scale)), value, dtype=dtype) for scale in scales]
    target = levels if trainer.enable_deep_supervision else levels[0]
    return {"data": torch.randn(2, 1, *[8] * axes), "target": target, "keys": ["a", "b"]}


@pytest.mark.parametrize("regions", [False, True], ids=["labels", "regions"])
@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize(("configuration", "axes"), [("2d", 2), ("3d_fullres", 3)])
def test_all_ignored_and_two_stages(
    nnunet_folders: Folders, regions: bool, stages: int, configuration: str, axes: int
) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3} if regions else None
    labels = labels or {"background": 0, "one": 1, "two": 2, "ignore": 3}
    more = {"regions_class_order": [1, 2]} if regions else {}
    tiny_training.write_dataset(nnunet_folders.preprocessed, labels)
    plans = tiny_training.plans()
    kwargs = plans["configurations"][configuration]["architecture"]["arch_kwargs"]
    kwargs["n_stages"] = stages
    for key in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_conv_per_stage_decoder"):
        kwargs[key] = kwargs[key][: stages - key.endswith("decoder")]
    trainer = nnUNetTrainer(plans, configuration, 0, tiny_training.dataset_json(labels, **more), CPU)
    trainer.override(epochs=1, iterations=1, seed=1, precision="float32")
    trainer.initialize()
    channels, ignored = (3, 1) if regions else (1, 3)
    batch = _batch(trainer, axes, channels, ignored, torch.bool if regions else torch.int16)
    before = copy.deepcopy(trainer.network.state_dict())
    loss = trainer.train_step(batch)["loss"]
    assert torch.isfinite(loss)
    if not regions:
        assert float(loss) == pytest.approx(-1), "spec 02, section 12"
    assert all(torch.isfinite(value).all() for value in trainer.network.state_dict().values())
    assert any(not torch.equal(before[name], value) for name, value in trainer.network.state_dict().items())
    with torch.no_grad():
        results = trainer.validation_step(batch)
    assert torch.isfinite(results["loss"])
    assert [results[f"{kind}_hard"].tolist() for kind in ("tp", "fp", "fn")] == [[0, 0]] * 3


def test_epochs_without_foreground_leave_the_moving_average(dataset: Folders) -> None:
    trainer = _trainer()
    trainer.initialize()
    counts = {
        "absent": [torch.tensor([0, 0])] * 3,
        "one class": [torch.tensor([2, 0]), torch.tensor([1, 0]), torch.tensor([1, 0])],
    }
    averages = []
    for epoch, kind in enumerate(("absent", "one class", "absent", "one class")):
        tp, fp, fn = counts[kind]
        trainer.current_epoch = epoch
        step = {"loss": torch.tensor(0.5), "tp_hard": tp, "fp_hard": fp, "fn_hard": fn}
        trainer.on_validation_epoch_end([step])
        averages.append(float(trainer.logger.get_value("ema_fg_dice", epoch)))
    assert averages[1:] == pytest.approx([2 / 3] * 3)
    assert averages[0] != averages[0], "nothing is known yet"
