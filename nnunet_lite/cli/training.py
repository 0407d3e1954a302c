"""nnUNetv2_train."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from nnunet_lite.cli import arguments
from nnunet_lite.cli.arguments import command, make_parser

_DESCRIPTION = (
    "Train one fold of one configuration and validate it. SIGTERM, SIGUSR1 and Ctrl-C end a training within an "
    "iteration, save its state and exit with code 85; --c goes on from there. --epochs, --iterations and --seed become "
    "part of the output folder's name (nnUNetTrainer_e20_i100__...); give that name as -tr to predict with it."
)


@partial(command, after_stop="Stopped. What was saved is kept; go on with the same command and --c.")
def train_entry(argv: Sequence[str] | None = None) -> None:
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
        arguments.SEED,
        arguments.OVERWRITE,
        arguments.PREVIOUS_STAGE_TRAINER,
    )
    args = parser.parse_args(argv)

    from nnunet_lite.training.interruption import TrainingInterrupted
    from nnunet_lite.training.run_training import run_training
    from nnunet_lite.utilities.device import resolve_device

    try:
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
            epochs=args.epochs,
            iterations=args.iterations,
            seed=args.seed,
            precision=args.precision,
            overwrite=args.overwrite,
            previous_stage_trainer=args.previous_stage_trainer,
        )
    except TrainingInterrupted as stop:
        print(f"Go on with the same command and {stop.flag}")
        raise


if __name__ == "__main__":  # torchrun -m nnunet_lite.cli.training
    sys.exit(train_entry())
