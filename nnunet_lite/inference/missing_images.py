"""An input without images of the model's ending: what there is instead, and what to do."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.imageio.reader_writer_registry import READERS_BY_ENDING
from nnunet_lite.utilities.files import subdirs, subfiles

_EXAMPLES = 5  # files named in a message


def refuse_missing(path: Path, ending: str) -> None:
    """Raise DatasetError if `path`, which is no file, has no images of this ending."""
    if path.name.endswith(ending) and not path.exists() and not path.is_symlink():
        raise DatasetError(f"The image {path} does not exist; {_instead(path, ending)}")
    if not path.is_dir():
        if path.exists():
            raise DatasetError(f"{path} is neither a file nor a folder but a pipe, a socket or a device; save it first")
        return
    names = sorted(name for name in os.listdir(path) if not (path / name).is_dir())
    if any(name.endswith(ending) and not name.startswith(".") for name in names):
        return
    known = tuple(other for _, endings in READERS_BY_ENDING for other in endings)
    images = [name for name in names if name.endswith(known)]
    what = f"{path} has no images CASE_0000{ending}"
    if images:
        raise DatasetError(f"{what}: this model reads {ending}; convert those that it holds: {_listed(images)}")
    held = f"; it holds {_listed(names)}" if names else ""
    below = [name for name in subdirs(path, join=False) if _has_images(path / name, ending)]
    if below:
        one = len(below) == 1
        held += f"; its folder{'' if one else 's'} {_listed(below)} {'has' if one else 'have'} images"
    raise DatasetError(f"{what}{held or ', it is empty'}")


def _instead(path: Path, ending: str) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    names = subfiles(path.parent, ending, join=False)
    closest = difflib.get_close_matches(path.name, names, _EXAMPLES, 0)
    return f"{path.parent} has {_listed(closest, len(names))}" if names else f"{path.parent} has no {ending} files"


def _has_images(folder: Path, ending: str) -> bool:
    try:
        return bool(subfiles(folder, ending))
    except OSError:  # not ours to look into
        return False


def _listed(names: list[str], number: int = 0) -> str:
    return ", ".join(names[:_EXAMPLES]) + (", ..." if max(number, len(names)) > _EXAMPLES else "")
