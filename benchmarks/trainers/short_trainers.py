"""A short training for comparing the two sides; written against upstream, ported by renaming the package."""

import os
import random

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

CUDA = torch.device("cuda")


class ShortTrainer(nnUNetTrainer):
    """Epochs and iterations from PARITY_EPOCHS and PARITY_ITERATIONS, first weights from PARITY_SEED."""

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ["PARITY_EPOCHS"])
        self.num_iterations_per_epoch = int(os.environ["PARITY_ITERATIONS"])
        self.num_val_iterations_per_epoch = 2
        seed = int(os.environ["PARITY_SEED"])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
