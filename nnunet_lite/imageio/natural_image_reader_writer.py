"""NaturalImage2DIO: gray and colour images in two dimensions (PNG, BMP, TIFF)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.imageio.base_reader_writer import (
    BaseReaderWriter,
    FileContent,
    ImageHeader,
    as_stored_labels,
    unreadable,
)
from nnunet_lite.imageio.case_properties import CaseProperties
from nnunet_lite.imageio.tiff import is_tiff, read_tiff, read_tiff_header, write_tiff
from nnunet_lite.utilities.files import atomic_path
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.memory import format_size, memory_limit

_DAMAGED = (OSError, ValueError, SyntaxError)  # what Pillow raises for one
_OPENING = threading.Lock()
_SPACING = (999.0, 1.0, 1.0)  # pixels have no size; the first axis does not exist


class NaturalImage2DIO(BaseReaderWriter):
    """Gray images become (1, 1, y, x), colour images (3 or 4, 1, y, x).

    JPEG is left out on purpose: lossy compression changes labels. There is no mapping of 255 to 1.
    """

    supported_file_endings = (".png", ".bmp", ".tif")

    def read_header(self, file: str) -> ImageHeader:
        """Shape (c, 1, y, x) and the constant spacing."""
        if is_tiff(file):
            header = read_tiff_header(file)
            shape = header.shape if header.colour_axis is None else _colours_last(header.shape, header.colour_axis)
            return ImageHeader((_channels(shape, header.colour_axis is not None, file), 1, *shape[:2]), _SPACING)
        with _opened(file) as image:
            bands = len(image.palette.mode) if image.palette else len(image.getbands())
            size = (image.height, image.width)
        return ImageHeader((_channels(size if bands == 1 else (*size, bands), True, file), 1, *size), _SPACING)

    def _read_file(self, file: str) -> FileContent:
        return _content(file, as_colours=True)

    def _read_label_file(self, file: str) -> FileContent:
        """Of an image with a palette, the indices are the labels, not the colours."""
        return _content(file, as_colours=False)

    def write_seg(self, seg: NDArray[Any], output_fname: str, properties: CaseProperties) -> None:
        """Write slice 0 of (1, y, x)."""
        stored = as_stored_labels(seg, output_fname)[0]
        if is_tiff(output_fname):
            write_tiff(stored, output_fname)
            return
        if stored.dtype != np.uint8 and output_fname.lower().endswith(".bmp"):
            raise DatasetError(f"{output_fname}: label {int(stored.max())} in a .bmp, which ends at 254; use .png")
        with atomic_path(output_fname) as temporary:
            Image.fromarray(stored).save(temporary)


@contextlib.contextmanager
def _opened(file: str) -> Iterator[Image.Image]:
    """An image whose header has been read; what Pillow raises, now or while its pixels are read, becomes one line."""
    try:
        with _open(file) as image:
            yield image
    except FileNotFoundError as error:
        raise DatasetError(f"{file} does not exist") from error
    except DatasetError:
        raise
    except _DAMAGED as error:
        raise unreadable(file, error) from error


def _open(file: str) -> Image.Image:
    """Open without Pillow's limit of 179 million pixels, which a slide may well have; see `_require_memory`."""
    with _OPENING:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _require_memory(image: Image.Image, file: str) -> None:
    """Refuse an image that cannot be held: a small file may claim any number of pixels."""
    values = image.width * image.height * len(image.getbands())
    if 5 * values > memory_limit():  # a byte and a float32 of each
        raise DatasetError(
            f"{file}: {image.width} x {image.height} pixels, which take {format_size(5 * values)} of memory, more than "
            f"there is ({format_size(memory_limit())}); cut the image into parts, or replace it if that size is wrong"
        )


def _content(file: str, as_colours: bool) -> FileContent:
    if is_tiff(file):
        header, pixels = read_tiff(file)
        if header.colour_axis is not None:
            pixels = np.moveaxis(pixels, header.colour_axis, -1)
        _channels(pixels.shape, header.colour_axis is not None, file)
    else:
        pixels = _pixels(file, as_colours)
        _channels(pixels.shape, True, file)
    voxels = pixels[None, None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)[:, None]
    return FileContent(voxels, CaseProperties(spacing=list(_SPACING)))


def _pixels(file: str, as_colours: bool) -> NDArray[Any]:
    """Pixels (y, x) or (y, x, c) of anything but a TIFF."""
    with _opened(file) as image:
        _require_memory(image, file)
        if image.format == "PNG" and len(image.getbands()) > 1 and _bits_per_colour(file) == 16:
            logger.warning("%s: 16 bits per colour, of which 8 are used; save it as .tif to keep them", file)
        palette = image.palette if image.mode == "P" and as_colours else None
        return np.asarray(image.convert(palette.mode) if palette else image)


def _bits_per_colour(png_file: str) -> int:
    with Path(png_file).open("rb") as stream:
        return stream.read(25)[24]


def _colours_last(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :], shape[axis])


def _channels(shape: tuple[int, ...], colour: bool, file: str) -> int:
    """Number of channels. Raises DatasetError unless the image is gray, RGB or RGBA."""
    if len(shape) == 2:
        return 1
    if len(shape) == 3 and colour and shape[-1] in (3, 4):
        return shape[-1]
    raise DatasetError(
        f"{file}: shape {list(shape)}; NaturalImage2DIO reads gray (y, x), RGB and RGBA images "
        "(3D stacks: Tiff3DIO; gray with transparency: save it without; several channels: one gray file for each)"
    )
