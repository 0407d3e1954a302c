"""Figures of an epoch, the line about them, and advice."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nnunet_lite.training.logging import epoch_speed
from nnunet_lite.training.logging.epoch_speed import EpochSpeed, earlier_speeds, speed_report
from nnunet_lite.training.logging.loggers import KEYS, MetaLogger

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def run_epoch(speed: EpochSpeed, clock: list[float], wait: float, step: float, steps: int = 10) -> dict[str, float]:
    for _ in range(steps):
        with speed.draw(None, True, print):
            clock[0] += wait
            speed.watch.seconds += wait
        clock[0] += step
    with speed.draw(None, False, print):
        clock[0] += 50  # validation does not count
    return speed.finish(CPU)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(epoch_speed.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        epoch_speed.DataWatch, "waiting", lambda self, what, say: contextlib.nullcontext()
    )  # whose time is the real one
    return now


def test_figures(clock: list[float]) -> None:
    speed = EpochSpeed()
    values = run_epoch(speed, clock, wait=0.1, step=0.4)
    assert values["iterations_per_second"] == 2.0
    assert values["data_wait_share"] == 0.2
    assert values["memory"] > 2**20
    assert set(values) <= set(epoch_speed.KEYS)
    assert speed.finish(CPU) == {}  # an epoch in which nothing was drawn
    assert speed_report({}) == []
    assert run_epoch(speed, clock, wait=0.0, step=0.5)["data_wait_share"] == 0.0


def test_the_line() -> None:
    values = {"iterations_per_second": 2.0, "data_wait_share": 0.204, "memory": 3 * 2**30, "gpu_memory": 2**33}
    assert speed_report(values) == [
        "2.00 iterations/s, 20% of it waiting for data, memory 3.0 GiB (all processes), at most 8.0 GiB on the GPU"
    ]
    assert speed_report({**values, "iterations_per_second": 0.125})[0].startswith("8.0 s per iteration")


def test_advice_comes_once_and_not_for_the_first_epoch(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch_speed, "cpu_count", lambda: 16)
    speed, loader = EpochSpeed(), SimpleNamespace(num_workers=4, device=None)
    said = []
    for wait in (0.5, 0.01, 0.5, 0.5):
        said.append(speed.advice(run_epoch(speed, clock, wait, 0.5), CUDA, loader))
    assert [text is None for text in said] == [True, True, False, True]
    assert said[2] is not None and said[2].startswith("50% of the training time was spent waiting for data: augment on")
    assert "nnUNet_DA_device=gpu" in said[2] and "raise nnUNet_n_proc_DA (now 4, 16 cores are usable)" in said[2]


@pytest.mark.parametrize(
    ("device", "workers", "augmenting", "words"),
    [
        (CUDA, 16, CUDA, "give the training more than 16 CPU cores"),
        (CPU, 0, None, "allow at least one worker"),
        (CPU, 2, None, None),  # the network needs the same cores
        (CUDA, None, None, None),  # a loader of the user's
    ],
)
def test_what_is_advised(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, device: Any, workers: Any, augmenting: Any, words: str | None
) -> None:
    monkeypatch.setattr(epoch_speed, "cpu_count", lambda: 16)
    loader = SimpleNamespace(num_workers=workers, device=augmenting)
    speed = EpochSpeed()
    run_epoch(speed, clock, 0.5, 0.5)
    advice = speed.advice(run_epoch(speed, clock, 0.5, 0.5), device, loader)
    assert advice is None if words is None else advice is not None and words in advice
    assert advice is None or "nnUNet_DA_device" not in advice


def test_a_continued_training_keeps_the_figures_of_earlier_epochs(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"

    def logger(epochs: int) -> MetaLogger:
        made = MetaLogger(tmp_path, False)
        made.load_checkpoint({key: [0.5] * epochs for key in KEYS})
        return made

    first = logger(1)
    first.log_speed({"iterations_per_second": 2.0, "data_wait_share": 0.1, "memory": 5}, 0)
    first.write_metrics(file)
    continued = logger(2)
    continued.log_speed({"iterations_per_second": 3.0}, 1)
    continued.write_metrics(file)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["iterations_per_second"] for row in rows] == [2.0, 3.0] and rows[0]["memory"] == 5
    file.write_text('{"epoch": 0, "memory": 7}\nnonsense\n[]\n{"memory": 7}\n')
    assert earlier_speeds(file) == {0: {"memory": 7}}
    assert earlier_speeds(tmp_path / "nothing") == {}


def test_further_loggers_get_them_too(tmp_path: Path) -> None:
    got = []
    logger = MetaLogger(tmp_path, False)
    logger.loggers.append(SimpleNamespace(log=lambda *values: got.append(values)))
    logger.log_speed({"data_wait_share": 0.1}, 4)
    assert got == [("data_wait_share", 0.1, 4)]
