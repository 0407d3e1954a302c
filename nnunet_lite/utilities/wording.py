"""Numbers and names of things in messages."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_lite.exceptions import nnUNetError


def counted(number: int, what: str) -> str:
    """1 case, 2 cases; for words whose plural has an s."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def first_few(names: Sequence[str], number: int = 5) -> str:
    """a, b, c; of more than `number` names the first ones, then three dots."""
    return ", ".join(names[:number]) + (" ..." if len(names) > number else "")


def describe(error: BaseException | None) -> str:
    """An error in one line; our own messages stand for themselves, others get their type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, nnUNetError) else f"{type(error).__name__}: {text}"
