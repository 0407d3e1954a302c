"""Commands that work on predictions: postprocessing and ensembles."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    from nnunet_lite.evaluation.summary import names_of_classes
    from nnunet_lite.plans.prediction_documents import dataset_json_of
    from nnunet_lite.postprocessing.remove_connected_components import determine_postprocessing

    _, kwargs = determine_postprocessing(
        args.i, args.ref, args.plans_json, args.dataset_json, args.np, not args.remove_postprocessed
    )
    if not kwargs:
        print("Postprocessing: nothing to remove helps")
        return
    names = names_of_classes(dataset_json_of(Path(args.i), args.dataset_json)["labels"])
    steps = "; ".join(_described(entry["labels_or_regions"], names) for entry in kwargs)
    print(f"Postprocessing: keep only the largest component of {steps}. Apply it to predictions with")
    words = ["-i", "INPUT_FOLDER", "-o", "OUTPUT_FOLDER", "-pp_pkl_file", os.path.join(args.i, "postprocessing.pkl")]
    for flag, value in (("-plans_json", args.plans_json), ("-dataset_json", args.dataset_json)):
        words += [] if value is None else [flag, value]
    print(shlex.join(["nnUNetv2_apply_postprocessing", *words]))


def _described(entry: Any, names: Mapping[Any, str]) -> str:
    """A class, or several taken together, by number and name."""
    key = tuple(entry) if isinstance(entry, (list, tuple)) else entry
    if key in names:
        return f"{entry} ({names[key]})"
    if not isinstance(key, tuple):
        return str(entry)
    return f"{entry} ({', '.join(names.get(member, str(member)) for member in key)}, taken together)"


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
