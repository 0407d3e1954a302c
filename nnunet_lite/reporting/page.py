"""The whole page: one file that asks for nothing, neither from the network nor from the disk."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

from nnunet_lite.reporting.markup import Markup, element, joined


class Section(NamedTuple):
    """A part of the page with its entry in the navigation."""

    anchor: str
    title: str
    content: Markup


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The page as text; its security policy allows its own style and script, pictures within the file, nothing else."""
    style, script = _resource("report.css"), _resource("report.js")
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("link", rel="icon", href="data:,"),  # else browsers ask for /favicon.ico
        element("style", style),
    )
    links = [element("li", element("a", section.title, href=f"#{section.anchor}")) for section in sections]
    body = element(
        "body",
        element("header", element("h1", title), element("p", subtitle, class_="note")),
        element("nav", element("ul", *links), aria_label="Parts of the report"),
        element("main", *[_section(section) for section in sections]),
        element("script", script),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _section(section: Section) -> Markup:
    return element("section", element("h2", section.title), section.content, id=section.anchor)


def folded(summary: str, *content: Markup, is_open: bool = False) -> Markup:
    """A part that opens when its title is pressed."""
    return element("details", element("summary", summary), joined(*content), open=is_open)


def _resource(name: str) -> Markup:
    return Markup("\n" + files("nnunet_lite.reporting").joinpath(name).read_text(encoding="utf-8"))


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
