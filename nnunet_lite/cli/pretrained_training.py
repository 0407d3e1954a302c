"""nnUNetv2_train_pretrained."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from nnunet_lite.cli import arguments
from nnunet_lite.cli.command import command, make_parser
from nnunet_lite.cli.training import own_flags, run_stoppable

_DESCRIPTION = (
    "Fine-tune the encoder of a self-supervised (nnssl) checkpoint on one fold, and validate it. The plans name the "
    "checkpoint; nnUNetv2_preprocess_like_nnssl and nnUNetv2_plan_like_dynamic make them. Stopping, continuing and the "
    "names of results are as with nnUNetv2_train; those of --from_scratch are the plans' name with __from_scratch."
)
_FOLDS = (*map(str, range(10)), "all")


@partial(command, after_stop="Stopped. What was saved is kept; go on with the same command and --c.")
def train_pretrained_entry(argv: Sequence[str] | None = None) -> int:
    """nnUNetv2_train_pretrained."""
    parser = make_parser(
        "nnUNetv2_train_pretrained",
        _DESCRIPTION,
        arguments.DATASET_POSITION,
        arguments.CONFIGURATION_POSITION,
        arguments.FOLD_POSITION.but(choices=_FOLDS, metavar="fold"),
        arguments.TRAINER.but(default="PretrainedTrainer"),
        arguments.PLANS.but(default=None, required=True, help="plans that name the checkpoint, ptPlans..."),
        arguments.FROM_SCRATCH,
        arguments.OTHER_CHECKPOINT,
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
    )
    args = parser.parse_args(argv)

    return run_stoppable(args, argv, _train)


def _train(args: argparse.Namespace) -> None:
    from nnunet_lite.training.pretraining_choice import PretrainingChoice
    from nnunet_lite.training.run_training import run_training
    from nnunet_lite.utilities.device import resolve_device

    run_training(
        args.dataset_name_or_id,
        args.configuration,
        args.fold,
        args.tr,
        args.p,
        num_gpus=args.num_gpus,
        export_validation_probabilities=args.npz,
        continue_training=args.c,
        only_run_validation=args.val,
        disable_checkpointing=args.disable_checkpointing,
        val_with_best=args.val_best,
        device=resolve_device(args.device),
        pretraining=PretrainingChoice(args.from_scratch, args.overwrite_ckpt_path),
        **own_flags(args),
    )
