"""One slice with its labels in colour: which slice, which colours, how they are blended, and the PNG."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.utilities.files import PathLike, atomic_path

COLOR_CYCLE = (  # black, then colours that are easily told apart (nnU-Net v2 2.8.1)
    *("000000", "4363d8", "f58231", "3cb44b", "e6194B", "911eb4", "ffe119", "bfef45"),
    *("42d4f4", "f032e6", "000075", "9A6324", "808000", "800000", "469990"),
)
_GOLDEN_ANGLE = 0.381966  # of a full turn: successive hues never come close to one another
_PERCENTILES = (0.5, 99.5)  # of a slice's intensities; what lies outside is shown black and white
_STAMP = "nnunet_lite"  # key of the text in the PNG that says what it was made of
_NAMES_PER_COLUMN = 24


class Slice(NamedTuple):
    """What a picture shows."""

    image: NDArray[Any]  # (y, x), or (y, x, 3) for colours
    labels: NDArray[Any]  # (y, x)
    title: str = ""
    aspect: float = 1.0  # height of a voxel by its width


def select_slice_to_plot(image: NDArray[Any], segmentation: NDArray[Any]) -> int:
    """Index along the first axis of the slice with most foreground voxels (the first of several; 0 without any).

    Args:
        image, segmentation: (z, y, x); the image is not looked at.
    """
    return int(np.argmax(np.count_nonzero(segmentation > 0, axis=(1, 2))))


def select_slice_to_plot2(image: NDArray[Any], segmentation: NDArray[Any]) -> int:
    """Index along the first axis of the slice that shows most of every class (spec 03, 8.4; 0 without foreground).

    Args:
        image, segmentation: (z, y, x); the image is not looked at.
    """
    counts = _counts_by_slice(segmentation)
    if not counts.shape[1]:
        return 0
    shares, earlier = np.empty(counts.shape), 0.0
    for k, total in enumerate(counts.sum(axis=0)):
        shares[:, k] = counts[:, k] / (total + earlier)
        earlier += float(total / (total + earlier))
    return int(np.argmax(shares.mean(axis=1)))


def _counts_by_slice(segmentation: NDArray[Any]) -> NDArray[np.int64]:
    """Voxels by slice and class above 0 that occurs; slice by slice, since counting makes 64-bit copies."""
    size = max(0, int(segmentation.max(initial=0))) + 1
    rows = [np.bincount(np.maximum(plane, 0).ravel().astype(np.intp), minlength=size) for plane in segmentation]
    counts = np.asarray(rows, dtype=np.int64).reshape(len(rows), size)
    counts = counts[:, 1:]
    return counts[:, counts.any(axis=0)]


def hex_to_rgb(hex: str) -> tuple[int, ...]:
    """(red, green, blue) of "4363d8"."""
    return tuple(int(hex[i : i + 2], 16) for i in (0, 2, 4))


def label_colour(label: int, color_cycle: Sequence[str] = COLOR_CYCLE) -> tuple[int, ...]:
    """The colour of a label, the same in every picture; black only for 0.

    Labels beyond the default cycle get hues of their own; a cycle of one's own starts again after its first entry.
    """
    if label <= 0:
        return (0, 0, 0)
    if label < len(color_cycle):
        return hex_to_rgb(color_cycle[label])
    if color_cycle != COLOR_CYCLE:
        return hex_to_rgb(color_cycle[1 + (label - 1) % (len(color_cycle) - 1) if len(color_cycle) > 1 else 0])
    turn = label - len(color_cycle)
    colour = colorsys.hsv_to_rgb(turn * _GOLDEN_ANGLE % 1, (1.0, 0.55, 0.8)[turn % 3], (1.0, 0.9, 0.65)[turn % 3])
    return tuple(round(255 * part) for part in colour)


def generate_overlay(
    input_image: NDArray[Any],
    segmentation: NDArray[Any],
    mapping: Mapping[int, int] | None = None,
    color_cycle: Sequence[str] = COLOR_CYCLE,
    overlay_intensity: float = 0.6,
) -> NDArray[np.uint8]:
    """Add colours to a slice (spec 03, 8.4 and 11.12); returns (y, x, 3) uint8, scaled so that its maximum is 255.

    Args:
        input_image: (y, x), or (y, x, 3) for a colour image; its minimum becomes 0, its maximum 255 before blending.
        segmentation: (y, x) label map.
        mapping: label -> index in the cycle, others stay uncoloured; without it a label's number decides.
        color_cycle: hexadecimal colours.
        overlay_intensity: factor of the colours, which are added.

    Raises:
        DatasetError: image and labels have different shapes.
    """
    if input_image.shape[:2] != segmentation.shape or input_image.shape[2:] not in ((), (3,)):
        raise DatasetError(
            f"The slice has shape {list(input_image.shape)}, its labels {list(segmentation.shape)}; expected (y, x) or "
            "(y, x, 3) and (y, x)"
        )
    picture = np.array(input_image if input_image.ndim == 3 else input_image[..., None].repeat(3, 2), dtype=np.float64)
    _scale(picture)
    for label in np.unique(segmentation[segmentation > 0] if mapping is None else segmentation).tolist():
        if mapping is None:
            colour = label_colour(label, color_cycle)
        elif label in mapping:
            colour = hex_to_rgb(color_cycle[mapping[label] % len(color_cycle)])
        else:
            continue
        picture[segmentation == label] += overlay_intensity * np.array(colour)
    highest = picture.max(initial=0)
    return np.asarray(picture / highest * 255 if highest > 0 else picture, dtype=np.uint8)


def _scale(picture: NDArray[np.float64]) -> None:
    """Bring a picture to 0 ... 255 in place; a constant one becomes black."""
    picture -= picture.min(initial=np.inf)
    highest = picture.max(initial=0)
    if highest > 0:
        picture *= 255 / highest


def windowed(plane: NDArray[Any]) -> NDArray[np.float64]:
    """A gray slice without its extreme intensities, which would leave the rest without contrast; NaN becomes 0."""
    values = np.nan_to_num(np.asarray(plane, dtype=np.float64))
    low, high = np.percentile(values, _PERCENTILES)
    return np.asarray(np.clip(values, low, high)) if high > low else values


def contours(labels: NDArray[Any]) -> NDArray[Any]:
    """The labels at the rim of their regions, inside them, 0 elsewhere."""
    padded = np.pad(labels, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    inner = np.logical_and.reduce([labels == neighbour for neighbour in neighbours])
    return np.where(inner, 0, labels)


def save_picture(picture: NDArray[np.uint8], file: PathLike, stamp: str) -> None:
    """Write (y, x, 3) as a PNG of the same size, opaque RGBA as upstream's, with a note of what it was made of."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    note = PngInfo()
    note.add_text(_STAMP, stamp)
    with atomic_path(file) as temporary:
        Image.fromarray(picture).convert("RGBA").save(temporary, format="PNG", pnginfo=note)


