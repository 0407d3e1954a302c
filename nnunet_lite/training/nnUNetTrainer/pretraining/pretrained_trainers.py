"""Trainers that start from the encoder of a self-supervised pretraining (spec 02, 9.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nnunet_lite.models.checkpoint import NAMED_FILE, load_checkpoint, unwrap
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.training.adapt_pretrained_weights import PretrainInfo, citation_lines, load_encoder
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import CUDA
from nnunet_lite.training.nnUNetTrainer.pretraining.networks import build_adapted_network
from nnunet_lite.training.nnUNetTrainer.variants.mirroring import nnUNetTrainerNoMirroring
from nnunet_lite.training.nnUNetTrainer.variants.primus import primus_optimizer, with_changes
from nnunet_lite.training.nnUNetTrainer.variants.warmup import nnUNetTrainer_warmup
from nnunet_lite.training.pretraining_choice import starts_from_scratch


class PretrainedTrainer(nnUNetTrainer_warmup):
    """Fine-tunes the network of a checkpoint that the plans name in `pretrain_info`.

    Encoder and stem are loaded, decoder and heads start afresh. Everything is trained from the first epoch, with a
    small learning rate that rises for `warmup_duration_whole_net` epochs. A training that is continued or validated has
    weights of its own, and the checkpoint of the pretraining need not be there any more.
    """

    initial_lr = 1e-3
    initial_lr_from_scratch: float = 1e-2
    enable_deep_supervision = False
    changes: dict[str, Any] = {"batch_size": 2}  # entries of the configuration that are set whatever is planned
    tolerant: bool = False  # load what fits, instead of everything or nothing

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = CUDA,
    ) -> None:
        super().__init__(with_changes(plans, configuration, self.changes), configuration, fold, dataset_json, device)
        self.from_scratch = starts_from_scratch(plans)
        if self.from_scratch:
            self.initial_lr = self.initial_lr_from_scratch
        self._has_own_weights = False
        self._loading_report: list[str] = []

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = False,
    ) -> nn.Module:
        """The network of the pretraining, with this dataset's channels, heads and patches."""
        return build_adapted_network(
            configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )

    def initialize(self) -> None:
        """Build everything, and load the pretraining where a training begins.

        Raises:
            PlansError: the plans name no pretraining.
            CheckpointError: its file is not there, or does not fit.
        """
        if self._has_own_weights or self.from_scratch:
            super().initialize()
            return
        info = PretrainInfo.from_plans(self.plans_manager.plans)
        weights = load_checkpoint(info.checkpoint_path, advice=NAMED_FILE)["network_weights"]
        super().initialize()
        self.load_pretraining(weights, info)

    def load_pretraining(self, weights: Mapping[str, torch.Tensor], info: PretrainInfo) -> None:
        """Load encoder and stem of a pretraining; what was done is logged when the training starts."""
        patch_size = self.configuration_manager.patch_size
        self._loading_report = load_encoder(
            self.network, weights, info, self.num_input_channels, patch_size, self.tolerant
        )
        if citations := citation_lines(info.citations):
            self._loading_report += ["Please cite the work this pretraining comes from:", *citations]

    def on_train_start(self) -> None:
        """As always; log what was loaded."""
        super().on_train_start()
        for line in self._loading_report:
            self.print_to_log_file(line, add_timestamp=False)

    def load_checkpoint(self, checkpoint: dict[str, Any] | str) -> None:
        """Restore a training from a file or its content; the pretraining is not needed."""
        self._has_own_weights = True
        super().load_checkpoint(checkpoint)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Transformers have one output and nothing to switch."""
        if hasattr(unwrap(self.network), "decoder"):
            super().set_deep_supervision_enabled(enabled)


class PretrainedTrainer_150ep(PretrainedTrainer):
    """150 epochs, the rate rises for 15."""

    num_epochs = 150
    warmup_duration_whole_net = 15


class PretrainedTrainer_300ep(PretrainedTrainer):
    """300 epochs."""

    num_epochs = 300


class PretrainedTrainer_smallerlr(PretrainedTrainer):
    """Learning rate 3e-5 (1e-4 from scratch), weight decay 5e-2."""

    initial_lr = 3e-5
    initial_lr_from_scratch = 1e-4
    weight_decay = 5e-2


class PretrainedTrainer_nomirroring(nnUNetTrainerNoMirroring, PretrainedTrainer):
    """No mirroring."""


class PretrainedTrainer_150ep_nomirroring(nnUNetTrainerNoMirroring, PretrainedTrainer_150ep):
    """150 epochs without mirroring."""


class PretrainedTrainer_adam__nomirroring(PretrainedTrainer_nomirroring):
    """No mirroring; no Adam either, in spite of the name, which is upstream's."""


