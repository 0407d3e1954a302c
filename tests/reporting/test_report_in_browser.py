"""The report in a real browser: no complaint, no request, tables that sort by mouse and keyboard, dark and light."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Folders
from helpers.browser import Page, browser_page, chromium
from helpers.crossvalidations import NAME
from helpers.reports import make_reported_dataset
from PIL import Image

from nnunet_lite.reporting.report import write_report

CASES = ".results:has(input) table"
COLUMN = f"[...document.querySelectorAll('{CASES} tbody tr:not([hidden])')].map(row => row.cells[%d].textContent)"
HEADS = f"[...document.querySelectorAll('{CASES} th[scope=col]')].map(head => head.getAttribute('aria-sort'))"


@pytest.fixture
def report(nnunet_folders: Folders) -> Path:
    """Three cases with pictures, and 30 better ones without files, of which one has no Dice."""
    chromium()
    [model] = make_reported_dataset(nnunet_folders)
    file = model / "fold_1" / "validation" / "summary.json"
    summary = json.loads(file.read_text())
    for k in range(30):
        dice = float("nan") if k == 7 else 0.95 + (k * 7 % 30) / 1000
        metrics = {"1": {"Dice": dice}, "2": {"Dice": dice}}
        summary["metric_per_case"].append({"prediction_file": f"<b>case_{k}.nii.gz", "metrics": metrics})
    file.write_text(json.dumps(summary))
    return write_report(NAME, num_processes=0)


@pytest.fixture
def page(report: Path) -> Iterator[Page]:
    with browser_page() as opened:
        opened.look()
        opened.open(report)
        yield opened
        assert opened.complaints == []
        assert [url for url in opened.requests if not url.startswith("data:")] == [report.resolve().as_uri()]


@pytest.mark.slow
def test_in_a_browser(page: Page, report: Path) -> None:
    assert page.evaluate("document.title") == NAME
    assert page.evaluate("document.querySelectorAll('b').length") == 0  # names stay text
    _sorts(page)
    _searches(page)
    _hides_outlines(page)
    _fits(page)


def _sorts(page: Page) -> None:
    assert page.evaluate(HEADS)[2] == "ascending"
    first = page.evaluate(COLUMN % 2)
    assert first[-1] == "–" and first[:-1] == sorted(first[:-1]) and len(first) == 33
    page.click(f"{CASES} th:nth-child(3) button")
    second = page.evaluate(COLUMN % 2)
    assert second[-1] == "–" and second[:-1] == sorted(first[:-1], reverse=True)
    assert page.evaluate(HEADS) == [None, None, "descending", None, None]
    page.evaluate(f"document.querySelector('{CASES} th:nth-child(3) button').focus()")
    page.evaluate(f"document.querySelector('{CASES} th:nth-child(1) button').focus()")
    page.press("Enter")
    names = page.evaluate(COLUMN % 0)
    assert page.evaluate(HEADS)[0] == "ascending"
    assert [name for name in names if "case" in name] == [f"<b>case_{k}" for k in range(30)]  # 2 before 10
    page.press("Tab")
    page.press(" ")
    assert page.evaluate(HEADS)[:2] == [None, "ascending"]


def _searches(page: Page) -> None:
    page.evaluate("document.querySelector('input[type=search]').focus()")
    page.type("CASE_2")
    found = page.evaluate(COLUMN % 0)
    assert sorted(found) == sorted(f"<b>case_{k}" for k in (2, *range(20, 30)))
    assert page.evaluate("document.querySelector('output').textContent") == "11 of 33 rows"


def _hides_outlines(page: Page) -> None:
    visible = "[...document.querySelectorAll('path.%s')].some(path => path.getClientRects().length > 0)"
    for choice, reference, prediction in (("reference", True, False), ("none", False, False), ("both", True, True)):
        page.click(f"input[value={choice}]")
        assert page.evaluate(visible % "reference") is reference
        assert page.evaluate(visible % "prediction") is prediction


def _fits(page: Page) -> None:
    """In light, dark and on paper; and no part of it is wider than a phone, tables scroll by themselves."""
    paper = "getComputedStyle(document.body).backgroundColor"
    colours = [page.look(dark=dark) or page.evaluate(paper) for dark in (False, True)]
    assert colours == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]
    for width in (400, 1280):
        page.look(width=width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.look(dark=True, media="print")
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"


@pytest.mark.slow
def test_planes_are_drawn_in_their_proportions(page: Page) -> None:
    """Voxels are 3 x 2 x 1 mm (z, y, x); each plane shows some of them."""
    scales = set()
    for number, (down, across) in enumerate(((2, 1), (3, 1), (3, 2))):
        plane = f"document.querySelectorAll('#case-1 .plane')[{number}]"
        uri = page.evaluate(f"{plane}.querySelector('image').getAttribute('href')")
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
            columns, rows = image.size
        height, width = page.evaluate(f"(box => [box.height, box.width])({plane}.getBoundingClientRect())")
        assert height / width == pytest.approx(rows * down / (columns * across), rel=0.02)
        scales.add(round(height / (rows * down), 1))
    assert len(scales) == 1  # the planes of a case have one scale
