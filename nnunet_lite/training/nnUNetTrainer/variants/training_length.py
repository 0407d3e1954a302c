"""Trainers of other lengths; the learning rate decays over the whole of each."""

from __future__ import annotations

from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_lite.training.nnUNetTrainer.variants.mirroring import nnUNetTrainerNoMirroring


class nnUNetTrainer_1epoch(nnUNetTrainer):
    """1 epoch."""

    num_epochs = 1


class nnUNetTrainer_5epochs(nnUNetTrainer):
    """5 epochs."""

    num_epochs = 5


class nnUNetTrainer_10epochs(nnUNetTrainer):
    """10 epochs."""

    num_epochs = 10


class nnUNetTrainer_20epochs(nnUNetTrainer):
    """20 epochs."""

    num_epochs = 20


class nnUNetTrainer_50epochs(nnUNetTrainer):
    """50 epochs."""

    num_epochs = 50


class nnUNetTrainer_100epochs(nnUNetTrainer):
    """100 epochs."""

    num_epochs = 100


class nnUNetTrainer_250epochs(nnUNetTrainer):
    """250 epochs."""

    num_epochs = 250


class nnUNetTrainer_500epochs(nnUNetTrainer):
    """500 epochs."""

    num_epochs = 500


class nnUNetTrainer_750epochs(nnUNetTrainer):
    """750 epochs."""

    num_epochs = 750


class nnUNetTrainer_2000epochs(nnUNetTrainer):
    """2000 epochs."""

    num_epochs = 2000


class nnUNetTrainer_4000epochs(nnUNetTrainer):
    """4000 epochs."""

    num_epochs = 4000


class nnUNetTrainer_8000epochs(nnUNetTrainer):
    """8000 epochs."""

    num_epochs = 8000


class nnUNetTrainer_250epochs_NoMirroring(nnUNetTrainerNoMirroring):
    """250 epochs without mirroring."""

    num_epochs = 250


class nnUNetTrainer_2000epochs_NoMirroring(nnUNetTrainerNoMirroring):
    """2000 epochs without mirroring."""

    num_epochs = 2000


class nnUNetTrainer_4000epochs_NoMirroring(nnUNetTrainerNoMirroring):
    """4000 epochs without mirroring."""

    num_epochs = 4000


class nnUNetTrainer_8000epochs_NoMirroring(nnUNetTrainerNoMirroring):
    """8000 epochs without mirroring."""

    num_epochs = 8000
