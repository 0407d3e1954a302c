"""Signs of life within an epoch."""

from __future__ import annotations

import logging

import pytest

from nnunet_lite.training.logging import epoch_report
from nnunet_lite.training.logging.epoch_report import steps_of_epoch


def test_without_a_terminal_there_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter(range(0, 1000, 25))
    monkeypatch.setattr(epoch_report.time, "monotonic", lambda: float(next(clock)))
    with caplog.at_level(logging.INFO, "nnunet_lite"):
        assert list(steps_of_epoch(3, 9, "Training")) == [3, 4, 5, 6, 7, 8]
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        "Training: 5 of 9 iterations",
        "Training: 8 of 9 iterations",
    ]


def test_nothing_left_to_do() -> None:
    assert list(steps_of_epoch(4, 4, "Training")) == []
