"""The trainer: hyperparameters, hooks, steps and the loop. Everything clever is a leaf that a hook calls."""

from __future__ import annotations

import os
import time
import warnings
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nnunet_lite.exceptions import StorageError, nnUNetError
from nnunet_lite.models.checkpoint import load_checkpoint, save_checkpoint, unwrap
from nnunet_lite.models.model_names import get_output_folder
from nnunet_lite.paths import nnUNet_preprocessed
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.label_manager import determine_num_input_channels
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.preprocessing.preprocessed_dataset import infer_dataset_class
from nnunet_lite.training.batch_distribution import gather_shares
from nnunet_lite.training.cpu_speed import keep_freed_memory, use_channels_last
from nnunet_lite.training.debug_information import debug_information, hyperparameters, save_documents
from nnunet_lite.training.determinism import common_seed
from nnunet_lite.training.device_feed import DeviceFeed
from nnunet_lite.training.distributed_training import agree, distribute, mean_over_ranks, seed_rank, weigh_by_share
from nnunet_lite.training.fold_folder import remove_leftovers, remove_superseded
from nnunet_lite.training.interruption import StopRequest, TrainingInterrupted, ends_at_once
from nnunet_lite.training.logging.epoch_report import epoch_report, steps_of_epoch
from nnunet_lite.training.logging.epoch_speed import EpochSpeed
from nnunet_lite.training.logging.log_file import log_file_name
from nnunet_lite.training.logging.loggers import MetaLogger
from nnunet_lite.training.nnUNetTrainer.training_model import TrainingModel
from nnunet_lite.training.numerical_faults import FiniteUpdates, require_finite_weights
from nnunet_lite.training.online_evaluation import StepOutput, collate_outputs, dice_from_counts, hard_counts, to_host
from nnunet_lite.training.overrides import Overrides, apply_overrides, require_lr_in_use
from nnunet_lite.training.slow_iterations import SlowIterationGuard
from nnunet_lite.training.trainer_state import make_grad_scaler, restore_training_state, training_state
from nnunet_lite.training.users_trainer import checked_loss, checked_network, checked_output, pair_from
from nnunet_lite.training.validation import validate
from nnunet_lite.utilities.compilation import with_way_back
from nnunet_lite.utilities.device import autocast, empty_cache
from nnunet_lite.utilities.distributed import all_gather_objects, barrier, highest, is_distributed, local_rank, rank
from nnunet_lite.utilities.files import save_json, write_text
from nnunet_lite.utilities.lean_torch import load_compiler_when_needed

CUDA = torch.device("cuda")


