"""First parts of model folders' names (nnUNetTrainer_e20_i100): the trainer, and the flags that made the rest of it."""

from __future__ import annotations

import re

from nnunet_lite.exceptions import ExtensionError
from nnunet_lite.extensions import find_class, known_names

_NUMBER = r"[0-9.]+(?:e[-+]?\d+)?"
_PARTS = re.compile(  # as Overrides.name_parts writes them
    rf"(.+?)(?:_e(\d+))?(?:_i(\d+))?(?:_lr({_NUMBER}))?(?:_b(\d+))?(?:_s(\d+))?(?:_(det))?"
)
_FLAGS = ("--epochs", "--iterations", "--lr", "--batch-size", "--seed")


def split_folder_part(part: str) -> tuple[str, list[str]]:
    """Trainer and flags whose results lie under a name: ("nnUNetTrainer", ["--epochs 20", "--deterministic"]).

    A name that does not end like ours, or whose rest is no trainer that can be found, is a trainer's as a whole.
    """
    known = known_names("trainer")
    match = _PARTS.fullmatch(part)
    if part in known or match is None or match[1] not in known:
        return part, []
    flags = [f"{flag} {value}" for flag, value in zip(_FLAGS, match.groups()[1:-1], strict=True) if value is not None]
    return match[1], flags + ["--deterministic"] * (match.groups()[-1] is not None)


def find_trainer(name: str) -> object:
    """What -tr names.

    Raises:
        ExtensionError: nobody defines it; of a folder's name it says which trainer and flags are meant.
    """
    trainer, flags = split_folder_part(name)
    try:
        return find_class("trainer", name)
    except ExtensionError as error:
        if not flags:
            raise
        hint = f"{name} is a folder's name: train with -tr {trainer} {' '.join(flags)}"
        raise ExtensionError(f"{error}. {hint}") from error.__cause__
