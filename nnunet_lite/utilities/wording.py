"""Numbers and names of things in messages."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, what: str) -> str:
    """1 case, 2 cases; for words whose plural has an s."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def first_few(names: Sequence[str], number: int = 5) -> str:
    """a, b, c; of more than `number` names the first ones, then three dots."""
    return ", ".join(names[:number]) + (" ..." if len(names) > number else "")
