"""Numbers of things in messages."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """1 case, 2 cases; for words whose plural has an s."""
    return f"{number} {what}{'' if number == 1 else 's'}"
