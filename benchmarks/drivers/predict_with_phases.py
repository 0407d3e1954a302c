"""nnUNetv2_predict_from_modelfolder in one process, with the seconds of its phases as JSON in the last line.

The first argument is the size of sums (bytes) above which images are predicted in bands; the others are the command's.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunet_lite.cli.inference import predict_from_modelfolder_entry
from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter
from nnunet_lite.inference import (
    data_iterators,
    export_queue,
    logit_prediction,
    memory_of_sums,
    plane_stream,
    predict_from_raw_data,
    reduced_prediction,
)

seconds: dict[str, float] = {}


def timed(owner: Any, name: str, phase: str) -> None:
    """Add the time spent in a function of a module or class to a phase."""
    function: Callable[..., Any] = getattr(owner, name)

    def run(*args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **options)
        finally:
            seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - start

    setattr(owner, name, run)


def main() -> None:
    """Run the command."""
    memory_of_sums.BANDED_PREDICTION_BYTES = int(sys.argv[1])
    timed(BaseReaderWriter, "read_images", "read")
    timed(data_iterators, "preprocess_case", "read and preprocess")
    timed(logit_prediction, "add_predictions", "network")
    timed(plane_stream, "reduce_logits", "reduce")
    timed(reduced_prediction.ReducedPrediction, "finish", "write")
    timed(export_queue, "export_case", "export")
    timed(predict_from_raw_data.nnUNetPredictor, "predict_item", "predict")
    start = time.perf_counter()
    predict_from_modelfolder_entry(sys.argv[2:])
    seconds["whole"] = time.perf_counter() - start
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    seconds["VmHWM MiB"] = next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