class nnUNetTrainer(TrainingModel):
    """Trains one fold of one configuration.

    A trainer of one's own overrides hyperparameters (class attributes, or attributes set after `super().__init__`) and
    hooks; names and order of the hooks are those of nnU-Net v2 2.8.1 (spec 02, section 1).

    Args:
        plans: content of the plans file; not modified. A key `continue_training` is tolerated.
        configuration: name of a configuration in the plans.
        fold: entry of splits_final.json, or "all".
        dataset_json: content of dataset.json.
        device: where to compute.

    Nothing is written before training or validation starts.
    """

    gradient_clip_norm: float = 12.0
    save_every: int = 50
    disable_checkpointing: bool = False
    deterministic: bool = False
    overrides: Overrides = Overrides()
    logger: MetaLogger

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = CUDA,
    ) -> None:
        self.is_ddp = is_distributed()
        self.local_rank = rank()
        self.device = torch.device("cuda", local_rank()) if device.type == "cuda" else device
        resume = bool(plans.get("continue_training", False))
        plans = {key: value for key, value in plans.items() if key != "continue_training"}
        arguments = (plans, configuration, fold, dataset_json, self.device)
        names = ("plans", "configuration", "fold", "dataset_json", "device")
        self.my_init_kwargs: dict[str, Any] = dict(zip(names, arguments, strict=True))
        self.plans_manager = PlansManager(plans)
        self.configuration_manager: ConfigurationManager = self.plans_manager.get_configuration(configuration)
        self.configuration_name = configuration
        self.dataset_json = dataset_json
        self.fold = fold
        self.label_manager = self.plans_manager.get_label_manager(dataset_json)
        self.is_cascaded = self.configuration_manager.previous_stage_name is not None
        self.dataset_class: Any = None
        self.preprocessed_dataset_folder_base = str(nnUNet_preprocessed / self.plans_manager.dataset_name)
        self.preprocessed_dataset_folder = os.path.join(
            self.preprocessed_dataset_folder_base, self.configuration_manager.data_identifier
        )
        self.current_epoch = 0
        self.num_input_channels: Any = None  # these are filled by initialize and on_train_start
        self.network: Any = None
        self.optimizer: Any = None
        self.lr_scheduler: Any = None
        self.loss: Any = None
        self.dataloader_train: Any = None
        self.dataloader_val: Any = None
        self.grad_scaler: Any = make_grad_scaler() if self.device.type == "cuda" else None
        self.inference_allowed_mirroring_axes: tuple[int, ...] | None = None
        self.was_initialized = False
        self._best_ema: float | None = None
        self._autocast_type: torch.dtype | None = None
        self._oversampling_of_all: float | None = None
        self.epoch_outputs: list[StepOutput] = []  # of the training steps of this epoch
        self._seconds_before = 0.0  # spent on this epoch before the training was interrupted
        self._feed = DeviceFeed(self.device)
        self._finite_updates = FiniteUpdates(self)
        self._stop = StopRequest()
        self._speed = EpochSpeed()
        self._guard = SlowIterationGuard(self)
        self._log_file_name = log_file_name(datetime.now())
        self._resume = resume
        self._set_output_folder(self.__class__.__name__)

    def _set_output_folder(self, trainer_part: str) -> None:
        """Derive all paths of results from the first part of the folder's name."""
        dataset, plans = self.plans_manager.dataset_name, self.plans_manager.plans_name
        self.output_folder_base = get_output_folder(dataset, trainer_part, plans, self.configuration_name)
        self.output_folder = os.path.join(self.output_folder_base, f"fold_{self.fold}")
        previous = self.configuration_manager.previous_stage_name
        self.folder_with_segs_from_previous_stage = previous and os.path.join(
            get_output_folder(dataset, trainer_part, plans, previous), "predicted_next_stage", self.configuration_name
        )
        self.log_file = os.path.join(self.output_folder, self._log_file_name)
        own_loggers = self.logger.loggers if hasattr(self, "logger") else []
        self.logger = MetaLogger(self.output_folder, self._resume)
        self.logger.loggers += own_loggers
        named = ("plans", "configuration", "fold")
        self.logger.update_config({**{name: self.my_init_kwargs[name] for name in named}, "dataset": self.dataset_json})

    def override(
        self,
        epochs: int | None = None,
        iterations: int | None = None,
        seed: int | None = None,
        precision: str = "auto",
        lr: float | None = None,
        batch_size: int | None = None,
        deterministic: bool = False,
    ) -> None:
        """Apply the command line's own flags; all but the precision become part of the output folder's name."""
        self.overrides = Overrides(epochs, iterations, lr, batch_size, seed, deterministic)
        apply_overrides(self, self.overrides)
        if precision != "auto":  # a trainer may have one of its own
            self.precision = precision
        self._set_output_folder("_".join((type(self).__name__, *self.overrides.name_parts())))

    # building

    def initialize(self) -> None:
        """Build network, optimizer and loss. Raises RuntimeError when called twice."""
        if self.was_initialized:
            raise RuntimeError("initialize was called twice: a trainer is built once")
        self.seed = common_seed(self.seed)
        torch.manual_seed(self.seed)
        self._check_augmentation_device()
        self._oversampling_of_all = self.oversample_foreground_percent
        self._set_batch_size_and_oversample()
        self.batch_share = gather_shares(self.batch_size)
        self._choose_precision()
        if self._autocast_type is not torch.float16:
            self.grad_scaler = None
        self.label_manager.require_consecutive_labels()
        self.num_input_channels = determine_num_input_channels(
            self.plans_manager, self.configuration_manager, self.dataset_json
        )
        self.network = checked_network(self, self._build_network()).to(self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        if self.uses_channels_last:
            use_channels_last(self.network)
        if self._do_i_compile():
            self.network = torch.compile(self.network)
        load_compiler_when_needed()
        self.optimizer, self.lr_scheduler = pair_from(self, "configure_optimizers", "optimizer, lr_scheduler")
        require_lr_in_use(self)
        if self.is_ddp:
            self.network = distribute(self.network, self.device, self._may_leave_parameters_out())
        self.loss = weigh_by_share(checked_loss(self, self._build_loss()), self.batch_share)
        self.dataset_class = infer_dataset_class(self.preprocessed_dataset_folder)
        self.was_initialized = True
        self.logger.update_config({"hparas": self.hyperparameters()})

    def hyperparameters(self) -> dict[str, Any]:
        """What this training differs in from another of the same plans."""
        return hyperparameters(self)

    def plot_network_architecture(self) -> None:
        """Write the network's modules as text (upstream's drawing needs a package that no longer works)."""
        if self.local_rank == 0:
            write_text(f"{unwrap(self.network)}\n", Path(self.output_folder, "network_architecture.txt"))

    # log

    def _save_debug_information(self) -> None:
        if self.local_rank == 0:
            save_json(debug_information(self), os.path.join(self.output_folder, "debug.json"))

    # hooks, in the order in which they are called

    def on_train_start(self) -> None:
        """Everything that needs the disk: loaders, output folder, copies of the documents."""
        self.logger.connect()
        if not self.was_initialized:
            self.initialize()
        remark = self._choose_precision()  # again, for an `initialize` of a user's that does all by itself
        self.seed = common_seed(self.seed)
        seed_rank(self.seed, self.current_epoch)
        self.dataloader_train, self.dataloader_val = pair_from(self, "get_dataloaders", "training, validation batches")
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        if remark is not None:
            self.print_to_log_file(remark)
        self.print_plans()
        empty_cache(self.device)
        if self.local_rank == 0:
            remove_leftovers(self.output_folder)
            self.dataset_class.unpack_dataset(self.preprocessed_dataset_folder, overwrite_existing=False)
            save_documents(self)
            self.plot_network_architecture()
            self._save_debug_information()
        barrier()

    def on_train_end(self) -> None:
        """Write checkpoint_final in place of checkpoint_latest and end the loaders."""
        self.current_epoch -= 1  # what is saved is the number of the next epoch
        self.save_checkpoint(os.path.join(self.output_folder, "checkpoint_final.pth"))
        self.current_epoch += 1
        if self.local_rank == 0:
            self.logger.plot_progress_png(self.output_folder)
            remove_superseded(self.output_folder)
        self._close_dataloaders()
        empty_cache(self.device)
        self.print_to_log_file("Training done.")

    def on_epoch_start(self) -> None:
        """Note the time; an epoch that is continued began earlier by what has been spent on it."""
        self.logger.log("epoch_start_timestamps", time.time() - self._seconds_before, self.current_epoch)
        self._seconds_before = 0.0

    def on_train_epoch_start(self) -> None:
        """Set training mode and learning rate."""
        self.network.train()
        with warnings.catch_warnings():  # torch's own schedules complain of being told the epoch, and too early
            warnings.filterwarnings("ignore", "(The epoch parameter|Detected call of `lr_scheduler)")
            self.lr_scheduler.step(self.current_epoch)
        lr = self.optimizer.param_groups[0]["lr"]
        for line in ("", f"Epoch {self.current_epoch}", f"Current learning rate: {round(lr, 5)}"):
            self.print_to_log_file(line)
        self.logger.log("lrs", lr, self.current_epoch)

    def train_step(self, batch: dict[str, Any]) -> StepOutput:
        """One update of the weights; the loss stays on the device, so that the host need not wait.

        NaN and infinity never reach the weights: see numerical_faults.
        """
        data, target = self._on_device(batch)
        return {"loss": self._finite_updates.step(data, target, batch.get("keys", ()))}

    def compute_gradients(
        self, data: torch.Tensor, target: Any, in_float32: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Clipped gradients of a batch, for the optimizer; returns the loss and the norm before clipping."""
        scaler, precision = (None, None) if in_float32 else (self.grad_scaler, self._autocast_type)

        def backward() -> torch.Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            with autocast(self.device, precision):
                loss: torch.Tensor = self.loss(self.network(data), target)
            (loss if scaler is None else scaler.scale(loss)).backward()
            return loss.detach()

        loss = with_way_back(backward, self.network, self.loss)
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        return loss, nn.utils.clip_grad_norm_(self.network.parameters(), self.gradient_clip_norm)

    def on_train_epoch_end(self, train_outputs: list[StepOutput]) -> None:
        """Log the mean loss of all ranks."""
        losses = collate_outputs(train_outputs)["loss"]
        mean = float(np.mean(np.concatenate(all_gather_objects(np.asarray(losses)))))
        if not np.isfinite(mean):
            require_finite_weights(self)
            self.print_to_log_file(f"The training loss of this epoch is {mean}; the weights are finite")
        self.logger.log("train_losses", mean, self.current_epoch)

    def on_validation_epoch_start(self) -> None:
        """Set evaluation mode."""
        self.network.eval()

    def validation_step(self, batch: dict[str, Any]) -> StepOutput:
        """Loss and hard counts per foreground class or region of one validation batch."""
        data, target = self._on_device(batch)

        def forward() -> tuple[Any, torch.Tensor]:
            with autocast(self.device, self._autocast_type):
                output = self.network(data)
                return output, self.loss(output, target)

        output, loss = with_way_back(forward, self.network, self.loss)
        if self.enable_deep_supervision:
            output, target = output[0], target[0]
        tp, fp, fn = hard_counts(output, target, self.label_manager.has_regions, self.label_manager.ignore_label)
        return {"loss": loss.detach(), "tp_hard": tp, "fp_hard": fp, "fn_hard": fn}

    def on_validation_epoch_end(self, val_outputs: list[StepOutput]) -> None:
        """Log the mean loss and the pseudo Dice of all ranks."""
        outputs = collate_outputs(val_outputs)
        gathered = all_gather_objects([np.sum(outputs[f"{kind}_hard"], 0) for kind in ("tp", "fp", "fn")])
        tp, fp, fn = (np.sum(counts, 0) for counts in zip(*gathered, strict=True))
        losses = np.concatenate(all_gather_objects(np.asarray(outputs["loss"])))
        mean_dice, per_class = dice_from_counts(tp, fp, fn)
        self.logger.log("mean_fg_dice", mean_dice, self.current_epoch)
        self.logger.log("dice_per_class_or_region", per_class, self.current_epoch)
        self.logger.log("val_losses", float(np.mean(losses)), self.current_epoch)

    def on_epoch_end(self) -> None:
        """Report, save checkpoints, draw."""
        epoch = self.current_epoch
        self.logger.log("epoch_end_timestamps", time.time(), epoch)
        report = epoch_report(self.logger.my_fantastic_logging, epoch, self.num_epochs, datetime.now())
        for line in report + self._speed_of_epoch():
            self.print_to_log_file(line)
        if (epoch + 1) % self.save_every == 0 and epoch != self.num_epochs - 1:
            self.save_checkpoint(os.path.join(self.output_folder, "checkpoint_latest.pth"))
        ema = float(self.logger.get_value("ema_fg_dice", epoch))
        if self._best_ema is None or ema > self._best_ema:
            if np.isfinite(ema):  # it is not as long as no validation batch has held foreground
                self._best_ema = ema
                self.print_to_log_file(f"Yayy! New best EMA pseudo Dice: {round(ema, 4)}")
            self.save_checkpoint(os.path.join(self.output_folder, "checkpoint_best.pth"))
        if self.local_rank == 0:
            self.logger.plot_progress_png(self.output_folder, force=False)
            self.logger.write_metrics(os.path.join(self.output_folder, "metrics.jsonl"))
        self.current_epoch += 1

    # checkpoints

    def save_checkpoint(self, filename: str) -> None:
        """Write the whole state, as of the end of the current epoch (or of the middle of it, if interrupted)."""
        if self.local_rank != 0:
            return
        if self.disable_checkpointing:
            self.print_to_log_file("No checkpoint written, checkpointing is disabled")
            return
        try:
            save_checkpoint(training_state(self), filename)
        except StorageError as error:
            raise StorageError(f"{error} (with --c it goes on from the last checkpoint)") from error

    def load_checkpoint(self, checkpoint: dict[str, Any] | str) -> None:
        """Restore the whole state from a file or its content; the device stays this trainer's.

        Raises:
            CheckpointError: no checkpoint, or not one of this network.
        """
        if not self.was_initialized:
            self.initialize()
        if isinstance(checkpoint, dict):
            restore_training_state(self, checkpoint, "the checkpoint")
        else:
            restore_training_state(self, load_checkpoint(checkpoint, self.device), str(checkpoint))

    # the loop

    def run_training(self) -> None:
        """Train from the current epoch to the last."""
        with ends_at_once():
            self.on_train_start()
        with self._stop, self._guard:
            for _ in range(self.current_epoch, self.num_epochs):
                self.on_epoch_start()
                self.on_train_epoch_start()
                self.on_train_epoch_end(to_host(self._train_steps()))
                with torch.no_grad():
                    self.on_validation_epoch_start()
                    self.on_validation_epoch_end(to_host(self._validation_steps()))
                self.epoch_outputs = []
                self.on_epoch_end()
            self.on_train_end()
            if highest(self._stop.received is not None):  # too late to stop in an epoch; the final validation is left
                self.print_to_log_file("Stopped on request; the final validation is left")
                raise TrainingInterrupted("--val")

    def _train_steps(self) -> list[StepOutput]:
        for _ in steps_of_epoch(len(self.epoch_outputs), self.num_iterations_per_epoch, "Training"):
            output = self.train_step(self._next_batch(self.dataloader_train))
            self._guard.settle()
            self.epoch_outputs.append(checked_output(self, "train_step", output))
        self._finite_updates.settle()
        return self.epoch_outputs

    def _validation_steps(self) -> list[StepOutput]:
        outputs = []
        for _ in steps_of_epoch(0, self.num_val_iterations_per_epoch, "Validation"):
            output = self.validation_step(self._next_batch(self.dataloader_val))
            self._guard.settle()
            outputs.append(checked_output(self, "validation_step", output))
        return outputs

    def _next_batch(self, loader: Any) -> Any:
        """The next batch; a request to stop or a failed worker ends the training here, with its state saved."""
        batch, failure = None, None
        if self._stop.received is None:
            self._guard.begin()
            try:
                batch = self._feed.draw(partial(self._draw, loader))
            except nnUNetError as error:
                failure = error
        stop, failure = agree(self._stop.received is not None, failure)
        if not stop and failure is None:
            return batch
        self._save_interrupted()
        if failure is not None:
            raise failure
        self.print_to_log_file("Stopped on request" + ("" if self.disable_checkpointing else "; the state is saved"))
        raise TrainingInterrupted

    def _save_interrupted(self) -> None:
        """Write checkpoint_latest in the middle of an epoch: upstream would repeat that epoch, we go on within it."""
        self._finite_updates.settle()
        self._guard.settle()
        self._close_dataloaders()
        self.epoch_outputs = mean_over_ranks(self.epoch_outputs)
        self.current_epoch -= 1
        self.save_checkpoint(os.path.join(self.output_folder, "checkpoint_latest.pth"))
        self.current_epoch += 1

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Predict the validation cases as a whole and evaluate them."""
        self.logger.connect()
        validate(self, save_probabilities)
        self.logger.close()
