"""Outputs that would replace what is read: refused before anything is predicted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.imageio.reader_writer_registry import READERS_BY_ENDING
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


def refuse_other_ending(output: str | os.PathLike[str], ending: str) -> None:
    """Raise ArgumentError if an output is named as an image of another kind than the model writes."""
    path = Path(output)
    known = {other for _, endings in READERS_BY_ENDING for other in endings}
    other = next((other for other in sorted(known, key=len, reverse=True) if path.name.endswith(other)), None)
    if other is not None and not path.name.endswith(ending) and not path.is_dir():
        stem = str(output)[: -len(other)]
        raise ArgumentError(f"-o {output}: this model writes {ending}; name the file {stem}{ending}, or a folder")


def refuse_endings(outputs: Iterable[str], ending: str) -> None:
    """Raise ArgumentError if a path to be given without file ending has that of the model."""
    named = next((output for output in outputs if output.endswith(ending)), None)
    if named is not None:
        raise ArgumentError(
            f"{named}: a list of outputs is given without file ending, as {named[: -len(ending)]}; {ending} is added"
        )


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
