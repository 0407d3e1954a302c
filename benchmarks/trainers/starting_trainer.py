"""A trainer that ends where the first iteration begins; written against upstream, ported by renaming the package."""

import json
import multiprocessing
import os
import time
from pathlib import Path

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class StartingTrainer(nnUNetTrainer):
    """Ends in its first training step; the file BENCHMARK_OUTPUT gets the time and the seconds of processor."""

    def train_step(self, batch):
        Path(os.environ["BENCHMARK_OUTPUT"]).write_text(json.dumps([time.time(), time.process_time()]))
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(0)
