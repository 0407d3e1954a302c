"""How fast an epoch was, how much of it was spent waiting for data, and the memory that was held."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from nnunet_lite.configuration import cpu_count
from nnunet_lite.training.data_watch import DataWatch, describe_wait
from nnunet_lite.utilities.files import PathLike
from nnunet_lite.utilities.memory import format_size, memory_of

KEYS = ("iterations_per_second", "data_wait_share", "memory", "gpu_memory")  # in metrics.jsonl; memory in bytes

_MUCH = 0.15  # share of the training time spent waiting for data from which on there is advice
_SECONDS = 2.0  # and at least this long, for shares of very short epochs say nothing


class EpochSpeed:
    """Measures at the only place every batch passes: where it is drawn.

    The training part of an epoch lasts from its first training batch to the first validation batch after it.
    """

    def __init__(self) -> None:
        self.watch = DataWatch()
        self._waited = 0.0  # seconds, in the training part
        self._iterations = 0
        self._start: float | None = None
        self._end: float | None = None
        self._epochs = 0
        self._last_wait = 0.0  # seconds, of the epoch that was finished last
        self._advised = False

    @contextlib.contextmanager
    def draw(self, loader: Any, training: bool, say: Callable[[str], None]) -> Iterator[None]:
        """Around the drawing of one batch; `say` is told about long waits."""
        now = time.monotonic()
        if training and (self._start is None or (self._epochs == 0 and self._iterations == 1)):
            self._start = now  # once more at the second batch after a start: before it the workers were starting
            self._iterations, self._waited = 0, 0.0
        if not training and self._end is None:
            self._end = now
        before = self.watch.seconds
        with self.watch.waiting(lambda: describe_wait(loader), say):
            yield
        if training:
            self._iterations += 1
            self._waited += self.watch.seconds - before

    def finish(self, device: torch.device) -> dict[str, float]:
        """The figures of the epoch that ends here (empty if no batch was drawn); counting starts anew."""
        iterations, waited, start = self._iterations, self._waited, self._start
        seconds = (self._end or time.monotonic()) - (start or 0.0)
        self._iterations, self._waited, self._start, self._end = 0, 0.0, None, None
        if start is None or seconds <= 0 or iterations == 0:
            return {}
        self._epochs += 1
        self._last_wait = waited
        processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
        values: dict[str, float] = {
            "iterations_per_second": round(iterations / seconds, 4),
            "data_wait_share": round(waited / seconds, 4),
            "memory": memory_of(processes),
        }
        if device.type == "cuda":
            values["gpu_memory"] = torch.cuda.max_memory_allocated(device)
        return values

    def advice(self, values: Mapping[str, float], device: torch.device, loader: Any) -> str | None:
        """What to do about too much waiting, once; not in the first epoch, in which the workers start."""
        share = values.get("data_wait_share", 0.0)
        if self._advised or self._epochs < 2 or share < _MUCH or self._last_wait < _SECONDS:
            return None
        remedy = _remedy(device, getattr(loader, "num_workers", None), getattr(loader, "device", None))
        if remedy is None:
            return None
        self._advised = True
        return f"{share:.0%} of the training time was spent waiting for data: {remedy}"


def _remedy(device: torch.device, workers: int | None, augmenting: torch.device | None) -> str | None:
    if workers is None:  # a loader of the user's
        return None
    if workers == 0:
        return "with nnUNet_n_proc_DA=0 every batch is made while nothing else happens; allow at least one worker"
    if device.type == "cpu":  # network and workers share the cores: neither more nor fewer workers help
        return None
    remedies = []
    if augmenting is None and device.type == "cuda":
        remedies.append("augment on the GPU (nnUNet_DA_device=gpu)")
    cores = cpu_count()
    more = f"raise nnUNet_n_proc_DA (now {workers}, {cores} cores are usable)"
    remedies.append(more if workers < cores else f"give the training more than {cores} CPU cores")
    remedies.append("keep nnUNet_preprocessed on a fast local disk")
    return ", or ".join(remedies)


def speed_report(values: Mapping[str, float]) -> list[str]:
    """The line of the log about an epoch's speed, after upstream's lines."""
    if not values:
        return []
    speed, share = values["iterations_per_second"], values["data_wait_share"]
    pace = f"{speed:.2f} iterations/s" if speed >= 1 else f"{1 / max(speed, 1e-9):.1f} s per iteration"
    line = f"{pace}, {share:.0%} of it waiting for data, memory {format_size(values['memory'])} (all processes)"
    if "gpu_memory" in values:
        line += f", at most {format_size(values['gpu_memory'])} on the GPU"
    return [line]


def earlier_speeds(path: PathLike) -> dict[int, dict[str, float]]:
    """Figures per epoch of a metrics.jsonl, which a continued training keeps; a damaged line is passed over."""
    found: dict[int, dict[str, float]] = {}
    with contextlib.suppress(OSError):
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                row = json.loads(line)
                found[int(row["epoch"])] = {key: row[key] for key in KEYS if key in row}
    return found
