"""Trainers that measure how fast this machine trains (spec 02, section 11)."""

from __future__ import annotations

import itertools
import platform
import socket
from pathlib import Path
from typing import Any

import torch

from nnunet_lite.exceptions import ArgumentError, nnUNetError
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_lite.utilities.distributed import world_size
from nnunet_lite.utilities.files import load_json, save_json


class nnUNetTrainerBenchmark_5epochs(nnUNetTrainer):
    """Five epochs; the fastest one's seconds go to fold_0/benchmark_result.json, with what they were measured on.

    Running out of memory, or any other failure of torch, is recorded as the result.
    """

    num_epochs = 5
    disable_checkpointing = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.fold != 0:
            raise ArgumentError(f"fold {self.fold} given: {type(self).__name__} measures fold 0 only, give fold 0")
        self.crashed_with: str | None = None

    def run_training(self) -> None:
        """Train; an error of torch ends the measurement, not the program. Mistakes are reported as always."""
        try:
            super().run_training()
        except nnUNetError:  # these are RuntimeErrors, too
            raise
        except RuntimeError as error:
            self.crashed_with = f"{type(error).__name__}: {error}"
            self.on_train_end()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Nothing: there is no model."""

    def on_train_end(self) -> None:
        """Write the result."""
        super().on_train_end()
        if self.local_rank != 0:
            return
        file = Path(self.output_folder, "benchmark_result.json")
        results = load_json(file) if file.exists() else {}
        machine = self._machine()
        parts = ("hostname", "cudnn_version", "torch_version", "gpu_name")
        key = "__".join(str(machine[part]) for part in parts) + f"__num_gpus_{machine['num_gpus']}"
        results[key] = {**machine, "fastest_epoch": self._fastest_epoch()}
        save_json(results, file)
        if self.crashed_with is not None:
            self.print_to_log_file("The benchmark failed:", self.crashed_with)

    def _fastest_epoch(self) -> float | str:
        if self.crashed_with is not None:
            return self.crashed_with
        curves = self.logger.my_fantastic_logging
        starts, ends = curves["epoch_start_timestamps"], curves["epoch_end_timestamps"]
        return min(float(end - start) for start, end in zip(starts, ends, strict=True))

    def _machine(self) -> dict[str, Any]:
        on_gpu = self.device.type == "cuda"
        cudnn: Any = torch.backends.cudnn
        name = torch.cuda.get_device_name(self.device) if on_gpu else platform.processor() or platform.machine()
        return {
            "torch_version": torch.__version__.replace(" ", ""),
            "cudnn_version": cudnn.version() if on_gpu else None,
            "gpu_name": name.replace(" ", ""),
            "num_gpus": world_size(),
            "hostname": socket.gethostname(),
        }


class nnUNetTrainerBenchmark_5epochs_noDataLoading(nnUNetTrainerBenchmark_5epochs):
    """The same with one random batch used all the time: what the network alone takes."""

    def get_dataloaders(self) -> tuple[Any, Any]:
        """The same batch again and again, already on the device.

        Raises:
            ArgumentError: deep supervision is off.
        """
        scales = self._get_deep_supervision_scales()
        if scales is None:
            raise ArgumentError(f"{type(self).__name__} needs deep supervision; use nnUNetTrainerBenchmark_5epochs")
        patch = self.configuration_manager.patch_size
        highest = max(self.label_manager.all_labels)
        channels = len(self.label_manager.foreground_regions) if self.label_manager.has_regions else 1
        shape = (self.batch_size, self.num_input_channels, *patch)
        targets = []
        for scale in scales:
            size = [int(edge * factor) for edge, factor in zip(patch, scale, strict=True)]
            random = torch.rand((self.batch_size, channels, *size), device=self.device)
            targets.append(random > 0.5 if channels > 1 else (random * highest).round().to(torch.int16))
        batch = {"data": torch.rand(shape, device=self.device), "target": targets}
        return itertools.repeat(batch), itertools.repeat(batch)
