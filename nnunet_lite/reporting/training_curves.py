"""The curves of one fold's training: from metrics.jsonl, else from the training logs, else from a checkpoint."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_lite.exceptions import nnUNetError
from nnunet_lite.model_selection.dataset_status import epoch_of

_NAN = math.nan
_KEYS = ("train_losses", "val_losses", "mean_fg_dice", "ema_fg_dice", "lrs", "seconds")
_LINE = re.compile(r"(?:^|: )(Epoch (?P<epoch>\d+)|(?P<key>train_loss|val_loss|Epoch time:) (?P<value>\S+)"
                   r"|Current learning rate: (?P<lr>\S+)|Pseudo dice \[(?P<dice>[^\]]*)\])")  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.])-?\d+\.?\d*(?:e[-+]?\d+)?|nan")
_LONGEST = 64 * 2**20  # bytes of a log; training logs have some hundred bytes per epoch
_HIGHEST = 1e100  # of any value; damage beyond, of which charts could not find a scale
_KEEP = 0.9  # of the moving average of Dice, as the trainer's


class Curves(NamedTuple):
    """Epochs of one fold in order, NaN where nothing is known."""

    epochs: list[int]
    values: dict[str, list[float]]  # train_losses, val_losses, mean_fg_dice, ema_fg_dice, lrs, seconds
    source: str  # name of the file


def read_curves(fold_folder: Path) -> Curves | None:
    """The curves of a fold, or None where nothing is left of its training. Damaged lines are passed over."""
    for read in (_from_metrics, _from_logs, _from_checkpoint):
        curves = read(fold_folder)
        if curves is not None and curves.epochs:
            return curves
    return None


def _from_metrics(folder: Path) -> Curves | None:
    file = folder / "metrics.jsonl"
    rows: dict[int, dict[str, float]] = {}
    for line in _lines(file):
        try:
            row = json.loads(line)
            rows[epoch_of(row)] = {key: _number(row.get(key)) for key in _KEYS}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return _curves(rows, file.name)


def _from_logs(folder: Path) -> Curves | None:
    """Of a training that was continued there is a log per start; the later one counts."""
    logs = sorted(
        folder.glob("training_log_*.txt"), key=lambda log: [int(part) for part in re.findall(r"\d+", log.name)]
    )
    rows: dict[int, dict[str, float]] = {}
    for log in logs:
        epoch = None
        for line in _lines(log):
            found = _LINE.search(line)
            if found is None:
                continue
            if found["epoch"] is not None:
                epoch = int(found["epoch"][:9])
                rows[epoch] = dict.fromkeys(_KEYS, _NAN)
            elif epoch is not None:
                rows[epoch].update(_entry(found))
    finished = {epoch: row for epoch, row in rows.items() if not math.isnan(row["train_losses"])}
    for epoch in sorted(finished):
        row, before = finished[epoch], finished.get(epoch - 1, {}).get("ema_fg_dice", _NAN)
        dice = row["mean_fg_dice"]
        row["ema_fg_dice"] = dice if math.isnan(before) else before if math.isnan(dice) else _KEEP * before + 0.1 * dice
    return _curves(finished, logs[-1].name if logs else "")


def _entry(found: re.Match[str]) -> dict[str, float]:
    if found["lr"] is not None:
        return {"lrs": _number(found["lr"])}
    if found["dice"] is not None:
        inner = re.sub(r"np\.float\d+\(", "(", found["dice"])  # as numpy 2 prints its scalars
        values = [value for value in map(_number, _NUMBER.findall(inner)) if not math.isnan(value)]
        return {"mean_fg_dice": sum(values) / len(values) if values else _NAN}
    names = {"train_loss": "train_losses", "val_loss": "val_losses", "Epoch time:": "seconds"}
    return {names[found["key"]]: _number(found["value"])}


def _from_checkpoint(folder: Path) -> Curves | None:
    names = [folder / f"checkpoint_{name}.pth" for name in ("final", "latest", "best")]
    file = next((name for name in names if name.is_file()), None)
    if file is None:
        return None
    from nnunet_lite.models.checkpoint import read_checkpoint  # torch, for models that came without their logs

    try:
        logging = read_checkpoint(file, mapped=True).get("logging")
    except nnUNetError:
        return None
    if not isinstance(logging, dict):
        return None
    columns = {key: [_number(value) for value in _list(logging, key)] for key in _KEYS if key != "seconds"}
    stamps = [_list(logging, f"epoch_{name}_timestamps") for name in ("start", "end")]
    columns["seconds"] = [_number(end) - _number(start) for start, end in zip(*stamps, strict=False)]
    length = len(columns["train_losses"])
    rows = {
        epoch: {key: values[epoch] if epoch < len(values) else _NAN for key, values in columns.items()}
        for epoch in range(length)
    }
    return _curves(rows, file.name)


def _list(logging: dict[str, Any], key: str) -> list[Any]:
    values = logging.get(key)
    return list(values) if isinstance(values, (list, tuple)) else []


def _curves(rows: dict[int, dict[str, float]], source: str) -> Curves | None:
    if not rows:
        return None
    epochs = sorted(rows)
    return Curves(epochs, {key: [rows[epoch][key] for epoch in epochs] for key in _KEYS}, source)


def _lines(file: Path) -> Iterator[str]:
    try:
        if not file.is_file() or file.stat().st_size > _LONGEST:
            return
        with file.open(encoding="utf-8", errors="replace") as text:
            yield from text
    except OSError:
        return


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return _NAN
    return number if abs(number) <= _HIGHEST else _NAN
