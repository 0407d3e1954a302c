"""Commands from raw images to preprocessed cases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from nnunet_lite.cli import arguments as flags
from nnunet_lite.cli.command import NOTHING_WRITTEN, Flag, command, make_parser

_PLANNING: tuple[Flag, ...] = (
    flags.PLANNER,
    flags.GPU_MEMORY_TARGET,
    flags.PREPROCESSOR,
    flags.TARGET_SPACING,
    flags.PLANS_IDENTIFIER,
)


@command
def extract_fingerprint_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_extract_fingerprint."""
    parser = make_parser(
        "nnUNetv2_extract_fingerprint",
        "Collect image sizes, spacings and foreground intensities of raw datasets, the basis of planning.",
        flags.DATASETS,
        flags.FINGERPRINT_EXTRACTOR,
        flags.PROCESSES,
        flags.VERIFY_INTEGRITY,
        flags.CLEAN,
        flags.VERBOSE,
        flags.NO_PROGRESS_BAR,
        flags.MAX_RAM,
        flags.NUM_PARTS,
        flags.PART_ID,
    )
    args = parser.parse_args(argv)
    _extract(args, args.np)


@command
def plan_experiment_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_plan_experiment."""
    parser = make_parser(
        "nnUNetv2_plan_experiment",
        "Plan networks, patches and preprocessing from the datasets' fingerprints.",
        flags.DATASETS,
        *_PLANNING,
        flags.DRY_RUN,
    )
    _plan(parser.parse_args(argv))


@command
def preprocess_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_preprocess."""
    parser = make_parser(
        "nnUNetv2_preprocess",
        "Preprocess the training cases as planned. Running it again continues where it stopped.",
        flags.DATASETS,
        flags.PLANS_NAME,
        flags.CONFIGURATIONS,
        flags.PREPROCESSING_PROCESSES,
        flags.VERBOSE,
        flags.NO_PROGRESS_BAR,
        flags.MAX_RAM,
        flags.NUM_PARTS,
        flags.PART_ID,
    )
    args = parser.parse_args(argv)
    _preprocess(args, args.plans_name)


@command
def plan_and_preprocess_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_plan_and_preprocess."""
    parser = make_parser(
        "nnUNetv2_plan_and_preprocess",
        "Fingerprint, plan and preprocess raw datasets: everything that comes before training.",
        flags.DATASETS,
        flags.FINGERPRINT_EXTRACTOR,
        flags.FINGERPRINT_PROCESSES,
        flags.VERIFY_INTEGRITY,
        flags.NO_PREPROCESSING,
        flags.CLEAN,
        *_PLANNING,
        flags.CONFIGURATIONS,
        flags.PREPROCESSING_PROCESSES,
        flags.VERBOSE,
        flags.NO_PROGRESS_BAR,
        flags.MAX_RAM,
        flags.NUM_PARTS,
        flags.PART_ID,
    )
    args = parser.parse_args(argv)
    _check_before_work(args)
    _extract(args, args.npfp)
    plans_identifier = _plan(args)
    if not args.no_pp:
        _preprocess(args, plans_identifier)


@partial(command, after_stop=NOTHING_WRITTEN)
def check_dataset_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_check_dataset."""
    parser = make_parser(
        "nnUNetv2_check_dataset",
        "Look at dataset.json, the file names and every image and label map of raw datasets, and report everything "
        "that is wrong. Exit code 0 if there are no faults (there may be warnings), 2 otherwise.",
        flags.DATASETS,
        flags.PROCESSES,
        flags.REPORT_JSON,
        flags.NO_PROGRESS_BAR,
        flags.MAX_RAM,
    )
    args = parser.parse_args(argv)

    from nnunet_lite.experiment_planning import integrity_report
    from nnunet_lite.experiment_planning.plan_and_preprocess_api import check_datasets
    from nnunet_lite.utilities.files import require_writable, save_json

    if args.json is not None:
        require_writable(args.json)
    checks = []
    for check in check_datasets(args.d, args.np, not args.no_pbar, _bytes(args.max_ram)):
        print(integrity_report.as_text(check), end="\n\n", flush=True)
        checks.append(check)
    if args.json is not None:
        save_json(integrity_report.as_document(checks), args.json, sort_keys=False)
    if any(check.examination.faults for check in checks):
        raise integrity_report.as_error(checks)


