"""NaturalImage2DIO: gray and colour images in two dimensions (PNG, BMP, TIFF)."""

from __future__ import annotations

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
    as_labels,
    as_stored_labels,
    unreadable,
)
from nnunet_lite.imageio.case_properties import CaseProperties
from nnunet_lite.imageio.tiff import is_tiff, read_tiff, read_tiff_header, write_tiff
from nnunet_lite.utilities.files import atomic_path

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
            shape, colour = header.shape, header.is_colour
        else:
            with _opened(file) as image:
                bands = len(image.palette.mode) if image.palette else len(image.getbands())
                shape, colour = (image.height, image.width, *([bands] if bands > 1 else [])), True
        channels = _channels(shape, colour, file)
        return ImageHeader((channels, 1, *shape[:2]), _SPACING)

    def _read_file(self, file: str) -> FileContent:
        return _content(*_pixels(file, as_colours=True), file)

    def read_seg(self, seg_fname: str) -> tuple[NDArray[np.integer[Any]], CaseProperties]:
        """Read a label map as integers (1, 1, y, x); of an image with a palette, the indices are the labels."""
        content = _content(*_pixels(seg_fname, as_colours=False), seg_fname)
        if content.voxels.shape[0] != 1:
            raise DatasetError(
                f"{seg_fname}: a colour image of {content.voxels.shape[0]} channels; a label map has one gray value "
                "per pixel, the number of its label"
            )
        return as_labels(content.voxels, seg_fname), content.properties

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


def _opened(file: str) -> Image.Image:
    try:
        return Image.open(file)
    except FileNotFoundError as error:
        raise DatasetError(f"{file} does not exist") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise unreadable(file, error) from error


def _pixels(file: str, as_colours: bool) -> tuple[NDArray[Any], bool]:
    """Pixels (y, x) or (y, x, c), and whether a third axis may be colours."""
    if is_tiff(file):
        header, pixels = read_tiff(file)
        return pixels, header.is_colour
    try:
        with _opened(file) as image:
            palette = image.palette if image.mode == "P" and as_colours else None
            return np.asarray(image.convert(palette.mode) if palette else image), True
    except (OSError, ValueError, SyntaxError) as error:
        raise unreadable(file, error) from error


def _content(pixels: NDArray[Any], colour: bool, file: str) -> FileContent:
    _channels(pixels.shape, colour, file)
    voxels = pixels[None, None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)[:, None]
    return FileContent(voxels, CaseProperties(spacing=list(_SPACING)))


def _channels(shape: tuple[int, ...], colour: bool, file: str) -> int:
    """Number of channels. Raises DatasetError unless the image is gray, RGB or RGBA."""
    if len(shape) == 2:
        return 1
    if len(shape) == 3 and colour and shape[-1] in (3, 4):
        return shape[-1]
    raise DatasetError(
        f"{Path(file)}: shape {list(shape)}; NaturalImage2DIO reads gray (y, x), RGB and RGBA images "
        "(3D stacks: Tiff3DIO; gray with transparency: save it without)"
    )
