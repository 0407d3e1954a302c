"""Many plans in one process, with either package: `python plan_many.py PACKAGE JOBS.json RESULTS_FOLDER SECONDS`.

A job is {"key", "dataset", "planner", "file", "options"}; its plans as text, or its error, go to <key>.json there.
Jobs that have a result are passed over, so a run that was stopped goes on when it is started again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path


def main() -> None:
    """Plan until all jobs are done or the time is up."""
    package, jobs, results, seconds = sys.argv[1:]
    api = import_module(f"{package}.experiment_planning.plan_and_preprocess_api")
    end = time.monotonic() + float(seconds)
    Path(results).mkdir(parents=True, exist_ok=True)
    for job in json.loads(Path(jobs).read_text()):
        result = Path(results) / f"{job['key']}.json"
        if result.exists() or time.monotonic() > end:
            continue
        start = time.perf_counter()
        found = {"text": None, "error": None}
        try:
            api.plan_experiments([int(job["dataset"][7:10])], job["planner"], **job["options"])
            file = Path(os.environ["nnUNet_preprocessed"]) / job["dataset"] / f"{job['file']}.json"
            found["text"] = file.read_text()
        except Exception as error:  # of either package; the comparison shows it
            found["error"] = f"{type(error).__name__}: {error}"
        found["seconds"] = time.perf_counter() - start
        result.write_text(json.dumps(found))
        print(f"{job['key']}: {found['seconds']:.2f} s {found['error'] or ''}", flush=True)


if __name__ == "__main__":
    main()
