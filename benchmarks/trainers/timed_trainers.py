"""Trainers that time themselves; written against upstream, ported by renaming the package."""

import itertools
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

CUDA = torch.device("cuda")


class TimedTrainer(nnUNetTrainer):
    """One epoch of BENCHMARK_ITERATIONS iterations; their seconds go to the file BENCHMARK_OUTPUT."""

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 1
        self.num_iterations_per_epoch = int(os.environ["BENCHMARK_ITERATIONS"])
        self.num_val_iterations_per_epoch = 1
        self.disable_checkpointing = True
        self.marks = []

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        self.marks.append(time.perf_counter())

    def train_step(self, batch):
        result = self.one_step(batch)
        self.marks.append(time.perf_counter())
        return result

    def one_step(self, batch):
        return super().train_step(batch)

    def on_train_epoch_end(self, train_outputs):
        super().on_train_epoch_end(train_outputs)
        Path(os.environ["BENCHMARK_OUTPUT"]).write_text(json.dumps(np.diff(self.marks).tolist()))

    def perform_actual_validation(self, save_probabilities: bool = False):
        pass


class TimedNetworkTrainer(TimedTrainer):
    """The same batch again and again: what the network alone takes."""

    def get_dataloaders(self):
        train, val = super().get_dataloaders()
        return itertools.repeat(next(train)), itertools.repeat(next(val))


class TimedDataTrainer(TimedTrainer):
    """Batches are made and thrown away: what loading and augmentation alone take."""

    def one_step(self, batch):
        return {"loss": np.array(0.0)}
