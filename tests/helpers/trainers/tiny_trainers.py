"""A user's own trainers, as they would lie in a folder of nnUNet_extTrainer."""

import torch

from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

CUDA = torch.device("cuda")


class TinyTrainer(nnUNetTrainer):
    """Two short epochs."""

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 2
        self.num_iterations_per_epoch = 3
        self.num_val_iterations_per_epoch = 1


class EverSavingTrainer(TinyTrainer):
    """Writes a checkpoint after every single iteration, and never comes to an end by itself."""

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 10000
        self.num_iterations_per_epoch = 1
        self.save_every = 1
