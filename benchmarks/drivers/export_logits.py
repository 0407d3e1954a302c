"""Run by either interpreter: export logits once; seconds and memory above the logits as JSON."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

PLANS_MANAGER = {
    "nnunetv2": "nnunetv2.utilities.plans_handling.plans_handler",
    "nnunet_lite": "nnunet_lite.plans.plans_manager",
}


def status(key: str) -> int:
    """A line of memory of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


@contextlib.contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Yield a list whose element becomes the peak of this process's own memory; mapped files are not its own."""
    peak, done = [status("RssAnon")], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], status("RssAnon"))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def smooth_logits(shape: tuple[int, ...], dtype: torch.dtype, file: Path | None) -> torch.Tensor:
    """Random but smooth logits, one channel at a time, so that regions look like organs rather than noise.

    In memory, or in a `.npy` file that is mapped, as a worker gets them.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.empty(shape, dtype=dtype) if file is None else torch.from_numpy(mapped(file, shape, dtype))
    for channel in logits:
        coarse = torch.randn((1, 1, 9, 12, 12), generator=generator) * 4
        channel.copy_(torch.nn.functional.interpolate(coarse, shape[1:], mode="trilinear")[0, 0])
    return logits


def mapped(file: Path, shape: tuple[int, ...], dtype: torch.dtype) -> np.ndarray:
    """A new array in a file whose name is gone at once."""
    array = np.lib.format.open_memmap(file, "w+", np.dtype(str(dtype).removeprefix("torch.")), shape)
    file.unlink()
    return array


def main() -> None:
    """usage: export_logits.py PACKAGE PLANS DATASET_JSON JOB_JSON OUTPUT (path without file ending)."""
    package, plans, dataset_json_file, job_file, output = sys.argv[1:]
    job = json.loads(Path(job_file).read_text())
    handler = importlib.import_module(PLANS_MANAGER[package])
    export = importlib.import_module(f"{package}.inference.export_prediction")
    manager = handler.PlansManager(json.loads(Path(plans).read_text()))
    configuration = manager.get_configuration(job["configuration"])
    dataset_json = json.loads(Path(dataset_json_file).read_text())
    dataset_json["labels"] = job.get("labels", dataset_json["labels"])
    torch.set_num_threads(job["threads"])
    file = Path(f"{output}_logits.npy") if job["from_file"] else None
    logits = smooth_logits(tuple(job["shape"]), getattr(torch, job["dtype"]), file)
    segmentation = None
    with peak_memory() as peak:
        before, start, used = status("RssAnon"), time.perf_counter(), time.process_time()
        if job["probabilities"]:
            export.export_prediction_from_logits(
                logits, job["properties"], configuration, manager, dataset_json, output, True, job["threads"]
            )
        else:
            labels = manager.get_label_manager(dataset_json)
            segmentation = export.convert_predicted_logits_to_segmentation_with_correct_shape(
                logits, manager, configuration, labels, job["properties"], False, job["threads"]
            )
        found = {"seconds": time.perf_counter() - start, "processor": time.process_time() - used}
    print(json.dumps({**found, "bytes": peak[0] - before}))
    if segmentation is not None:
        np.save(f"{output}.npy", np.asarray(segmentation))


if __name__ == "__main__":
    main()