def save_picture_with_legend(
    picture: NDArray[np.uint8], shown: Slice, names: Mapping[int, str], file: PathLike, stamp: str
) -> None:
    """Write the picture in its true proportions, enlarged, with its title and the names of the labels it shows."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    labels = [label for label in np.unique(shown.labels).tolist() if label > 0]
    patches = [
        Patch(color=np.array(label_colour(label)) / 255, label=f"{label} {names.get(label, '')}") for label in labels
    ]
    columns = -(-len(patches) // _NAMES_PER_COLUMN)
    figure = Figure(figsize=(6 + 2.2 * columns, 6), layout="constrained")
    panel = figure.subplots()
    panel.imshow(picture, aspect=shown.aspect, interpolation="nearest")
    panel.set(xticks=[], yticks=[], title=shown.title)
    if patches:
        figure.legend(handles=patches, loc="outside right upper", ncols=columns, fontsize=8, frameon=False)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=110, metadata={_STAMP: stamp})


def stamp_of(file: PathLike) -> str | None:
    """The note in a picture, or None if there is no such picture or it was made otherwise."""
    from PIL import Image

    if not Path(file).is_file():
        return None
    try:
        with Image.open(file) as picture:
            note = picture.info.get(_STAMP)
    except (OSError, ValueError, SyntaxError):
        return None
    return None if note is None else str(note)
