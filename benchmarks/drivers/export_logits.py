"""Run by either interpreter: export logits once; seconds and memory above the logits as JSON."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

PLANS_MANAGER = {
    "nnunetv2": "nnunetv2.utilities.plans_handling.plans_handler",
    "nnunet_lite": "nnunet_lite.plans.plans_manager",
}


def status(key: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def smooth_logits(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Random but smooth logits, one channel at a time, so that regions look like organs rather than noise."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.empty(shape, dtype=dtype)
    for channel in logits:
        coarse = torch.randn((1, 1, 9, 12, 12), generator=generator) * 4
        channel.copy_(torch.nn.functional.interpolate(coarse, shape[1:], mode="trilinear")[0, 0])
    return logits


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
    logits = smooth_logits(tuple(job["shape"]), getattr(torch, job["dtype"]))
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
    before, start, used = status("VmRSS"), time.perf_counter(), time.process_time()
    if job["probabilities"]:
        export.export_prediction_from_logits(
            logits, job["properties"], configuration, manager, dataset_json, output, True, job["threads"]
        )
    else:
        labels = manager.get_label_manager(dataset_json)
        segmentation = export.convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, manager, configuration, labels, job["properties"], False, job["threads"]
        )
    found = {"seconds": time.perf_counter() - start, "bytes": status("VmHWM") - before}
    print(json.dumps({**found, "processor": time.process_time() - used}))
    if not job["probabilities"]:
        np.save(f"{output}.npy", np.asarray(segmentation))


if __name__ == "__main__":
    main()
