"""Run by either interpreter: predicts with several models in one process; both packages have the same Python API.

usage: predict_jobs.py PACKAGE JOBS_JSON

A job: `model` (folder), `folds`, `mirroring`, `step`, `cases` (list of lists of files), `outputs` (path without file
ending per case), `previous` (folder or null), `options` (keyword arguments that only ours has; `dtype_of_sums` is a
name). OMP_NUM_THREADS is obeyed (default: 1). The line `RESULT json` lists the jobs that failed: `model`, `failed`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch


def predict(package: str, job: dict[str, Any]) -> None:
    """Predict the cases of a job into files, with probabilities."""
    module = importlib.import_module(f"{package}.inference.predict_from_raw_data")
    options = dict(job["options"])
    if "dtype_of_sums" in options:
        options["dtype_of_sums"] = getattr(torch, options["dtype_of_sums"])
    predictor = module.nnUNetPredictor(
        tile_step_size=job["step"],
        use_mirroring=job["mirroring"],
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
        **options,
    )
    predictor.initialize_from_trained_model_folder(job["model"], tuple(job["folds"]), "checkpoint_final.pth")
    Path(job["outputs"][0]).parent.mkdir(parents=True, exist_ok=True)
    predictor.predict_from_files_sequential(job["cases"], job["outputs"], True, True, job["previous"])


def main() -> None:
    """Do all jobs; one that fails does not stop the others."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    failed = []
    for job in json.loads(Path(sys.argv[2]).read_text()):
        start = time.perf_counter()
        try:
            predict(sys.argv[1], job)
        except Exception as error:
            traceback.print_exc()
            failed.append({"model": job["model"], "failed": f"{type(error).__name__}: {error}"})
        print(f"{time.perf_counter() - start:.1f} s {job['model']}", flush=True)
    print("RESULT", json.dumps(failed), flush=True)


if __name__ == "__main__":
    main()
