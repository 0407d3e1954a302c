"""The checkpoints of a fold: which to continue from, and what becomes of those of an earlier run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from nnunet_lite.utilities.files import PathLike

FINAL, LATEST, BEST = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"

_EARLIER = "previous_"  # of a run that was started anew, until the new one has finished


def checkpoint_to_continue(folder: PathLike) -> Path | None:
    """The final checkpoint, else the younger one of latest and best, else None."""
    final = Path(folder, FINAL)
    if final.is_file():
        return final
    others = [file for file in (Path(folder, LATEST), Path(folder, BEST)) if file.is_file()]
    return max(others, key=lambda file: file.stat().st_mtime_ns, default=None)


def set_aside(folder: PathLike) -> list[str]:
    """Rename the checkpoints of an earlier run, so that a later --c cannot mix them up; returns their new names."""
    renamed = []
    for file in (Path(folder, name) for name in (FINAL, LATEST, BEST)):
        if file.is_file():
            os.replace(file, file.with_name(_EARLIER + file.name))
            renamed.append(_EARLIER + file.name)
    return renamed


def remove_superseded(folder: PathLike) -> None:
    """Remove what a finished training no longer needs: checkpoint_latest, and the earlier run's checkpoints."""
    for name in (LATEST, *(_EARLIER + name for name in (FINAL, LATEST, BEST))):
        Path(folder, name).unlink(missing_ok=True)


def remove_leftovers(folder: PathLike) -> None:
    """Remove the temporary files of checkpoints whose writing was killed."""
    for file in Path(folder).glob(".*.tmp.checkpoint_*"):
        with contextlib.suppress(OSError):
            file.unlink()
