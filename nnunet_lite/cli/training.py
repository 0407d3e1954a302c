"""nnUNetv2_train."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from nnunet_lite.cli import arguments
from nnunet_lite.cli.command import command, make_parser
from nnunet_lite.exceptions import ExtensionError

_DESCRIPTION = (
    "Train one fold of one configuration and validate it. SIGTERM, SIGUSR1 and Ctrl-C end a training within half a "
    "minute, save its state and exit with code 85; --c goes on from there. --epochs, --iterations, --lr, --batch-size, "
    "--seed and --deterministic become part of the output folder's name (nnUNetTrainer_e20_i100__...); give that name "
    "as -tr to predict with it."
)


@partial(command, after_stop="Stopped. What was saved is kept; go on with the same command and --c.")
def train_entry(argv: Sequence[str] | None = None) -> int:
    """nnUNetv2_train."""
    parser = make_parser(
        "nnUNetv2_train",
        _DESCRIPTION,
        arguments.DATASET_POSITION,
        arguments.CONFIGURATION_POSITION,
        arguments.FOLD_POSITION,
        arguments.TRAINER,
        arguments.PLANS,
        arguments.PRETRAINED_WEIGHTS,
        arguments.NUM_GPUS,
        arguments.SAVE_VALIDATION_PROBABILITIES,
        arguments.CONTINUE_TRAINING,
        arguments.ONLY_VALIDATION,
        arguments.VALIDATE_BEST,
        arguments.DISABLE_CHECKPOINTING,
        arguments.DEVICE,
        arguments.PRECISION,
        arguments.EPOCHS,
        arguments.ITERATIONS,
        arguments.LEARNING_RATE,
        arguments.BATCH_SIZE,
        arguments.SEED,
        arguments.DETERMINISTIC,
        arguments.OVERWRITE,
        arguments.PREVIOUS_STAGE_TRAINER,
    )
    args = parser.parse_args(argv)

    return run_stoppable(args, argv, _train)


def run_stoppable(
    args: argparse.Namespace, argv: Sequence[str] | None, train: Callable[[argparse.Namespace], None]
) -> int:
    """Train; a request to stop is heard from here on, since what follows imports for seconds. Returns an exit code."""
    from nnunet_lite.training.interruption import TrainingInterrupted, ends_at_once, ignore_requests

    try:
        with ends_at_once("--val" if args.val else "--c"):
            train(args)
    except TrainingInterrupted as stop:
        if argv is None:  # this process ends now, with the code that a scheduler waits for, however often it asks
            ignore_requests()
        given = sys.argv[1:] if argv is None else argv
        more = "" if {"--c", "--val", stop.flag} & set(given) else f" and {stop.flag}"
        print(f"Go on with the same command{more}")
        raise
    except ExtensionError as error:
        print(f"Error: {error}", file=sys.stderr)
        if error.__cause__ is not None:  # in a user's own code, which is to be corrected
            traceback.print_exception(error.__cause__, file=sys.stderr)
        return 2
    return 0


def own_flags(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `run_training` that upstream's commands do not have."""
    names = ("epochs", "iterations", "lr", "batch_size", "seed", "deterministic", "precision", "overwrite")
    return {name: getattr(args, name) for name in names}


def _train(args: argparse.Namespace) -> None:
    from nnunet_lite.training.run_training import run_training
    from nnunet_lite.utilities.device import resolve_device

    run_training(
        args.dataset_name_or_id,
        args.configuration,
        args.fold,
        args.tr,
        args.p,
        args.pretrained_weights,
        args.num_gpus,
        args.npz,
        args.c,
        args.val,
        args.disable_checkpointing,
        args.val_best,
        resolve_device(args.device),
        previous_stage_trainer=args.previous_stage_trainer,
        **own_flags(args),
    )


if __name__ == "__main__":  # torchrun -m nnunet_lite.cli.training
    sys.exit(train_entry())
