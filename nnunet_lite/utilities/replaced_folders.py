"""A folder that takes the place of another, of which nothing is lost whenever the process is killed.

The old one is moved aside to a visible name, `<name>.replaced`, and goes when the new one is in its place. Temporary
names (see `temporary_names`) would not do: what has one is removed by the next command once its process is no more.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.temporary_names import temporary_path

_ENDING = ".replaced"


def replace_folder(new: Path, target: Path) -> None:
    """Move a folder to `target`, on the same disk; what is there goes, but not before the new one is in its place."""
    restore_replaced(target)
    if not target.exists():
        new.rename(target)
        return
    aside = _free_name(target)
    target.rename(aside)
    try:
        new.rename(target)
    except BaseException:
        if not target.exists():
            aside.rename(target)
        raise
    obsolete = temporary_path(target)  # half of it, left by a process that is killed, is never mistaken for all of it
    aside.rename(obsolete)
    shutil.rmtree(obsolete, ignore_errors=True)


def restore_replaced(target: Path) -> bool:
    """Put back what an interrupted `replace_folder` moved aside, if nothing is at `target`; says so.

    Where the new one is in its place, the old one is left as it is: somebody may want it.

    Returns whether it was put back.
    """
    aside = _moved_aside(target)
    if not aside:
        return False
    newest = aside[max(aside)]
    if target.exists():
        logger.warning(
            "%s is what an interrupted command moved aside; %s is complete. Remove it if it is not needed",
            newest,
            target,
        )
        return False
    newest.rename(target)
    logger.warning("%s was put back from %s: a command that was to replace it was interrupted", target, newest.name)
    return True


def _moved_aside(target: Path) -> dict[int, Path]:
    """Folders that were moved aside, by their number; the highest is the newest."""
    pattern = re.compile(rf"{re.escape(target.name + _ENDING)}(?:_(\d+))?")
    if not target.parent.is_dir():
        return {}
    matches = ((entry, pattern.fullmatch(entry.name)) for entry in target.parent.iterdir())
    return {int(match[1] or 1): entry for entry, match in matches if match is not None and entry.is_dir()}


def _free_name(target: Path) -> Path:
    number = max(_moved_aside(target), default=0) + 1
    return target.with_name(f"{target.name}{_ENDING}" + (f"_{number}" if number > 1 else ""))
