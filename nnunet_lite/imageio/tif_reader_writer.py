"""Tiff3DIO: 3D TIFF stacks with their spacing in a .json file beside them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter, FileContent, ImageHeader, as_stored_labels
from nnunet_lite.imageio.case_properties import CaseProperties
from nnunet_lite.imageio.tiff import TiffHeader, is_tiff, read_tiff, read_tiff_header, write_tiff
from nnunet_lite.utilities.files import load_json
from nnunet_lite.utilities.logging import logger

_CHANNEL = re.compile(r"_\d{4}$")


class Tiff3DIO(BaseReaderWriter):
    """Reads (x, y, z) stacks in the axis order of the file.

    TIFF cannot hold the spacing of three axes, so `<CASE>.json` beside `<CASE>_0000.tif` and beside the label map
    `<CASE>.tif` says {"spacing": [x, y, z]} in array order (nnU-Net v2 2.8.1 behaviour); without it 1, 1, 1 is taken.
    """

    supported_file_endings = (".tif", ".tiff")

    def read_header(self, file: str) -> ImageHeader:
        """Shape (1, x, y, z) and spacing (x, y, z)."""
        header = read_tiff_header(file)
        _require_3d(header, file)
        return ImageHeader((1, *header.shape), tuple(_spacing(file)))

    def _read_file(self, file: str) -> FileContent:
        header, voxels = read_tiff(file)
        _require_3d(header, file)
        return FileContent(voxels[None], CaseProperties(spacing=_spacing(file)))

    def write_seg(self, seg: NDArray[Any], output_fname: str, properties: CaseProperties) -> None:
        """Write (x, y, z), compressed, and its spacing beside it."""
        if not is_tiff(output_fname):
            raise DatasetError(f"{output_fname}: Tiff3DIO writes .tif and .tiff files")
        stored = as_stored_labels(seg, output_fname)
        sidecar = (_without_ending(output_fname) + ".json", {"spacing": list(properties["spacing"])})
        write_tiff(stored, output_fname, sidecar)

    def companion_files(self, seg_fname: str) -> list[str]:
        """The spacing file of a label map, if there is one."""
        sidecar = _without_ending(seg_fname) + ".json"
        return [sidecar] if Path(sidecar).is_file() else []


def _without_ending(file: str) -> str:
    return str(Path(file).with_suffix(""))


def _spacing(file: str) -> list[float]:
    """Spacing from the sidecar: `<file>.json`, or that of the case if the file is one of its channels."""
    base = _without_ending(file)
    sidecars = [Path(f"{name}.json") for name in dict.fromkeys((_CHANNEL.sub("", base), base))]
    sidecar = next((candidate for candidate in sidecars if candidate.is_file()), None)
    if sidecar is None:
        logger.warning('%s: no %s with {"spacing": [x, y, z]}, spacing 1, 1, 1 is assumed', file, sidecars[0].name)
        return [1.0, 1.0, 1.0]
    try:
        spacing = [float(step) for step in load_json(sidecar)["spacing"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f'{sidecar}: expected {{"spacing": [x, y, z]}} with three numbers ({error})') from error
    if len(spacing) != 3 or not all(step > 0 for step in spacing):
        raise DatasetError(f"{sidecar}: spacing {spacing}; expected three numbers above 0, in the order of the axes")
    return spacing


def _require_3d(header: TiffHeader, file: str) -> None:
    if len(header.shape) == 3 and header.colour_axis == 2:
        raise DatasetError(
            f"{file}: a colour image of {header.shape[0]} x {header.shape[1]} pixels; Tiff3DIO reads stacks of gray "
            'slices; name 2D images .tif or set "overwrite_image_reader_writer": "NaturalImage2DIO" in dataset.json '
            '(a stack that was saved as colours: save it again with photometric="minisblack")'
        )
    if len(header.shape) != 3:
        raise DatasetError(
            f"{file}: a TIFF of shape {list(header.shape)}; Tiff3DIO reads stacks of three axes and one value per "
            "voxel, one file per channel (2D images: file ending .tif or .png and NaturalImage2DIO)"
        )
