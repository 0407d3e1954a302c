"""Curves: moving average, NaN, what is stored, what is written."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_lite.exceptions import CheckpointError
from nnunet_lite.training.logging.epoch_report import epoch_report
from nnunet_lite.training.logging.log_file import append_line, log_file_name
from nnunet_lite.training.logging.loggers import KEYS, MetaLogger
from nnunet_lite.utilities.durations import duration


def _logger(folder: Path, dice: list[float]) -> MetaLogger:
    logger = MetaLogger(folder, resume=False)
    for epoch, value in enumerate(dice):
        logger.log("epoch_start_timestamps", 100.0 * epoch, epoch)
        logger.log("mean_fg_dice", np.float32(value), epoch)
        logger.log("dice_per_class_or_region", [np.float32(value), np.float32(np.nan)], epoch)
        for key in ("train_losses", "val_losses", "lrs"):
            logger.log(key, 0.5, epoch)
        logger.log("epoch_end_timestamps", 100.0 * epoch + 60, epoch)
    return logger


def test_moving_average(tmp_path: Path) -> None:
    logger = _logger(tmp_path, [0.2, 0.5, 0.8, 0.1])
    assert logger.get_value("ema_fg_dice", None) == pytest.approx([0.2, 0.23, 0.287, 0.2683])


def test_an_epoch_without_foreground_does_not_spoil_the_average(tmp_path: Path) -> None:
    averages = _logger(tmp_path, [math.nan, 0.2, math.nan, 0.5]).get_value("ema_fg_dice")
    assert math.isnan(averages[0])
    assert averages[1:] == pytest.approx([0.2, 0.2, 0.23])


def test_everything_stored_is_a_plain_number(tmp_path: Path) -> None:
    stored = _logger(tmp_path, [0.2]).get_checkpoint()
    assert sorted(stored) == sorted(KEYS)
    assert type(stored["mean_fg_dice"][0]) is float
    assert [type(value) for value in stored["dice_per_class_or_region"][0]] == [float, float]


def test_the_newest_epoch_may_be_logged_again_an_older_one_not(tmp_path: Path) -> None:
    logger = _logger(tmp_path, [0.2, 0.5])
    logger.log("mean_fg_dice", 0.8, 1)
    assert logger.get_value("ema_fg_dice") == pytest.approx([0.2, 0.26])
    with pytest.raises(ValueError, match="epoch 0"):
        logger.log("lrs", 1, 0)
    with pytest.raises(ValueError, match="no curve 'nonsense'"):
        logger.log("nonsense", 1, 0)


def test_curves_of_upstream_are_read_as_plain_numbers(tmp_path: Path) -> None:
    logger = MetaLogger(tmp_path, resume=True)
    logger.load_checkpoint({"mean_fg_dice": [np.float32(0.5)], "dice_per_class_or_region": [[np.float32(0.5)]]})
    assert logger.get_value("mean_fg_dice") == [0.5]
    assert type(logger.get_value("dice_per_class_or_region", 0)[0]) is float
    with pytest.raises(CheckpointError, match="no curves"):
        logger.load_checkpoint({"mean_fg_dice": 3})


def test_further_loggers_get_every_class(tmp_path: Path) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.calls: list[tuple[Any, ...]] = []

        def log(self, *call: Any) -> None:
            self.calls.append(call)

        def log_summary(self, *call: Any) -> None:
            self.calls.append(call)

        def update_config(self, config: dict[str, Any]) -> None:
            self.calls.append(("config", config))

    logger, recorder = MetaLogger(tmp_path, resume=False), Recorder()
    logger.loggers.append(recorder)
    logger.log("dice_per_class_or_region", [0.1, 0.2], 0)
    logger.log("mean_fg_dice", 0.15, 0)
    logger.log_summary("final_val/foreground_dice", 0.9)
    logger.update_config({"fold": 0})
    assert recorder.calls == [
        ("dice_per_class_or_region/class_1", 0.1, 0),
        ("dice_per_class_or_region/class_2", 0.2, 0),
        ("mean_fg_dice", 0.15, 0),
        ("ema_fg_dice", 0.15, 0),
        ("final_val/foreground_dice", 0.9),
        ("config", {"fold": 0}),
    ]


def test_figure_and_metrics(tmp_path: Path) -> None:
    logger = _logger(tmp_path, [math.nan, 0.5])
    logger.log("lrs", 0.1, 2)  # an epoch that is not complete is left out
    logger.plot_progress_png(tmp_path)
    logger.write_metrics(tmp_path / "metrics.jsonl")
    assert (tmp_path / "progress.png").read_bytes().startswith(b"\x89PNG")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["seconds"]) for row in rows] == [(0, 60.0), (1, 60.0)]


def test_figure_is_not_drawn_more_often_than_worthwhile(tmp_path: Path) -> None:
    logger = _logger(tmp_path, [0.5])
    logger.plot_progress_png(tmp_path, force=False)
    (tmp_path / "progress.png").unlink()
    logger.plot_progress_png(tmp_path, force=False)
    assert not (tmp_path / "progress.png").exists()


def test_report_of_an_epoch(tmp_path: Path) -> None:
    curves = _logger(tmp_path, [0.25, 0.5]).get_checkpoint()
    assert epoch_report(curves, 1, 5, datetime(2026, 1, 1, 12)) == [
        "train_loss 0.5",
        "val_loss 0.5",
        "Pseudo dice [0.5, nan]",
        "Epoch time: 60.0 s",
        "3 epochs left: 3 min, done about 2026-01-01 12:03",
    ]
    assert len(epoch_report(curves, 1, 2, datetime(2026, 1, 1))) == 4


@pytest.mark.parametrize(
    ("seconds", "text"), [(42, "42 s"), (720, "12 min"), (11_100, "3 h 05 min"), (187_200, "2 d 4 h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_log_file(tmp_path: Path) -> None:
    name = log_file_name(datetime(2026, 3, 7, 5, 4, 9))
    assert name == "training_log_2026_3_7_05_04_09.txt"
    file = tmp_path / "fold_0" / name
    append_line(file, ("a", 1), add_timestamp=True, to_console=False, to_file=True)
    append_line(file, ("b",), add_timestamp=False, to_console=False, to_file=True)
    append_line(file, ("c",), add_timestamp=False, to_console=False, to_file=False)
    first, second = file.read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}: a 1 ", first)
    assert second == "b "
