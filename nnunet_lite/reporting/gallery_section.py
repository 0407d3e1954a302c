"""The pictures of cases on the page: planes side by side, outlines above the image, a legend with Dice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nnunet_lite.evaluation.metrics import LabelOrRegion
from nnunet_lite.reporting.case_pictures import Panel
from nnunet_lite.reporting.case_results import CaseResult
from nnunet_lite.reporting.markup import Markup, element, score
from nnunet_lite.reporting.outlines import colours_of_class

_KINDS = ("reference", "prediction")
_EDGES = ("left", "right", "top", "bottom")
_WIDTH, _HEIGHT = 1080.0, 400.0  # pixels that the planes of a case may take together
_PERIOD, _GOLDEN = 8.5, 0.618  # of dashes (report.css), pixels; classes begin apart, or one would hide another
_HEIGHT_ALONE = 460.0  # of a single plane


class DrawnCase(NamedTuple):
    """A case with its pictures, or with the reason why there are none."""

    case: CaseResult
    panels: Sequence[Panel]
    fault: str = ""


def gallery_section(
    groups: Sequence[tuple[str, Sequence[DrawnCase]]],
    classes: Sequence[LabelOrRegion],
    names: Mapping[LabelOrRegion, str],
) -> Markup:
    """Headings with cases below them, and the switch that hides outlines."""
    parts = [_explanation(groups), _switch()]
    number = 0
    for heading, cases in groups:
        if not cases:
            continue
        parts.append(element("h3", heading))
        for drawn in cases:
            number += 1
            parts.append(_case(drawn, number, classes, names))
    return element("div", *parts, class_="gallery", data_outlines="both")


def _explanation(groups: Sequence[tuple[str, Sequence[DrawnCase]]]) -> Markup:
    panels = [panel for _, cases in groups for drawn in cases for panel in drawn.panels]
    anatomical = any(panel.letters[0] for panel in panels)
    convention = (
        "Radiological convention: the patient's right (R) is on the left of axial and coronal pictures; sagittal ones "
        "are seen from the left side, anterior (A) to the left; superior (S) is on top. "
        if anatomical
        else "The images say nothing of the patient's orientation, or have none: they are shown as they are stored. "
    )
    return element(
        "p",
        "Reference: solid line. Prediction: dashed line. ",
        convention,
        "Proportions are true. Each plane is cut to what is segmented, with some margin; slices count from 1.",
    )


def _switch() -> Markup:
    choices = [("both", "both"), ("reference", "reference"), ("prediction", "prediction"), ("none", "image alone")]
    buttons = [
        element(
            "label",
            element("input", type="radio", name="outlines", value=value, checked=value == "both"),
            element("span", word),
        )
        for value, word in choices
    ]
    return element("fieldset", element("legend", "Outlines"), *buttons, class_="switch")


def _case(
    drawn: DrawnCase, number: int, classes: Sequence[LabelOrRegion], names: Mapping[LabelOrRegion, str]
) -> Markup:
    case = drawn.case
    fold = "" if case.fold is None else f", fold {case.fold}"
    title = element("h4", case.name, element("span", f" mean Dice {score(case.mean)}{fold}", class_="note"))
    if drawn.fault:
        return element("article", title, element("p", f"Not drawn: {drawn.fault}", class_="note"), id=f"case-{number}")
    pixels = _pixels_per_millimetre(drawn.panels)
    indices = sorted({outline.number for panel in drawn.panels for outline in panel.outlines})
    entries = [
        element(
            "li",
            _swatch(index, len(classes)),
            f"{names.get(classes[index], classes[index])} {score(case.dice.get(classes[index]))}",
        )
        for index in indices
    ]
    left_out = max((panel.left_out for panel in drawn.panels), default=0)
    note = f"Up to {left_out} further classes of a plane, with fewer errors, have no outline." if left_out else None
    if any(panel.ignored for panel in drawn.panels):
        entries.append(element("li", element("span", "", class_="ignored-sample"), "not annotated (ignore)"))
    return element(
        "article",
        title,
        element("div", *[_panel(panel, case.name, pixels, names, classes) for panel in drawn.panels], class_="planes"),
        element("ul", *entries, class_="legend") if entries else None,
        element("p", note, class_="note") if note else None,
        id=f"case-{number}",
    )


def _swatch(number: int, classes: int) -> Markup:
    """A solid and a dashed line in the colours of a class."""
    lines = [
        element("rect", width="44", height="16", rx="3", fill="#000"),
        *[
            element("path", d=f"M4 {y}h36", stroke=colour, class_=kind)
            for kind, y, colour in zip(_KINDS, (5, 11), colours_of_class(number, classes), strict=True)
        ],
    ]
    drawing = element("g", *lines, class_="outlines")
    return element("svg", drawing, viewBox="0 0 44 16", width="44", height="16", aria_hidden="true")


def _pixels_per_millimetre(panels: Sequence[Panel]) -> float:
    """One scale for all planes of a case."""
    widths = [panel.voxels[1] * panel.spacing[1] for panel in panels]
    heights = [panel.voxels[0] * panel.spacing[0] for panel in panels]
    return min(_WIDTH / sum(widths), (_HEIGHT if len(panels) > 1 else _HEIGHT_ALONE) / max(heights))


def _panel(
    panel: Panel,
    case: str,
    pixels: float,
    names: Mapping[LabelOrRegion, str],
    classes: Sequence[LabelOrRegion],
) -> Markup:
    rows, columns = panel.voxels
    down, across = panel.spacing[0] * pixels, panel.spacing[1] * pixels
    size = {"width": f"{columns * across:.2f}", "height": f"{rows * down:.2f}"}
    drawing: list[Markup] = [element("rect", **size, fill="#000")]
    if panel.image:
        drawing.append(
            element(
                "image",
                href=panel.image,
                **size,
                preserveAspectRatio="none",
                class_="voxels" if panel.is_small else None,
            )
        )
    lines = [element("path", d=panel.ignored, class_="ignored")] if panel.ignored else []
    for which, kind in enumerate(_KINDS):
        for outline in panel.outlines:
            path = getattr(outline, kind)
            if path:
                colour = colours_of_class(outline.number, len(classes))[which]
                words = f"{names.get(classes[outline.number], classes[outline.number])} ({kind})"
                phase = f"{_PERIOD * (_GOLDEN * outline.number % 1):.2f}" if kind == "prediction" else None
                lines.append(
                    element(
                        "path", element("title", words), d=path, stroke=colour, stroke_dashoffset=phase, class_=kind
                    )
                )
    drawing.append(element("g", *lines, transform=f"scale({across:.6g} {down:.6g})", class_="outlines"))
    where = f"{panel.plane}, slice {panel.slice_number} of {panel.slices}" if panel.slices > 1 else panel.plane
    words = f"{case}, {where}: outlines of reference and prediction"
    box = f"0 0 {size['width']} {size['height']}"
    picture = element("svg", *drawing, viewBox=box, **size, role="img", aria_label=words)
    letters = [
        element("span", letter, class_=f"edge {edge}", aria_hidden="true")
        for letter, edge in zip(panel.letters, _EDGES, strict=True)
        if letter
    ]
    return element("figure", element("div", picture, *letters, class_="plane"), element("figcaption", where))
