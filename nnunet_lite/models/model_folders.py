"""What somebody may have meant who named no model folder, or a checkpoint that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nnunet_lite.utilities.files import subdirs

FINAL = "checkpoint_final.pth"
_UNFINISHED = ("checkpoint_latest.pth", "checkpoint_best.pth")  # what a training that has not ended leaves
_EXAMPLES = 5  # folders named in a message
_SEARCHED = 200  # sub-folders; of more of them a model is not looked for below each


def is_model_folder(folder: Path) -> bool:
    """Whether it has plans.json, dataset.json and a fold."""
    documents = all((folder / name).is_file() for name in ("plans.json", "dataset.json"))
    return documents and bool(_subdirs(folder, "fold_"))


def meant_folder(path: Path) -> str:
    """End of a message: model folders up to two levels above and below `path`, or what to do with a zip of models."""
    if path.suffix == ".zip" and path.is_file():
        return f"; it is a zip, install it with nnUNetv2_install_pretrained_model_from_zip {path}"
    near = next((folder for folder in _above(path) if is_model_folder(folder)), None)
    found = _below(path) if near is None else [near]
    if not found:
        return ""
    names = ", ".join(f"-m {folder}" for folder in found[:_EXAMPLES])
    return f"; did you mean {'one of ' if len(found) > 1 else ''}{names}{', ...' if len(found) > _EXAMPLES else ''}?"


def meant_checkpoint(fold_folders: Iterable[Path], name: str) -> str:
    """End of a message: what to do about a checkpoint `name` that none of these folders has."""
    held = {file.name for folder in fold_folders for file in folder.glob("*.pth")}
    if f"{name}.pth" in held:
        return f"; did you mean -chk {name}.pth?"
    unfinished = next((other for other in _UNFINISHED if other in held), None)
    if name == FINAL and FINAL not in held and unfinished is not None:
        return f"; this training has not ended: finish it with --c, or predict with -chk {unfinished}"
    return ""


def meant_folds(text: str) -> str:
    """End of a message about a fold that is none: 0,1 and fold_0 are 0 1 and 0 on the command line."""
    folds = re.findall(r"\d+|all", text)
    if not folds or re.sub(r"fold_?|all|\d+|[\s,;+\[\]()]", "", text):
        return ""
    return f"; several folds are separated by blanks: -f {' '.join(folds if len(folds) > 1 else ('0', '1'))}"


def _above(path: Path) -> list[Path]:
    return list(path.absolute().parents)[:2]


def _below(path: Path) -> list[Path]:
    level = [Path(folder) for folder in _subdirs(path)]
    found = [folder for folder in level if is_model_folder(folder)]
    return found or [
        Path(folder) for above in level[:_SEARCHED] for folder in _subdirs(above) if is_model_folder(Path(folder))
    ]


def _subdirs(folder: Path, prefix: str = "") -> list[str]:
    try:
        return subdirs(folder, prefix)
    except OSError:  # no folder, or not ours to look into
        return []
