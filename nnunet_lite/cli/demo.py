"""The command that shows everything on a small dataset of its own."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_lite.cli import arguments as flags
from nnunet_lite.cli.command import SAME_COMMAND, command, make_parser


@command
def demo_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_demo."""
    parser = make_parser(
        "nnUNetv2_demo",
        "Make a small 3D dataset; plan, preprocess, train, predict and evaluate it (a few minutes on two CPU cores). "
        "Calling it again continues.",
        flags.DEMO_FOLDER,
        flags.DEMO_DEVICE,
    )
    args = parser.parse_args(argv)
    from pathlib import Path

    import torch

    from nnunet_lite.demo.pipeline import run_demo
    from nnunet_lite.training.interruption import TrainingInterrupted
    from nnunet_lite.utilities.device import resolve_device

    device = resolve_device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        run_demo(Path(args.out), device)
    except TrainingInterrupted:
        print(SAME_COMMAND)
        raise
