"""Outputs that would replace what is read: refused before anything is predicted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.inference.data_iterators import CaseToPredict


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
