"""A short training for comparing the two sides; written against upstream, ported by renaming the package."""

import os
import random

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

CUDA = torch.device("cuda")


class ShortTrainer(nnUNetTrainer):
    """Epochs and iterations from PARITY_EPOCHS and PARITY_ITERATIONS, first weights from PARITY_SEED.

    Both sides start from the same weights: in short trainings these decide more than anything else, so that unpaired
    runs would need dozens of seeds to tell a difference of a few hundredths of Dice.
    """

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ["PARITY_EPOCHS"])
        self.num_iterations_per_epoch = int(os.environ["PARITY_ITERATIONS"])
        self.num_val_iterations_per_epoch = 2
        seed = int(os.environ["PARITY_SEED"])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def initialize(self):
        super().initialize()
        rng = np.random.default_rng(int(os.environ["PARITY_SEED"]))
        with torch.no_grad():
            for _, weights in sorted(self.network.named_parameters()):
                if weights.ndim > 1:  # convolutions: He's scale, as nnU-Net starts
                    fan_in = weights[0].numel()
                    drawn = rng.normal(0, (2 / (1 + 0.01**2) / fan_in) ** 0.5, tuple(weights.shape))
                    weights.copy_(torch.from_numpy(drawn.astype(np.float32)))
