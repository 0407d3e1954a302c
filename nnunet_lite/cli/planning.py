"""Commands from raw images to preprocessed cases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunet_lite.cli import arguments as flags
from nnunet_lite.cli.arguments import Flag, command, make_parser

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
    _extract(args, args.npfp)
    plans_identifier = _plan(args)
    if not args.no_pp:
        _preprocess(args, plans_identifier)


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
