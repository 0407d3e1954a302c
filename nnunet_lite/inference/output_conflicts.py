"""Outputs that would replace what is read: refused before anything is predicted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import ArgumentError, nnUNetError
from nnunet_lite.inference.data_iterators import CaseToPredict
from nnunet_lite.utilities.files import load_json

ARGUMENTS_FILE = "predict_from_raw_data_args.json"  # in every folder of predictions, ours and upstream's
_ADVICE = "give an output folder of its own"


def refuse_to_overwrite_input(cases: Iterable[CaseToPredict], ending: str) -> None:
    """Raise ArgumentError if an output is one of the inputs."""
    for case in cases:
        if case.output is None or not isinstance(case.image, (list, tuple)):
            continue
        target = f"{case.output}{ending}"
        inputs = [*case.image, *([case.previous] if isinstance(case.previous, str) else [])]
        overwritten = next((file for file in inputs if _same(file, target)), None)
        if overwritten is not None:
            raise ArgumentError(f"The prediction would overwrite its input {overwritten}; name another output")


def refuse_foreign_folder(folder: Path, dataset_json: Mapping[str, Any], plans: Mapping[str, Any]) -> None:
    """Refuse an output folder that is a dataset or a model, or whose documents are those of one.

    Args:
        folder: gets the documents; need not exist.
        dataset_json, plans: of the model that predicts.

    Raises:
        ArgumentError: what would be replaced.
    """
    held = [name for name in ("imagesTr", "labelsTr") if (folder / name).is_dir()]
    held += sorted(file.parent.name for file in folder.glob("fold_*/*.pth"))
    if held:
        what = "dataset" if held[0].endswith("Tr") else "trained model"
        raise ArgumentError(f"The output folder {folder} is that of a {what} (it holds {held[0]}); {_ADVICE}")
    if (folder / ARGUMENTS_FILE).is_file():
        return
    for name, ours in (("dataset.json", dataset_json), ("plans.json", plans)):
        file = folder / name
        if file.exists() and not _holds(file, ours):
            raise ArgumentError(f"{file} is that of a dataset or of another model and would be replaced; {_ADVICE}")


def _holds(file: Path, content: Mapping[str, Any]) -> bool:
    try:
        return bool(load_json(file) == dict(content))
    except (nnUNetError, OSError, ValueError):
        return False


def is_same_folder(source: object, output: object) -> bool:
    """Whether segmentations are to lie among the images."""
    if not isinstance(source, (str, os.PathLike)) or not isinstance(output, (str, os.PathLike)):
        return False
    return Path(source).is_dir() and _same(source, output)


def _same(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False
