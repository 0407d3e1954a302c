"""What is untrusted never becomes markup."""

from __future__ import annotations

import math

import pytest

from nnunet_lite.reporting.markup import element, escaped, joined, number, score, table

EVIL = "<script>alert(1)</script>\"'&"


def test_whatever_is_no_markup_is_escaped() -> None:
    text = element("p", EVIL, element("b", EVIL), title=EVIL)
    assert "<script" not in text
    safe = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;"
    assert text == f'<p title="{safe}">{safe}<b>{safe}</b></p>'
    assert "<script" not in joined(EVIL, table([EVIL], [[EVIL]], EVIL))


def test_names_that_are_no_text_can_be_written() -> None:
    assert escaped("a\x00b\x1b\udcff").encode() == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}?".encode()


def test_attributes() -> None:
    assert element("path", d="M0 0", class_="a", stroke_width=2, hidden=None, open=False) == (
        '<path d="M0 0" class="a" stroke-width="2"></path>'
    )
    assert element("input", checked=True) == "<input checked>"
    assert element("svg", viewBox="0 0 1 1") == '<svg viewBox="0 0 1 1"></svg>'
    assert element("ul", None, element("li", 3)) == "<ul><li>3</li></ul>"


def test_tables_name_their_headers() -> None:
    text = table(["case", "Dice"], [["a", 1]], "Cases", ascending=1)
    assert '<th scope="col" aria-sort="ascending">Dice</th>' in text and '<th scope="col">case</th>' in text
    assert '<th scope="row">a</th><td>1</td>' in text and "<caption>Cases</caption>" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"),
     (math.nan, "–"), (1.0, "1"), (0.78125, "0.7812"), (486420.0, "486420"), (1e9, "1e+09"), (1e-7, "1e-07")],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_scores() -> None:
    assert (score(0.5), score(math.nan), score(None)) == ("0.5000", "–", "–")
