"""Names in a trainer of one's own that are nearly those of nnUNetTrainer: nobody uses them, so nothing happens."""

from __future__ import annotations

import difflib
import dis
from collections.abc import Iterator
from types import CodeType
from typing import Any

from nnunet_lite.utilities.logging import logger

_PACKAGE = __name__.partition(".")[0]
_SIMILAR = 0.85  # difflib's ratio
_USES = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "LOAD_CONST")  # the last: getattr(self, "name")


def warn_of_misspelled_names(trainer: Any) -> None:
    """Warn of each hook or attribute of a user's classes that is close to one of ours and that their code never uses.

    Args:
        trainer: as built, before `initialize`.
    """
    for owner, name, meant in misspelled_names(trainer):
        logger.warning("%s defines %s, which nothing uses; did you mean %s?", owner, name, meant)


def misspelled_names(trainer: Any) -> list[tuple[str, str, str]]:
    """Class that defines it, name, and the name that is likely meant."""
    classes = [base for base in type(trainer).__mro__ if base is not object]
    ours = [base for base in classes if base.__module__.partition(".")[0] == _PACKAGE]
    users = [base for base in classes if base not in ours]
    if not users:
        return []
    stored = {name for base in ours for code in _codes(base) for name in code.co_names}
    known = {name for base in ours for name in vars(base)} | {name for name in vars(trainer) if name in stored}
    known = {name for name in known if not name.startswith("__")}
    used = {use for base in users for code in _codes(base) for use in _uses(code)}
    defined = {name: type(trainer).__name__ for name in vars(trainer)}
    defined |= {name: base.__name__ for base in reversed(users) for name in vars(base)}
    found = []
    for name, owner in sorted(defined.items()):
        if name.startswith("_") or name in known or name in used:
            continue
        close = difflib.get_close_matches(name, sorted(known), 1, _SIMILAR)
        if close:
            found.append((owner, name, close[0]))
    return found


def _codes(base: type) -> Iterator[CodeType]:
    """Code of all methods and properties that a class defines, with that of the functions within them."""
    for value in vars(base).values():
        function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            yield from _with_inner(code)


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_inner(constant)


def _uses(code: CodeType) -> set[str]:
    """Names that are read as attributes, or stand in the code as text."""
    read = (step.argval for step in dis.get_instructions(code) if step.opname in _USES)
    return {value for value in read if isinstance(value, str)}
