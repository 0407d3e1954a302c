"""nnUNetv2_status."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lite.cli import arguments as flags
from nnunet_lite.cli.command import NOTHING_WRITTEN, command, make_parser
from nnunet_lite.utilities.wording import counted

if TYPE_CHECKING:
    from nnunet_lite.model_selection.dataset_status import DatasetStatus, FoldStatus


@partial(command, after_stop=NOTHING_WRITTEN)
def status_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_status."""
    parser = make_parser(
        "nnUNetv2_status",
        "Show what exists of each dataset, from raw images to the best model, and the next command to run.",
        flags.DATASETS.but(required=False, default=None, help="dataset ids or names (default: all there are)"),
    )
    args = parser.parse_args(argv)
    from nnunet_lite.model_selection.dataset_status import dataset_status
    from nnunet_lite.plans.raw_dataset import existing_datasets, maybe_convert_to_dataset_name

    names = existing_datasets() if args.d is None else [maybe_convert_to_dataset_name(entry) for entry in args.d]
    if not names:
        print("There are no datasets in nnUNet_raw, nnUNet_preprocessed and nnUNet_results")
    for line in _folders_missing(bool(names)):
        print(line)
    for number, name in enumerate(names):
        print("\n" * bool(number) + "\n".join(_lines(dataset_status(name))))


def _folders_missing(has_datasets: bool) -> list[str]:
    """What to export; where there are datasets, only a folder of raw ones that is named and not there."""
    from nnunet_lite.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results

    lines = []
    for folder in (nnUNet_raw,) if has_datasets else (nnUNet_raw, nnUNet_preprocessed, nnUNet_results):
        name, value = folder.variable, folder.get()
        advice = f"name the folder of {folder.meaning}: export {name}=/path/to/{name}"
        if value is None and not has_datasets:
            lines.append(f"  {name} is not set; {advice}")
        elif value is not None and not Path(value).is_dir():
            lines.append(f"  {name}={value}: there is no such folder; make it, or {advice}")
    return lines


def _lines(status: DatasetStatus) -> list[str]:
    lines = [status.name]
    lines.append(f"  raw            {status.training_cases} training cases, {status.test_cases} test cases")
    lines.append(f"  fingerprint    {'yes' if status.fingerprint else 'no'}")
    for entry in status.configurations:
        done = f"{counted(entry.preprocessed, 'case')} preprocessed" if entry.preprocessed else "not preprocessed"
        lines.append(f"  {entry.plans}, {entry.configuration}: {done}")
    for model in status.models:
        lines.append(f"  {model.folder.name}")
        lines += [f"    fold {fold.fold}: {_fold(fold)}" for fold in model.folds]
    if status.chosen:
        folds = ", ".join(map(str, status.compared_folds))
        of_some = f" (by fold{'s' if len(status.compared_folds) > 1 else ''} {folds} alone)" if folds else ""
        lines.append(f"  best: {' and '.join(status.chosen)}{of_some}")
    if status.fault is not None:
        lines.append(f"  faults: {status.fault}")
    return [*lines, f"  next: {status.next_command}"]


def _fold(fold: FoldStatus) -> str:
    link = " after " if fold.state == "interrupted" else ", "
    state = "stopped" if fold.state == "interrupted" else fold.state
    words = [state if fold.epoch is None else f"{state}{link}{counted(fold.epoch, 'epoch')}"]
    if fold.dice is not None:
        words.append(f"validated with Dice {fold.dice:.4f}")
        words.append("with probabilities" if fold.probabilities else "without probabilities")
    return ", ".join(words)
