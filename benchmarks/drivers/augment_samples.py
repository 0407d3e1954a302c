"""Run by either interpreter: makes training batches in this process; a number per line comes in, seconds go out.

usage: augment_samples.py PACKAGE PLANS DATASET_JSON CONFIGURATION TRAINER BATCH_SIZE
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

PACKAGES = {"nnunetv2": "nnunetv2.training.nnUNetTrainer", "nnunet_lite": "nnunet_lite.training.nnUNetTrainer"}
VARIANTS = {
    "nnUNetTrainer": {"nnunetv2": "nnUNetTrainer", "nnunet_lite": "nnUNetTrainer"},
    "nnUNetTrainerDA5": {
        "nnunetv2": "variants.data_augmentation.nnUNetTrainerDA5",
        "nnunet_lite": "variants.data_augmentation",
    },
}


def status(key: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def training_batches(package: str, plans_file: str, dataset_file: str, rest: list[str]) -> Any:
    """The iterator a training would draw from, made by the trainer; fold `all` leaves the splits alone."""
    configuration, trainer_name, batch_size = rest
    plans = json.loads(Path(plans_file).read_text())
    plans["continue_training"] = False
    plans["configurations"][configuration]["batch_size"] = int(batch_size)
    module = importlib.import_module(f"{PACKAGES[package]}.{VARIANTS[trainer_name][package]}")
    dataset = json.loads(Path(dataset_file).read_text())
    trainer = getattr(module, trainer_name)(plans, configuration, "all", dataset, torch.device("cpu"))
    trainer.initialize()
    batches = trainer.get_dataloaders()[0]
    trainer.network = trainer.optimizer = trainer.lr_scheduler = None
    return batches


def release() -> None:
    """Give back the memory of the network, which would hide what the batches need."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def main() -> None:
    """Answer every line of input by the seconds of that many batches, and by the peak of private memory above before.

    CPU seconds do not count the time that other processes had the core.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the trainer says does not belong between the answers
    torch.set_num_threads(1)
    batches = training_batches(*sys.argv[1:4], sys.argv[4:])
    release()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
    before, mapped = status("VmRSS"), status("RssFile")
    for line in sys.stdin:
        seconds, cpu = [], []
        for _ in range(int(line)):
            start, start_cpu = time.perf_counter(), time.process_time()
            next(batches)
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
        peak = status("VmHWM") - before - (status("RssFile") - mapped)
        print(json.dumps({"seconds": seconds, "cpu": cpu, "bytes": max(0, peak)}), file=answers, flush=True)
    close = getattr(batches, "close", None) or getattr(batches, "_finish", None)
    if close is not None:
        close()


if __name__ == "__main__":
    main()
