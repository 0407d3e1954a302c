"""nnUNetv2_report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nnunet_lite.cli import arguments as flags
from nnunet_lite.cli.command import NOTHING_WRITTEN, command, make_parser


@partial(command, after_stop=NOTHING_WRITTEN)
def report_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_report."""
    parser = make_parser(
        "nnUNetv2_report",
        "Write all that is known of a dataset and its models as one HTML file: fingerprint, plans, training curves, "
        "Dice of every case, pictures of the worst cases, postprocessing, what is missing. It needs no network.",
        flags.DATASET,
        flags.TRAINERS.but(default=None, help="trainer classes (default: all there are)"),
        flags.SEVERAL_PLANS.but(default=None, help="plans identifiers (default: all there are)"),
        flags.CONFIGURATIONS.but(default=None, help="configurations (default: all there are)"),
        flags.CROSSVALIDATION_FOLDS.but(default=None, help="folds, numbers or all (default: all there are)"),
        flags.OUTPUT.but(
            required=False,
            default=None,
            help="HTML file to write (default: report.html in the dataset's folder of nnUNet_results, else of "
            "nnUNet_preprocessed)",
        ),
        flags.CHANNEL_INDEX,
        flags.PROCESSES,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.plans.raw_dataset import maybe_convert_to_dataset_name
    from nnunet_lite.reporting.report import Choice, write_report

    name = maybe_convert_to_dataset_name(args.d)
    choice = Choice(args.tr, args.p, args.c, args.f)
    write_report(name, args.o, choice, num_processes=args.np, channel_idx=args.channel_idx)
