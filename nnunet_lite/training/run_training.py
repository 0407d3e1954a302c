"""From the arguments of a training to a finished fold: trainer, checkpoint to start from, training, validation."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nnunet_lite.exceptions import ArgumentError, CheckpointError, DatasetError
from nnunet_lite.models.checkpoint import load_checkpoint
from nnunet_lite.models.model_names import model_folder_name, parse_model_folder_name
from nnunet_lite.paths import nnUNet_preprocessed
from nnunet_lite.plans.plans_manager import load_plans, plans_file
from nnunet_lite.plans.raw_dataset import maybe_convert_to_dataset_name
from nnunet_lite.training import fold_folder, splits
from nnunet_lite.training.determinism import set_determinism
from nnunet_lite.training.distributed_launch import in_processes
from nnunet_lite.training.interruption import ends_at_once
from nnunet_lite.training.load_pretrained_weights import load_pretrained_weights
from nnunet_lite.training.logging.log_file import messages_in_log
from nnunet_lite.training.misspelled_names import warn_of_misspelled_names
from nnunet_lite.training.nnUNetTrainer.nnUNetTrainer import CUDA, nnUNetTrainer
from nnunet_lite.training.overrides import trainer_and_flags, warn_of_other_settings
from nnunet_lite.training.pretraining_choice import PretrainingChoice, require_pretrained_trainer
from nnunet_lite.training.previous_stage import other_trainers, require_previous_stage, take_previous_stage_from
from nnunet_lite.training.trainer_names import find_trainer
from nnunet_lite.training.users_trainer import named_failures
from nnunet_lite.utilities.device import resolve_device, set_num_threads
from nnunet_lite.utilities.distributed import rank
from nnunet_lite.utilities.files import load_json
from nnunet_lite.utilities.logging import logger


class Start(NamedTuple):
    """Where a training begins and what it does."""

    continue_training: bool = False
    only_run_validation: bool = False
    pretrained_weights: str | None = None
    overwrite: bool = False


@in_processes
def run_training(
    dataset_name_or_id: str | int,
    configuration: str,
    fold: int | str,
    trainer_class_name: str = "nnUNetTrainer",
    plans_identifier: str = "nnUNetPlans",
    pretrained_weights: str | None = None,
    num_gpus: int = 1,
    export_validation_probabilities: bool = False,
    continue_training: bool = False,
    only_run_validation: bool = False,
    disable_checkpointing: bool = False,
    val_with_best: bool = False,
    device: torch.device = CUDA,
    *,
    epochs: int | None = None,
    iterations: int | None = None,
    seed: int | None = None,
    precision: str = "auto",
    overwrite: bool = False,
    lr: float | None = None,
    batch_size: int | None = None,
    deterministic: bool = False,
    previous_stage_trainer: str | None = None,
    pretraining: PretrainingChoice | None = None,
) -> None:
    """Train one fold and validate it; the positional arguments are upstream's.

    Args:
        num_gpus: processes that share each batch, one per GPU (or on the CPU). More than one are started here, so a
            script must protect its main part with `if __name__ == "__main__"`; not those that torchrun has started.
        epochs, iterations, lr, batch_size: in place of the trainer's and the plans'; part of the output folder's name,
            as are `seed` and `deterministic`.
        precision: auto, float32, bf16 or fp16.
        overwrite: train again where a finished training lies.
        previous_stage_trainer: whose previous stage a cascade learns from, if not this trainer's.
        pretraining: of nnUNetv2_train_pretrained; the trainer must be one of those that start from a pretraining.

    Raises:
        nnUNetError: anything a user can mend, before anything is written.
        TrainingInterrupted: ended by a signal; the state is saved.
    """
    start = Start(continue_training, only_run_validation, pretrained_weights, overwrite)
    _check_flags(start, disable_checkpointing, val_with_best)
    resolve_device(device.type)  # refuses a device that is not here
    trainer = get_trainer_from_args(
        *(dataset_name_or_id, configuration, fold, trainer_class_name, plans_identifier, device, continue_training),
        pretraining=pretraining,
    )
    trainer.override(epochs, iterations, seed, precision, lr, batch_size, deterministic)
    if rank() == 0:
        warn_of_misspelled_names(trainer)
    if previous_stage_trainer is not None:
        take_previous_stage_from(trainer, previous_stage_trainer)
    trainer.disable_checkpointing = disable_checkpointing or trainer.disable_checkpointing
    set_num_threads(device)
    set_determinism(trainer.deterministic, device)
    lock = fold_folder.in_use(trainer.output_folder) if rank() == 0 else nullcontext()
    log = messages_in_log(trainer.log_file) if rank() == 0 else nullcontext()
    kept = fold_folder.put_back_on_failure(trainer.output_folder) if rank() == 0 else nullcontext()
    with lock, log, named_failures(trainer), kept:
        with ends_at_once("--val" if only_run_validation else "--c"):
            prepare_start(trainer, start)
        if not only_run_validation:
            trainer.run_training()
        with ends_at_once("--val"):
            if val_with_best:
                trainer.load_checkpoint(str(Path(trainer.output_folder, fold_folder.BEST)))
            trainer.perform_actual_validation(export_validation_probabilities)


def get_trainer_from_args(
    dataset_name_or_id: str | int,
    configuration: str,
    fold: int | str,
    trainer_name: str = "nnUNetTrainer",
    plans_identifier: str = "nnUNetPlans",
    device: torch.device = CUDA,
    continue_training: bool = False,
    *,
    pretraining: PretrainingChoice | None = None,
) -> nnUNetTrainer:
    """The trainer for a dataset, its plans and a fold.

    Raises:
        DatasetError, PlansError, ExtensionError, ArgumentError: what there is not, with what there is.
    """
    fold = splits.parse_fold(fold)
    dataset_name = maybe_convert_to_dataset_name(dataset_name_or_id)
    plans = load_plans(plans_file(dataset_name, plans_identifier))
    dataset_json = _read_dataset_json(nnUNet_preprocessed / dataset_name / "dataset.json")
    if plans.get("plans_name", plans_identifier) != plans_identifier:
        logger.warning(
            "The file %s.json calls its plans %s: results go to the folder of that name",
            plans_identifier,
            plans["plans_name"],
        )
    trainer_class = find_trainer(trainer_name)
    if not (isinstance(trainer_class, type) and issubclass(trainer_class, nnUNetTrainer)):
        raise ArgumentError(f"-tr {trainer_name}: {trainer_class} is no trainer; derive it from nnUNetTrainer")
    if pretraining is not None:
        require_pretrained_trainer(trainer_class)
        plans = pretraining.apply(plans)
    arguments: dict[str, Any] = {
        "plans": {**plans, "continue_training": continue_training},
        "configuration": configuration,
        "fold": fold,
        "dataset_json": dataset_json,
        "device": device,
    }
    with named_failures(trainer_class):
        return trainer_class(**arguments)


def _read_dataset_json(file: Path) -> Any:
    try:
        return load_json(file)
    except (OSError, ValueError) as error:
        reason = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise DatasetError(f"{file} {reason}; nnUNetv2_plan_and_preprocess makes it of that in nnUNet_raw") from error


def prepare_start(trainer: nnUNetTrainer, start: Start) -> None:
    """Load what the training starts from, and make room for a new one.

    Raises:
        CheckpointError: nothing to validate, a finished training in the way, or a file that does not fit.
    """
    folder = trainer.output_folder
    final = Path(folder, fold_folder.FINAL)
    if start.only_run_validation:
        if not final.is_file():
            raise CheckpointError(f"Cannot run validation because the training is not finished yet: no {final}")
        trainer.load_checkpoint(str(final))
        return
    if start.continue_training:
        checkpoint = fold_folder.first_readable(
            fold_folder.checkpoints_to_continue(folder), lambda file: _require_fit(trainer, file)
        )
        if checkpoint is not None:
            trainer.load_checkpoint(str(checkpoint))
            logger.info("Continuing from %s: %s", checkpoint, _place(trainer))
            return
        logger.warning(
            "--c: there is nothing to continue in %s; starting a new training%s", folder, _with_other_settings(trainer)
        )
    elif final.is_file() and not start.overwrite:
        raise CheckpointError(
            f"{folder} holds a finished training; validate it with --val (with checkpoint_best: --val --val_best), "
            "repeat its end with --c, or train again with --overwrite"
        )
    if trainer.is_cascaded or fold_folder.checkpoints_to_continue(folder):  # refused before they are put aside
        training, validation = trainer.do_split()
        require_previous_stage(trainer, training + validation)
    trainer.initialize()
    if start.pretrained_weights is not None:
        log = partial(trainer.print_to_log_file, also_print_to_console=False, add_timestamp=False)
        load_pretrained_weights(trainer.network, start.pretrained_weights, log=log)
    earlier = fold_folder.set_aside(folder) if rank() == 0 else []
    if earlier:
        logger.warning(
            "Starting anew in %s; the checkpoints of the earlier training there are kept as %s until this one has "
            "finished (--c would have continued it)",
            folder,
            ", ".join(earlier),
        )


def _with_other_settings(trainer: nnUNetTrainer) -> str:
    """End of a message: trainings of this fold by the same trainer whose settings are other ones."""
    fold = Path(trainer.output_folder)
    found = []
    for name in other_trainers(fold.parent):
        of, flags = trainer_and_flags(name)
        beside = model_folder_name(name, *parse_model_folder_name(fold.parent.name)[1:])
        if of == type(trainer).__name__ and fold_folder.checkpoints_to_continue(fold.parents[1] / beside / fold.name):
            found.append(f"{beside} ({' '.join(flags) or 'without such flags'})")
    return f"; to continue another one, give its flags: {', '.join(found)}" if found else ""


def _place(trainer: nnUNetTrainer) -> str:
    """Where a training stands."""
    epoch, done = trainer.current_epoch, len(trainer.epoch_outputs)
    if epoch >= trainer.num_epochs:
        done_epochs = "its one epoch is" if epoch == 1 else f"all {epoch} epochs are"
        return f"{done_epochs} done, its end and the final validation are repeated"
    within = f", iteration {done} of {trainer.num_iterations_per_epoch}" if done else ""
    return f"epoch {epoch} of {trainer.num_epochs}{within}"


def _require_fit(trainer: nnUNetTrainer, file: Path) -> None:
    """Raise CheckpointError for a file that cannot be read, ArgumentError for one of another seed."""
    warn_of_other_settings(trainer, load_checkpoint(file), str(file))


def _check_flags(start: Start, disable_checkpointing: bool, val_with_best: bool) -> None:
    if start.continue_training and start.only_run_validation:
        raise ArgumentError("--c and --val: continue a training, or only validate a finished one; give one of them")
    if start.only_run_validation and start.pretrained_weights is not None:
        raise ArgumentError(
            f"--val validates a finished training with its own weights; leave out -pretrained_weights "
            f"{start.pretrained_weights}, or --val"
        )
    if val_with_best and disable_checkpointing:
        raise ArgumentError("--val_best needs checkpoint_best, which --disable_checkpointing does not write")
