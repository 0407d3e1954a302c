"""Curves are found in metrics.jsonl, in upstream's logs, in checkpoints; damaged lines are passed over."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from nnunet_lite.reporting.training_curves import read_curves

LINE = "2026-01-0{day} 10:00:00.123456: {words} \n"
DAMAGED = f"""{{"epoch": 1{"0" * 400}}}
{{"epoch": 1e300}}
{{"epoch": -1}}
{{"epoch": NaN}}
{{"epoch": -Infinity}}
{{"epoch": "7"}}
{"[" * 100_000}
"""


def log(folder: Path, name: str, epochs: range, dice: str, day: int = 1) -> None:
    lines = ["", "This is a header about Epoch times and the like"]
    for epoch in epochs:
        lines += [f"Epoch {epoch}", "Current learning rate: 0.01", f"train_loss {-epoch / 10}", "val_loss -0.5",
                  f"Pseudo dice {dice}", "Epoch time: 12.34 s"]  # fmt: skip
    (folder / name).write_text("".join(LINE.format(day=day, words=words) for words in lines))


def test_metrics(tmp_path: Path) -> None:
    rows = [
        {"epoch": e, "train_losses": -e, "val_losses": 1, "mean_fg_dice": math.nan, "seconds": 2} for e in (0, 1, 2)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(
        text + '{"epoch": 3, "train_lo\n[]\n{"epoch": null}\n{"epoch": 1e999}\n' + DAMAGED
    )
    curves = read_curves(tmp_path)
    assert curves is not None and curves.epochs == [0, 1, 2] and curves.source == "metrics.jsonl"
    assert curves.values["train_losses"] == [0, -1, -2] and math.isnan(curves.values["lrs"][0])


@pytest.mark.parametrize("dice", ["[0.8, 0.6]", "[np.float32(0.8), np.float32(0.6)]", "[0.8, nan, 0.6]"])
def test_upstreams_log(tmp_path: Path, dice: str) -> None:
    log(tmp_path, "training_log_2026_1_1_10_00_00.txt", range(3), dice)
    curves = read_curves(tmp_path)
    assert curves is not None and curves.epochs == [0, 1, 2]
    assert curves.values["train_losses"] == [0, -0.1, -0.2] and curves.values["lrs"] == [0.01] * 3
    assert curves.values["mean_fg_dice"] == pytest.approx([0.7] * 3) == curves.values["ema_fg_dice"]
    assert curves.values["seconds"] == [12.34] * 3


def test_a_continued_training_has_several_logs(tmp_path: Path) -> None:
    log(tmp_path, "training_log_2026_1_9_10_00_00.txt", range(5), "[0.1]")
    log(tmp_path, "training_log_2026_1_10_10_00_00.txt", range(3, 7), "[0.9]", day=2)  # later, though first by name
    with (tmp_path / "training_log_2026_1_10_10_00_00.txt").open("a") as file:
        file.write(LINE.format(day=2, words="Epoch 7"))  # begun, not finished
    curves = read_curves(tmp_path)
    assert curves is not None and curves.epochs == list(range(7))
    assert curves.values["mean_fg_dice"] == [0.1] * 3 + [0.9] * 4
    assert curves.values["ema_fg_dice"][4] == pytest.approx(0.9 * 0.18 + 0.09)


def test_a_checkpoint_where_nothing_else_is_left(tmp_path: Path) -> None:
    logging = {"train_losses": [1.0, 0.5], "val_losses": [1.0], "mean_fg_dice": [0.1, 0.2], "ema_fg_dice": [0.1, 0.11],
               "lrs": [0.01, 0.009],
               "epoch_start_timestamps": [0.0, 5.0], "epoch_end_timestamps": [4.0, 9.5]}  # fmt: skip
    torch.save({"network_weights": {}, "logging": logging}, tmp_path / "checkpoint_final.pth")
    curves = read_curves(tmp_path)
    assert curves is not None and curves.source == "checkpoint_final.pth" and curves.epochs == [0, 1]
    assert curves.values["seconds"] == [4.0, 4.5] and math.isnan(curves.values["val_losses"][1])


def test_nothing_is_left(tmp_path: Path) -> None:
    assert read_curves(tmp_path) is None and read_curves(tmp_path / "none") is None
    (tmp_path / "checkpoint_final.pth").write_bytes(b"weights")
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe nonsense")
    assert read_curves(tmp_path) is None
    for content in ("text", {"train_losses": 3}, {"train_losses": ["x"], "epoch_start_timestamps": None}):
        torch.save({"network_weights": {}, "logging": content}, tmp_path / "checkpoint_final.pth")
        curves = read_curves(tmp_path)
        assert curves is None or math.isnan(curves.values["train_losses"][0])


def test_values_beyond_any_scale_count_as_unknown(tmp_path: Path) -> None:
    row = {"epoch": 0, "train_losses": 1e308, "val_losses": math.inf, "lrs": 10**400, "mean_fg_dice": 1e30}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row))
    curves = read_curves(tmp_path)
    assert curves is not None and curves.values["mean_fg_dice"] == [1e30]
    assert all(math.isnan(curves.values[key][0]) for key in ("train_losses", "val_losses", "lrs"))
