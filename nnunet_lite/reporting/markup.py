"""HTML put together so that nothing untrusted becomes markup: whatever is no `Markup` is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

_VOID = {"br", "col", "hr", "img", "input", "link", "meta"}


class Markup(str):
    """Text that is HTML already; only this module and constants of the package make it."""

    __slots__ = ()


def escaped(content: Any) -> Markup:
    """Anything as text of a page or as an attribute's value; control characters, which HTML forbids, are replaced."""
    if isinstance(content, Markup):
        return content
    text = "".join(
        letter if letter >= " " or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in str(content)
    )
    return Markup(html.escape(text.encode("utf-8", "replace").decode("utf-8"), quote=True))


def element(tag: str, *content: Any, **attributes: Any) -> Markup:
    """One element of HTML or SVG.

    Args:
        tag: its name.
        content: Markup, or anything else, which is escaped; None is passed over.
        attributes: `class_` becomes class, other underscores become dashes; None and False are left out, True has no
            value. Names keep their case, as SVG needs (viewBox).
    """
    words = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        words.append(name if value is True else f'{name}="{escaped(value)}"')
    opening = f"<{' '.join(words)}>"
    return Markup(opening if tag in _VOID else f"{opening}{joined(*content)}</{tag}>")


def joined(*content: Any) -> Markup:
    """Pieces one after the other; what is no Markup is escaped, None passed over."""
    return Markup("".join(escaped(piece) for piece in content if piece is not None))


def table(
    header: Sequence[Any],
    rows: Sequence[Sequence[Any]],
    caption: str,
    *,
    ascending: int | None = None,
    **attributes: Any,
) -> Markup:
    """A table with a caption; the first cell of each row is its header.

    Args:
        ascending: the column by which the rows are sorted, if that is to be said.
    """
    order = ["ascending" if column == ascending else None for column in range(len(header))]
    head = element(
        "tr", *[element("th", cell, scope="col", aria_sort=way) for cell, way in zip(header, order, strict=True)]
    )
    body = [element("tr", *[_cell(cell, is_first=number == 0) for number, cell in enumerate(row)]) for row in rows]
    content = element(
        "table", element("caption", caption), element("thead", head), element("tbody", *body), **attributes
    )
    # a wide table scrolls by itself, for which it must take the keyboard's focus
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _cell(content: Any, is_first: bool) -> Markup:
    return element("th", content, scope="row") if is_first else element("td", content)


def number(value: float | None, digits: int = 4) -> str:
    """A number for a reader: NaN and None as a dash, others to some significant digits."""
    if value is None or value != value:
        return "\N{EN DASH}"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text and abs(value) < 1e7 and abs(value) >= 1 else text


def score(value: float | None) -> str:
    """A Dice to four decimals; NaN and None as a dash."""
    return "\N{EN DASH}" if value is None or value != value else f"{value:.4f}"
