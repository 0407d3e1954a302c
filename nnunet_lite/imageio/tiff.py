"""What the two readers of TIFF files share: decoding, and what the tags say the axes are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.imageio.base_reader_writer import unreadable
from nnunet_lite.utilities.files import atomic_path, save_json


class TiffHeader(NamedTuple):
    """Shape of the first image series, and which of its axes are colours, as the tags say."""

    shape: tuple[int, ...]
    colour_axis: int | None  # 3 or 4 samples: the last axis, or the first where each colour has a plane of its own


def is_tiff(file: str) -> bool:
    """Whether the name is that of a TIFF file."""
    return file.lower().endswith((".tif", ".tiff"))


def read_tiff_header(file: str) -> TiffHeader:
    """Shape and kind of a TIFF file. Raises DatasetError."""
    return _open(file, with_voxels=False)[0]


def read_tiff(file: str) -> tuple[TiffHeader, NDArray[Any]]:
    """Header and voxels of a TIFF file. Raises DatasetError."""
    return _open(file, with_voxels=True)


def _open(file: str, with_voxels: bool) -> tuple[TiffHeader, NDArray[Any]]:
    if not Path(file).is_file():
        raise DatasetError(f"{file} does not exist")
    try:
        with tifffile.TiffFile(file) as content:
            series = content.series[0]
            axis = series.axes.rfind("S")
            header = TiffHeader(tuple(series.shape), axis if axis >= 0 and series.shape[axis] in (3, 4) else None)
            voxels = np.asarray(series.asarray()) if with_voxels else np.empty(0)
    except Exception as error:  # a damaged TIFF raises nearly anything
        raise unreadable(file, error) from error
    return header, voxels


def write_tiff(labels: NDArray[Any], output_fname: str, sidecar: tuple[str, Any] | None = None) -> None:
    """Write a label map, zlib-compressed and tagged as gray values whatever its last axis looks like.

    A sidecar (file, JSON content) appears just before the image: neither is ever there without the other's data.
    """
    with atomic_path(output_fname) as temporary:
        tifffile.imwrite(temporary, labels, compression="zlib", photometric="minisblack")
        if sidecar is not None:
            save_json(sidecar[1], sidecar[0])
