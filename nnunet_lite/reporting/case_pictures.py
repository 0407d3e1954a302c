"""Pictures of one case: its image in three planes, and the outlines of reference and prediction."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.evaluation.metrics import LabelOrRegion, read_pair
from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter
from nnunet_lite.reporting.anatomical_planes import (
    Orientation,
    Plane,
    orientation_of,
    oriented,
    oriented_spacing,
    planes_of,
    section,
    shown_box,
)
from nnunet_lite.reporting.outlines import outline_path

MOST_PIXELS = 360  # of a side of a picture
_MOST_CLASSES = 24  # that are outlined in a plane
_OUTLINES = 36_000  # characters of all outlines of a plane together
_LOSSLESS = 128 * 128  # pixels up to which a picture is a PNG; JPEG is smaller for larger ones
_QUALITY = 82
_PERCENTILES = (0.5, 99.5)  # of a volume's intensities without its background; black and white
_SAMPLES = 2_000_000  # voxels of a volume that its percentiles are taken from

Window = tuple[float, float]  # the intensities shown black and white


class PictureTask(NamedTuple):
    """What is to be drawn; paths are files that exist."""

    reader: type[BaseReaderWriter]
    image: str | None  # file; None draws the outlines alone
    channel: int  # within the file
    reference: str
    prediction: str
    classes: tuple[LabelOrRegion, ...]
    ignore_label: int | None
    at_errors: bool  # show the slices with most errors, else those with most foreground


class Outline(NamedTuple):
    """One class in a plane: paths in voxels of the picture."""

    number: int  # of the class, from 0
    reference: str
    prediction: str


class Panel(NamedTuple):
    """One plane as it is shown."""

    plane: str
    letters: tuple[str, str, str, str]
    slice_number: int  # from 1, as it is stored
    slices: int
    voxels: tuple[int, int]  # rows, columns
    spacing: tuple[float, float]  # of rows and columns in mm
    image: str  # data URI, or ""
    is_small: bool  # few voxels, which may be seen as such
    outlines: tuple[Outline, ...]
    left_out: int  # classes without an outline
    ignored: str  # path around what is not annotated


def draw_case(task: PictureTask) -> list[Panel]:
    """Read a case and draw all its planes; task of a worker.

    Raises:
        DatasetError: a file cannot be read, or shapes differ.
    """
    reader = task.reader()
    pair = read_pair(task.reference, task.prediction, reader)
    properties = pair.reference_properties
    orientation = orientation_of(properties)
    reference, prediction = (oriented(labels[0], orientation) for labels in (pair.reference, pair.prediction))
    image = None
    if task.image is not None:
        image = _read_image(reader, task.image, task.channel, orientation)
        if image.shape[1:] != reference.shape:
            image = None
    foreground = _foreground(reference, task.classes) | _foreground(prediction, task.classes)
    wanted = foreground
    if task.at_errors:
        wrong = foreground & (reference != prediction)
        if task.ignore_label is not None:
            wrong &= reference != task.ignore_label
        wanted = wrong if wrong.any() else foreground
    spacing = oriented_spacing(properties["spacing"], orientation)
    window = gray_window(image[0]) if image is not None else (0.0, 1.0)
    panels = []
    for plane in planes_of(reference.shape, orientation):
        others = tuple(axis for axis in range(3) if axis != plane.axis)
        index = int(np.argmax(np.count_nonzero(wanted, axis=others)))
        box = shown_box(_upright(np.asarray(foreground.any(plane.axis)), plane))
        cut = _Cut(plane, index, box)
        panels.append(_panel(cut, image, window, reference, prediction, task, spacing, orientation))
    return panels


class _Cut(NamedTuple):
    plane: Plane
    place: int
    box: tuple[slice, slice]

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """The shown part of an oriented array."""
        return section(array, self.plane, self.place)[self.box]


def _upright(flat: NDArray[Any], plane: Plane) -> NDArray[Any]:
    return flat[::-1] if plane.flip_rows else flat


def _read_image(reader: BaseReaderWriter, file: str, channel: int, orientation: Orientation) -> NDArray[Any]:
    """(1 or 3 for colours, superior, posterior, left)."""
    data, _ = reader.read_images([file])
    is_colour = type(reader).__name__ == "NaturalImage2DIO" and data.shape[0] in (3, 4) and channel == 0
    chosen = data[:3] if is_colour else data[min(channel, len(data) - 1)][None]
    return (
        np.stack([oriented(one, orientation) for one in chosen])
        if is_colour
        else oriented(chosen[0], orientation)[None]
    )


def _foreground(labels: NDArray[Any], classes: Sequence[LabelOrRegion]) -> NDArray[np.bool_]:
    members = sorted({label for entry in classes for label in _members(entry)})
    highest = int(labels.max(initial=0))
    if labels.dtype == np.uint8 or 0 <= highest < 2**16 and labels.min(initial=0) >= 0:
        known = np.zeros(max(256, highest + 1), bool)
        known[[label for label in members if label < len(known)]] = True
        return np.asarray(known[labels])
    return np.isin(labels, members)


def _members(entry: LabelOrRegion) -> tuple[int, ...]:
    return entry if isinstance(entry, tuple) else (entry,)


def _panel(
    cut: _Cut,
    image: NDArray[Any] | None,
    window: Window,
    reference: NDArray[Any],
    prediction: NDArray[Any],
    task: PictureTask,
    spacing: tuple[float, float, float],
    orientation: Orientation,
) -> Panel:
    shown_reference, shown_prediction = cut.of(reference), cut.of(prediction)
    rows, columns = shown_reference.shape
    outlines, left_out = _outlines(shown_reference, shown_prediction, task.classes)
    ignored = "" if task.ignore_label is None else outline_path(shown_reference == task.ignore_label)
    axis, slices = cut.plane.axis, reference.shape[cut.plane.axis]
    stored = slices - 1 - cut.place if orientation.flips[axis] else cut.place
    between = [size for other, size in enumerate(spacing) if other != axis]
    return Panel(
        cut.plane.name,
        cut.plane.letters,
        stored + 1,
        slices,
        (rows, columns),
        (between[0], between[1]),
        "" if image is None else _data_uri(np.stack([cut.of(channel) for channel in image], -1), window),
        rows * columns <= _LOSSLESS,
        outlines,
        left_out,
        ignored,
    )


def _outlines(
    reference: NDArray[Any], prediction: NDArray[Any], classes: Sequence[LabelOrRegion]
) -> tuple[tuple[Outline, ...], int]:
    """Of the classes in a plane those with most errors, and how many others there are."""
    found = []
    for index, entry in enumerate(classes):
        masks = [np.isin(labels, _members(entry)) for labels in (reference, prediction)]
        if masks[0].any() or masks[1].any():
            found.append((int(np.count_nonzero(masks[0] != masks[1])), index, masks))
    found.sort(key=lambda one: (-one[0], one[1]))
    kept = sorted(found[:_MOST_CLASSES], key=lambda one: one[1])
    longest = _OUTLINES // (2 * max(3, len(kept)))
    outlines = [Outline(index, *(outline_path(mask, longest) for mask in masks)) for _, index, masks in kept]
    return tuple(outlines), len(found) - len(kept)


def gray_window(volume: NDArray[Any]) -> Window:
    """The intensities that all planes of a volume show black and white, so that planes of air are dark.

    Without the background, the voxels of lowest value; of large volumes every second, third ... voxel along each axis.
    """
    step = max(1, math.ceil((volume.size / _SAMPLES) ** (1 / 3)))
    values = np.asarray(volume[tuple(slice(None, None, step) for _ in volume.shape)], np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    inner = values[values > values.min()]
    if not inner.size:  # all alike
        return float(values[0]), float(values[0]) + 1.0
    low, high = (float(value) for value in np.percentile(inner, _PERCENTILES))
    return (low, high) if high > low else (float(values.min()), high)


def _data_uri(plane: NDArray[Any], window: Window) -> str:
    """A plane (rows, columns, 1 or 3) as a small PNG or JPEG; the window is for gray."""
    from PIL import Image

    if plane.shape[2] == 1:
        low, high = window
        gray = np.nan_to_num(plane[..., 0].astype(np.float64), nan=low, posinf=high, neginf=low)
        pixels = (np.clip(gray, low, high) - low) * (255 / (high - low))
    else:
        values = np.nan_to_num(plane.astype(np.float64))
        highest = float(values.max(initial=1))
        pixels = np.clip(values * (1 if highest <= 255 else 255 / highest), 0, 255)
    picture = Image.fromarray(np.ascontiguousarray(pixels.astype(np.uint8)))
    if max(picture.size) > MOST_PIXELS:
        share = MOST_PIXELS / max(picture.size)
        size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    content = io.BytesIO()
    kind = "png" if plane.shape[0] * plane.shape[1] <= _LOSSLESS else "jpeg"
    if kind == "png":
        picture.save(content, "PNG", optimize=True)
    else:
        picture.save(content, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
