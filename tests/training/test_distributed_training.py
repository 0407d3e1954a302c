"""Training by two processes is training by one with the same whole batch: batches, losses, counts, weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Folders
from helpers import tiny_training
from helpers.ranks import Ranks

from nnunet_lite.exceptions import ArgumentError, WorkerError
from nnunet_lite.extensions import find_class
from nnunet_lite.models.checkpoint import load_checkpoint, unwrap
from nnunet_lite.training.batch_distribution import BatchShare
from nnunet_lite.training.distributed_training import distribute, seed_rank, weigh_by_share
from nnunet_lite.training.interruption import TrainingInterrupted
from nnunet_lite.utilities import distributed

CPU = torch.device("cpu")
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
IGNORE = {"background": 0, "one": 1, "ignore": 2}
REGIONS_IGNORE = {"background": 0, "whole": [1], "one": 1, "ignore": 2}


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    group = Ranks(2)
    yield group
    group.close()


@pytest.fixture
def dataset(nnunet_folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    tiny_training.write_dataset(nnunet_folders.preprocessed)
    return nnunet_folders


def _trainer(case: dict[str, Any]) -> Any:
    torch.set_num_threads(1)
    plans = tiny_training.plans()
    configuration = plans["configurations"]["2d"]
    configuration["batch_size"] = case.get("batch_size", 2)
    configuration["batch_dice"] = case.get("batch_dice", False)
    labels = case.get("labels")
    more = {"regions_class_order": [1, 2]} if labels and any(isinstance(v, list) for v in labels.values()) else {}
    trainer_class = find_class("trainer", case.get("trainer", "nnUNetTrainer"))
    trainer = trainer_class(plans, "2d", 0, tiny_training.dataset_json(labels, **more), CPU)
    trainer.override(epochs=case.get("epochs", 2), iterations=case.get("iterations", 3), seed=7, precision="float32")
    return trainer


def train(case: dict[str, Any]) -> dict[str, Any]:
    """Train and tell the curves, the weights, and the batches that were seen."""
    trainer = _trainer(case)
    seen: list[list[str]] = []
    trainer.logger.plot_progress_png = lambda *arguments, **options: None  # takes longer than all the rest
    draw = trainer._draw

    def watched(loader: Any) -> Any:
        batch = draw(loader)
        seen.append(
            [f"{key} {float(image.sum()):.3f}" for key, image in zip(batch["keys"], batch["data"], strict=True)]
        )
        if len(seen) == case.get("stop_at") and distributed.rank() == distributed.world_size() - 1:
            trainer._stop.received = "SIGTERM"
        return batch

    trainer._draw = watched
    if case.get("resume"):
        trainer.load_checkpoint(str(Path(trainer.output_folder, "checkpoint_latest.pth")))
    try:
        trainer.run_training()
    except TrainingInterrupted:
        assert case.get("stop_at")
    curves = {key: trainer.logger.my_fantastic_logging[key] for key in ("train_losses", "val_losses", "mean_fg_dice")}
    weights = {name: value.clone() for name, value in unwrap(trainer.network).state_dict().items()}
    return {"curves": curves, "weights": weights, "seen": seen, "p": trainer.oversample_foreground_percent}


def _assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for key, values in one["curves"].items():
        assert other["curves"][key] == pytest.approx(values, abs=2e-5), key
    for name, value in one["weights"].items():
        assert torch.allclose(other["weights"][name], value, atol=1e-4, rtol=1e-3), name


CASES = {
    "equal shares": {},
    "unequal shares": {"batch_size": 3},
    "unequal shares, batch dice": {"batch_size": 3, "batch_dice": True},
    "equal shares, batch dice": {"batch_size": 4, "batch_dice": True},
    "regions": {"batch_size": 3, "labels": REGIONS, "batch_dice": True},
    "ignore label": {"batch_size": 3, "labels": IGNORE},
    "ignore label, batch dice": {"batch_size": 3, "labels": IGNORE, "batch_dice": True},
    "regions and ignore label": {"batch_size": 3, "labels": REGIONS_IGNORE},
    "without deep supervision": {"batch_size": 3, "trainer": "nnUNetTrainerNoDeepSupervision"},
    "cross entropy": {"batch_size": 3, "trainer": "nnUNetTrainerCELoss"},
    "foreground by chance": {"batch_size": 3, "trainer": "nnUNetTrainer_probabilisticOversampling"},
}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(ranks: Ranks, dataset: Folders, name: str) -> None:
    alone = train(CASES[name])
    first, second = ranks.run(train, CASES[name])
    assert [a + b for a, b in zip(first["seen"], second["seen"], strict=True)] == alone["seen"]
    _assert_same(alone, first)
    _assert_same(first, second)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
@pytest.mark.parametrize("stop_at", [2, 5])
def test_a_training_goes_on_with_another_number_of_processes(
    ranks: Ranks, dataset: Folders, before: int, after: int, stop_at: int
) -> None:
    """Interrupted in the middle of the first epoch's training, and in that of the validation after four batches."""
    case = {"batch_size": 3, "iterations": 4}
    alone = train(case)

    def run(processes: int, more: dict[str, Any]) -> list[Any]:
        return list(ranks.run(train, {**case, **more})) if processes == 2 else [train({**case, **more})]

    stopped = run(before, {"stop_at": stop_at})
    assert all(len(one["seen"]) == stop_at for one in stopped)
    _assert_same(alone, run(after, {"resume": True})[0])


