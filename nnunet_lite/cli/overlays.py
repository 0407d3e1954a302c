"""The command that draws training cases."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_lite.cli import arguments as flags
from nnunet_lite.cli.command import command, make_parser


@command
def plot_overlay_pngs_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_plot_overlay_pngs."""
    parser = make_parser(
        "nnUNetv2_plot_overlay_pngs",
        "Draw every training case: the slice that shows most of every class, its labels in colour, voxel by voxel "
        "(spacing counts only with --legend). Running it again draws only what has changed.",
        flags.DATASET,
        flags.OUTPUT.but(help="folder for the pictures, CASE.png (created)"),
        flags.PROCESSES,
        flags.CHANNEL_INDEX,
        flags.USE_RAW,
        flags.PLANS,
        flags.CONFIGURATION.but(
            required=False, default=None, help="configuration of preprocessed data (default: 3d_fullres, else 2d)"
        ),
        flags.OVERLAY_INTENSITY,
        flags.CONTOURS,
        flags.LEGEND,
        flags.OVERWRITE.but(help="draw again what is there already"),
        flags.MAX_RAM,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.experiment_planning import overlay_plots
    from nnunet_lite.utilities.memory import parse_size

    max_ram = None if args.max_ram is None else parse_size(args.max_ram)
    run = overlay_plots.Run(args.np, args.overwrite, max_ram, outlines=args.contours, legend=args.legend)
    if args.use_raw:
        overlay_plots.generate_overlays_from_raw(args.d, args.o, None, args.channel_idx, args.overlay_intensity, run)
    else:
        overlay_plots.generate_overlays_from_preprocessed(
            args.d, args.o, None, args.channel_idx, args.c, args.p, args.overlay_intensity, run
        )
