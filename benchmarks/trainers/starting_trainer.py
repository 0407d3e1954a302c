"""A trainer that ends where the first iteration begins; written against upstream, ported by renaming the package."""

import multiprocessing
import os
import time
from pathlib import Path

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class StartingTrainer(nnUNetTrainer):
    """Writes the time at which its first training step is entered to the file BENCHMARK_OUTPUT and ends at once."""

    def train_step(self, batch):
        Path(os.environ["BENCHMARK_OUTPUT"]).write_text(repr(time.time()))
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(0)