def fail(case: dict[str, Any]) -> tuple[str, int]:
    """Let the last rank's loader fail; the error, and how many iterations the checkpoint knows of."""
    trainer = _trainer(case)
    batches = 0

    def draw(loader: Any) -> Any:
        nonlocal batches
        batches += 1
        if batches == 3 and distributed.rank() == 1:
            raise WorkerError("case_3 cannot be read")
        return next(loader)

    trainer._draw = draw
    with pytest.raises(WorkerError) as error:
        trainer.run_training()
    distributed.barrier()
    state = load_checkpoint(Path(trainer.output_folder, "checkpoint_latest.pth"))
    return str(error.value), state["nnunet_lite"]["iterations_done"]


def test_a_worker_that_fails_in_one_process_stops_both_and_nothing_is_lost(ranks: Ranks, dataset: Folders) -> None:
    assert list(ranks.run(fail, {})) == [("case_3 cannot be read", 2)] * 2


def look_at_a_trainer(case: dict[str, Any]) -> dict[str, Any]:
    """What a user's trainer sees of its share."""
    trainer = _trainer(case)
    trainer.initialize()
    return {
        "share": (trainer.batch_size, round(trainer.oversample_foreground_percent, 3)),
        "recorded": (
            trainer.hyperparameters()["batch_size"],
            trainer.hyperparameters()["oversample_foreground_percent"],
        ),
        "seed": trainer.seed,
    }


def test_what_a_trainer_sees_of_its_share(ranks: Ranks, dataset: Folders) -> None:
    first, second = ranks.run(look_at_a_trainer, {"batch_size": 5})
    assert (first["share"], second["share"]) == ((3, 0.0), (2, 1.0))
    assert first["recorded"] == second["recorded"] == (5, 0.33)


def draw_a_seed(case: dict[str, Any]) -> int:
    """The seed of a training for which none was given."""
    torch.manual_seed(distributed.rank())
    trainer = _trainer(case)
    trainer.seed = None
    trainer.initialize()
    return int(trainer.seed)


def test_all_ranks_take_the_same_seed(ranks: Ranks, dataset: Folders) -> None:
    first, second = ranks.run(draw_a_seed, {})
    assert first == second


def too_many(case: dict[str, Any]) -> str:
    """The refusal of a batch that is too small."""
    with pytest.raises(ArgumentError) as error:
        _trainer(case).initialize()
    return str(error.value)


def test_a_batch_smaller_than_the_number_of_processes(ranks: Ranks, dataset: Folders) -> None:
    for message in ranks.run(too_many, {"batch_size": 1}):
        assert "A batch of 1 cannot be shared by 2 GPUs" in message


def validate(case: dict[str, Any]) -> list[str]:
    """Train for an iteration and predict; the cases this process has predicted."""
    trainer = _trainer(case)
    trainer.do_split = lambda: (list(tiny_training.CASES[:2]), list(tiny_training.CASES[2:]))
    trainer.run_training()
    said: list[str] = []
    trainer.print_to_log_file = lambda *words, **options: said.append(" ".join(map(str, words)))
    trainer.perform_actual_validation()
    distributed.barrier()
    return [line.split()[1] for line in said if line.startswith("predicting")]


def test_the_final_validation_is_shared_and_evaluated_as_a_whole(ranks: Ranks, dataset: Folders) -> None:
    case = {"epochs": 1, "iterations": 1}
    assert list(ranks.run(validate, case)) == [["case_2", "case_4"], ["case_3"]]
    summary = next(dataset.results.rglob("summary.json"))
    shared = json.loads(summary.read_text())
    assert len(shared["metric_per_case"]) == 3
    for file in dataset.results.rglob("checkpoint_*.pth"):
        file.unlink()
    validate(case)
    assert json.loads(summary.read_text()) == shared


def test_shares_weigh_by_samples() -> None:
    assert BatchShare(0, 2, 2).weight == 1
    loss = torch.nn.MSELoss()
    assert weigh_by_share(loss, BatchShare(0, 2, 2)) is loss
    assert float(weigh_by_share(lambda x: x, BatchShare(0, 1, 2))(torch.tensor(3.0))) == 1.5  # of one process
    assert float(weigh_by_share(loss, BatchShare(0, 1, 2))(torch.zeros(1), torch.ones(1))) == 0.5


def outputs_left_out() -> list[float | None]:
    """Gradients of a network of two outputs of which the loss takes one, twice in a row."""
    network = distribute(_TwoHeads(), CPU, False)
    for _ in range(2):
        network.zero_grad()
        network(torch.ones(1, 1))[0].sum().backward()
    return [float(parameter.grad) for parameter in network.parameters()]


class _TwoHeads(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = torch.nn.Linear(1, 1, bias=False)
        self.left_out = torch.nn.Linear(1, 1, bias=False)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.used(x), self.left_out(x)]


def test_outputs_that_the_loss_leaves_out(ranks: Ranks) -> None:
    assert list(ranks.run(outputs_left_out)) == [[1.0, 0.0]] * 2


def draw_masks() -> list[float]:
    """Some dropout after a common seed, in the first epoch, in the first again, and in the second."""
    masks = []
    for epoch in (0, 0, 1):
        torch.manual_seed(5)
        seed_rank(5, epoch)
        masks.append(float(torch.rand(())))
    return masks


def test_ranks_draw_a_dropout_of_their_own(ranks: Ranks) -> None:
    first, second = ranks.run(draw_masks)
    torch.manual_seed(5)
    assert first == [float(torch.rand(()))] * 3
    assert second[0] == second[1] != second[2]
    assert second[0] != first[0]
