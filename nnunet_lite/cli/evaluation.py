"""Commands that compare predictions with references."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from nnunet_lite.cli import arguments as flags
from nnunet_lite.cli.command import NOTHING_WRITTEN, command, make_parser
from nnunet_lite.utilities.wording import counted

_MORE = (flags.ADDITIONAL_METRICS, flags.NSD_TOLERANCE, flags.METRICS_TABLE)


def _more(args: argparse.Namespace) -> dict[str, Any]:
    return {"metrics": args.metrics, "nsd_tolerance": args.nsd_tolerance, "csv": args.csv}


@partial(command, after_stop=NOTHING_WRITTEN)
def evaluate_folder_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_evaluate_folder."""
    parser = make_parser(
        "nnUNetv2_evaluate_folder",
        "Compare a folder of predictions with references of the same names.",
        flags.REFERENCE_FOLDER,
        flags.PREDICTION_FOLDER,
        flags.DATASET_JSON,
        flags.PLANS_FILE,
        flags.METRICS_OUTPUT,
        flags.PROCESSES,
        flags.CHILL,
        *_MORE,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.evaluation.evaluate_predictions import compute_metrics_on_folder2

    results = compute_metrics_on_folder2(
        args.gt_folder, args.pred_folder, args.djfile, args.pfile, args.o, args.np, args.chill, **_more(args)
    )
    _report(results, args)


@partial(command, after_stop=NOTHING_WRITTEN)
def evaluate_simple_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_evaluate_simple."""
    parser = make_parser(
        "nnUNetv2_evaluate_simple",
        "Compare a folder of predictions with references, without a dataset's documents.",
        flags.REFERENCE_FOLDER,
        flags.PREDICTION_FOLDER,
        flags.LABELS,
        flags.IGNORE_LABEL,
        flags.METRICS_OUTPUT,
        flags.PROCESSES,
        flags.CHILL,
        *_MORE,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.evaluation.evaluate_predictions import compute_metrics_on_folder_simple

    results = compute_metrics_on_folder_simple(
        args.gt_folder, args.pred_folder, args.l, args.o, args.np, args.il, args.chill, **_more(args)
    )
    _report(results, args)


def _report(results: dict[str, Any], args: argparse.Namespace) -> None:
    """The numbers people look for, and where the others are."""
    where = args.o or os.path.join(args.pred_folder, "summary.json")
    cases = counted(len(results["metric_per_case"]), "case")
    print(f"Mean foreground Dice {results['foreground_mean']['Dice']:.4f} ({cases}); all metrics: {where}")
    if "additional_metrics" in results:
        means, classes = (results["additional_metrics"][key] for key in ("foreground_mean", "number_of_classes"))
        shown = [name for name in _REPORTED if name in means]
        parts = [f"{name} {means[name]:.4g} (of {classes[name]})" for name in shown]
        print(f"Foreground means (of how many classes): {', '.join(parts)}")
    if args.csv or args.metrics:
        from nnunet_lite.evaluation.metrics_table import table_path

        print(f"Every case and class: {table_path(where)}")


_REPORTED = (
    "hd95",
    "assd",
    "nsd",
    "absolute_volume_difference_ml",
    "absolute_area_difference_mm2",
    "lesion_sensitivity",
    "lesion_precision",
    "lesion_f1",
)
