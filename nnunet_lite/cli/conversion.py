"""Commands that make raw datasets of those of other layouts."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_lite.cli import arguments as flags
from nnunet_lite.cli.command import command, make_parser


@command
def convert_msd_dataset_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_convert_MSD_dataset."""
    parser = make_parser(
        "nnUNetv2_convert_MSD_dataset",
        "Make a raw dataset of a task of the Medical Segmentation Decathlon, in nnUNet_raw.",
        flags.INPUT.but(
            help="extracted task folder, for example Task05_Prostate (tasks of nnU-Net v1: see "
            "nnUNetv2_convert_old_nnUNet_dataset)"
        ),
        flags.TARGET_ID,
        flags.PROCESSES,
        flags.MAX_RAM,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.dataset_conversion.convert_MSD_dataset import convert_msd_dataset
    from nnunet_lite.utilities.memory import parse_size

    max_ram = None if args.max_ram is None else parse_size(args.max_ram)
    convert_msd_dataset(args.i, args.overwrite_id, args.np, max_ram=max_ram)


@command
def convert_old_dataset_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_convert_old_nnUNet_dataset."""
    parser = make_parser(
        "nnUNetv2_convert_old_nnUNet_dataset",
        "Make a raw dataset of a task of nnU-Net v1, in nnUNet_raw.",
        flags.V1_TASK_FOLDER,
        flags.NEW_DATASET_NAME,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.dataset_conversion.convert_raw_dataset_from_old_nnunet_format import convert

    convert(args.input_folder, args.output_dataset_name)
