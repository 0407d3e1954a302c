"""Names of outputs that would end otherwise than their owner thinks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.imageio.reader_writer_registry import READERS_BY_ENDING


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