class _AdamW(nnUNetTrainer_warmup):
    """The optimizer of the transformers."""

    initial_lr = 1e-4
    initial_lr_from_scratch: float = 3e-4
    weight_decay = 5e-2

    def make_optimizer(self) -> Any:
        """AdamW."""
        return primus_optimizer(self)


class PretrainedTrainer_adam_150ep(_AdamW, PretrainedTrainer_150ep):
    """150 epochs with AdamW, learning rate 1e-4 (3e-4 from scratch)."""


class PretrainedTrainer_adam_150ep_nomirroring(nnUNetTrainerNoMirroring, PretrainedTrainer_adam_150ep):
    """The same without mirroring."""


class PretrainedTrainer_Primus(_AdamW, PretrainedTrainer):
    """For transformers: AdamW, learning rate 1e-4 (3e-4 from scratch), gradients clipped at norm 1."""

    gradient_clip_norm = 1.0


class PretrainedTrainer_Primus_150ep(PretrainedTrainer_Primus):
    """150 epochs, the rate rises for 15."""

    num_epochs = 150
    warmup_duration_whole_net = 15


class PretrainedTrainer_Primusx(PretrainedTrainer_Primus):
    """For transformers whose checkpoint brings every number of the network along."""


class PretrainedTrainer_Primusx_150ep(PretrainedTrainer_Primusx):
    """150 epochs, the rate rises for 15."""

    num_epochs = 150
    warmup_duration_whole_net = 15


class PretrainedTrainer_Primusx_30ep(PretrainedTrainer_Primusx):
    """30 epochs, the rate rises for 3."""

    num_epochs = 30
    warmup_duration_whole_net = 3


class PretrainedTrainer_Primusx_300ep(PretrainedTrainer_Primusx):
    """300 epochs."""

    num_epochs = 300


class PretrainedTrainer_Primusx_smallerlr(PretrainedTrainer_Primusx):
    """Learning rate 3e-5 (1e-4 from scratch)."""

    initial_lr = 3e-5
    initial_lr_from_scratch = 1e-4


class PretrainedTrainer_Primusx_150ep_lr3e4(PretrainedTrainer_Primusx):
    """150 epochs, learning rate 3e-4, which rises for 50."""

    num_epochs = 150
    initial_lr = 3e-4
    initial_lr_from_scratch = 3e-4


class PretrainedTrainer_Primusx_150ep_small_debug(PretrainedTrainer_Primusx_150ep):
    """For debugging: patches of 48."""

    changes = {"batch_size": 2, "patch_size": [48, 48, 48]}


class PretrainedTrainer_Primusx_nomirroring(nnUNetTrainerNoMirroring, PretrainedTrainer_Primusx):
    """No mirroring."""


class PretrainedTrainer_Primusx_150ep_nomirroring(nnUNetTrainerNoMirroring, PretrainedTrainer_Primusx_150ep):
    """150 epochs without mirroring."""


class DynamicPretrainedTrainer(PretrainedTrainer):
    """Keeps the network that was planned for the dataset and loads what fits it.

    Other stages and blocks, and kernels of one voxel along an axis, are tolerated; each tensor that was left is logged.
    """

    tolerant = True


class DynamicPretrainedTrainer_adam_150ep(_AdamW, DynamicPretrainedTrainer):
    """150 epochs with AdamW, learning rate 1e-4 (3e-4 from scratch), which rises for 15."""

    num_epochs = 150
    warmup_duration_whole_net = 15


class DynamicPretrainedTrainer_nomirroring(nnUNetTrainerNoMirroring, DynamicPretrainedTrainer):
    """No mirroring."""


class DynamicPretrainedTrainer_adam_150ep_nomirroring(nnUNetTrainerNoMirroring, DynamicPretrainedTrainer_adam_150ep):
    """The same as DynamicPretrainedTrainer_adam_150ep without mirroring."""
