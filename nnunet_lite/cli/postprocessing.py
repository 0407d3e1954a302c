"""Commands that work on predictions: postprocessing and ensembles."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_lite.cli import arguments as flags
from nnunet_lite.cli.command import command, make_parser


@command
def determine_postprocessing_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_determine_postprocessing."""
    parser = make_parser(
        "nnUNetv2_determine_postprocessing",
        "Find out on a cross-validation where removing all but the largest component helps.",
        flags.PREDICTIONS,
        flags.REFERENCES,
        flags.PLANS_OF_PREDICTIONS,
        flags.DATASET_OF_PREDICTIONS,
        flags.PROCESSES,
        flags.REMOVE_POSTPROCESSED,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.postprocessing.remove_connected_components import determine_postprocessing

    _, kwargs = determine_postprocessing(
        args.i, args.ref, args.plans_json, args.dataset_json, args.np, not args.remove_postprocessed
    )
    steps = ", ".join(str(entry["labels_or_regions"]) for entry in kwargs) or "nothing to remove helps"
    print(
        f"Postprocessing: {steps}. Apply it with nnUNetv2_apply_postprocessing -pp_pkl_file {args.i}/postprocessing.pkl"
    )


@command
def apply_postprocessing_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_apply_postprocessing."""
    parser = make_parser(
        "nnUNetv2_apply_postprocessing",
        "Remove from segmentations what nnUNetv2_determine_postprocessing found worth removing.",
        flags.PREDICTIONS,
        flags.OUTPUT.but(help="output folder"),
        flags.POSTPROCESSING_FILE,
        flags.PROCESSES,
        flags.PLANS_OF_PREDICTIONS,
        flags.DATASET_OF_PREDICTIONS,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.postprocessing.postprocessing_file import load_postprocessing
    from nnunet_lite.postprocessing.remove_connected_components import (
        apply_postprocessing_to_folder,
        remove_all_but_largest_component_from_segmentation,
    )

    kwargs = load_postprocessing(args.pp_pkl_file)
    functions = [remove_all_but_largest_component_from_segmentation] * len(kwargs)
    apply_postprocessing_to_folder(args.i, args.o, functions, kwargs, args.plans_json, args.dataset_json, args.np)
    print(f"Postprocessed segmentations: {args.o}")


@command
def ensemble_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_ensemble."""
    parser = make_parser(
        "nnUNetv2_ensemble",
        "Average predictions of several models that were made with --save_probabilities.",
        flags.FOLDERS_TO_ENSEMBLE,
        flags.OUTPUT.but(help="output folder"),
        flags.PROCESSES,
        flags.SAVE_MERGED,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.ensembling.ensemble import ensemble_folders

    ensemble_folders(args.i, args.o, args.save_npz, args.np)
    print(f"Ensembled segmentations: {args.o}")