def _check_before_work(args: argparse.Namespace) -> None:
    """What the later stages would refuse is refused now, not after hours of reading."""
    from nnunet_lite.experiment_planning import plan_and_preprocess_api as api

    api.check_planning_arguments(
        args.pl, args.preprocessor_name, args.overwrite_target_spacing, args.overwrite_plans_name
    )
    api.processes_per_configuration(args.c, args.np)


@command
def move_plans_between_datasets_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_move_plans_between_datasets."""
    parser = make_parser(
        "nnUNetv2_move_plans_between_datasets",
        "Use one dataset's plans for another, as fine-tuning needs it.",
        flags.SOURCE_DATASET,
        flags.TARGET_DATASET,
        flags.SOURCE_PLANS,
        flags.TARGET_PLANS,
        flags.OVERWRITE_PLANS,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.experiment_planning.move_plans_between_datasets import move_plans_between_datasets

    move_plans_between_datasets(args.s, args.t, args.sp, args.tp, overwrite=args.overwrite)


@command
def preprocess_like_nnssl_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_preprocess_like_nnssl."""
    parser = make_parser(
        "nnUNetv2_preprocess_like_nnssl",
        "Plan and preprocess a dataset for fine-tuning a self-supervised (nnssl) checkpoint.",
        flags.DATASET,
        flags.PRETRAINING_NAME,
        flags.PRETRAINED_CHECKPOINT,
        flags.ADAPTATION_MODE,
        flags.OVERRIDE_SPACING,
        flags.ADAPTATION_PROCESSES,
        flags.VERBOSE,
        flags.OVERWRITE_PREPROCESSED,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.experiment_planning.pretrained_plans import preprocess_like_nnssl

    preprocess_like_nnssl(
        args.d,
        args.pretraining_name,
        args.pretrained_checkpoint,
        args.adaptation_mode,
        args.override_spacing,
        args.np,
        args.verbose,
        args.overwrite_pp,
    )


@command
def plan_like_dynamic_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_plan_like_dynamic."""
    parser = make_parser(
        "nnUNetv2_plan_like_dynamic",
        "Note an nnssl checkpoint in new plans that otherwise equal the dataset's own 3d_fullres, and preprocess.",
        flags.DATASET,
        flags.PRETRAINING_NAME,
        flags.PRETRAINED_CHECKPOINT,
        flags.BASE_PLANS,
        flags.ADAPTATION_PROCESSES,
        flags.VERBOSE,
        flags.OVERWRITE_PREPROCESSED,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.experiment_planning.pretrained_plans import plan_like_dynamic

    plan_like_dynamic(
        args.d,
        args.pretraining_name,
        args.pretrained_checkpoint,
        args.plans_identifier,
        args.np,
        args.verbose,
        args.overwrite_pp,
    )


def _extract(args: argparse.Namespace, num_processes: int) -> None:
    from nnunet_lite.experiment_planning.plan_and_preprocess_api import extract_fingerprints

    extract_fingerprints(
        args.d,
        args.fpe,
        num_processes,
        args.verify_dataset_integrity,
        args.clean,
        args.verbose,
        not args.no_pbar,
        _bytes(args.max_ram),
        args.num_parts,
        args.part_id,
    )


def _plan(args: argparse.Namespace) -> str:
    from nnunet_lite.experiment_planning.plan_and_preprocess_api import plan_experiments

    return plan_experiments(
        args.d,
        args.pl,
        args.gpu_memory_target,
        args.preprocessor_name,
        args.overwrite_target_spacing,
        args.overwrite_plans_name,
        getattr(args, "dry_run", False),
    )


def _preprocess(args: argparse.Namespace, plans_identifier: str) -> None:
    from nnunet_lite.experiment_planning.plan_and_preprocess_api import preprocess

    preprocess(
        args.d,
        plans_identifier,
        args.c,
        args.np,
        args.verbose,
        not args.no_pbar,
        _bytes(args.max_ram),
        args.num_parts,
        args.part_id,
    )


def _bytes(size: str | None) -> int | None:
    from nnunet_lite.utilities.memory import parse_size

    return None if size is None else parse_size(size)
