"""SimpleITKIO and SimpleITKIOWithReorient: NIfTI, NRRD, MetaImage and GIPL in two to four dimensions."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.imageio import nifti
from nnunet_lite.imageio.base_reader_writer import (
    BaseReaderWriter,
    FileContent,
    ImageHeader,
    as_stored_labels,
    unreadable,
)
from nnunet_lite.imageio.case_properties import CaseProperties
from nnunet_lite.utilities.files import atomic_path
from nnunet_lite.utilities.logging import logger

_SLICE_SPACING = 999.0  # factor for the missing axis of 2D images: no plan will ever resample along it
_AXES = ("RL", "AP", "SI")


@cache
def _simpleitk() -> Any:
    """SimpleITK, imported when it is first needed: a process that only looks at headers saves 100 MB."""
    return import_module("SimpleITK")


class SimpleITKIO(BaseReaderWriter):
    """Array axes are ITK's in reverse, (z, y, x); a fourth dimension or vector components become channels.

    Geometry is ITK's own (spacing, origin and direction in x, y, z order, LPS) and is written back unchanged.
    """

    supported_file_endings = (".nii.gz", ".nrrd", ".mha", ".gipl")

    def read_images(self, image_fnames: Sequence[str]) -> tuple[NDArray[np.float32], CaseProperties]:
        """Read all channels of a case; NaN and infinity of NIfTI files become 0, as ITK has it, with a warning."""
        data, properties = super().read_images(image_fnames)
        if nifti.is_nifti(image_fnames[0]) and not (np.isfinite(data.min()) and np.isfinite(data.max())):
            strange = ~np.isfinite(data)
            data[strange] = 0
            logger.warning("%s: %d voxels of NaN or infinity were set to 0", image_fnames[0], int(strange.sum()))
        return data, properties

    def read_images_unaltered(self, image_fnames: Sequence[str]) -> tuple[NDArray[np.float32], CaseProperties]:
        """As read_images, with NaN and infinity left in."""
        return super().read_images(image_fnames)

    def read_header(self, file: str) -> ImageHeader:
        """Shape (c, z, y, x) and spacing (z, y, x); a NIfTI file is looked at without loading SimpleITK."""
        header = nifti.read_header(file) if nifti.is_nifti(file) else None
        if header is not None:
            shape, spacing, components = header.shape, header.spacing[-3:], 1
        else:
            reader = _read_information(file)
            shape, components = tuple(reversed(reader.GetSize())), reader.GetNumberOfComponents()
            spacing = tuple(reversed(_spatial(reader.GetSpacing())))
        if len(shape) == 4:
            components, shape = components * shape[0], shape[1:]
        return ImageHeader((components, *([1] * (3 - len(shape))), *shape), _array_spacing(spacing))

    def _read_file(self, file: str) -> FileContent:
        header = nifti.read_header(file) if nifti.is_nifti(file) else None
        if header is None or header.scaled:
            if nifti.is_nifti(file):
                nifti.require_intact_gzip(file)
            return self._content(_read_image(file), file)
        reader = _read_information(file)
        stored = tuple(reversed(reader.GetSize()))
        if stored != header.shape or reader.GetNumberOfComponents() != 1:
            nifti.require_intact_gzip(file)
            return self._content(_read_image(file), file)
        voxels = nifti.read_voxels(file, header)
        return FileContent(_channels_first(voxels, len(stored), 1), _properties(reader))

    def _content(self, image: Any, file: str) -> FileContent:
        voxels = _simpleitk().GetArrayFromImage(image)
        dimension, components = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
        if dimension == 4 and components > 1:
            raise DatasetError(f"{file}: {components} components per voxel in four dimensions; expected one of the two")
        return FileContent(_channels_first(voxels, dimension, components), _properties(image))

    def write_seg(self, seg: NDArray[Any], output_fname: str, properties: CaseProperties) -> None:
        """Write (z, y, x) with the stored geometry, compressed; the label map of a 2D image becomes a 2D file."""
        _write_image(self._labelled_image(seg, output_fname, properties), output_fname)

    def _labelled_image(self, seg: NDArray[Any], output_fname: str, properties: CaseProperties) -> Any:
        geometry = properties.get("sitk_stuff")
        if geometry is None:
            raise DatasetError(
                f"{output_fname}: its image was not read by SimpleITK, so SimpleITKIO does not know its geometry; "
                "use the reader that the plans name"
            )
        stored = as_stored_labels(seg, output_fname)
        dimension = min(3, len(geometry["spacing"]))
        image = _simpleitk().GetImageFromArray(stored[0] if dimension == 2 else stored)
        image.SetSpacing(geometry["spacing"][:dimension])
        image.SetOrigin(geometry["origin"][:dimension])
        image.SetDirection(_submatrix(geometry["direction"], dimension))
        return image


class SimpleITKIOWithReorient(SimpleITKIO):
    """Reorients every image to RAS when reading, and label maps back when writing.

    "RAS" is SimpleITK's name for it; the geometry that is remembered is that of the reoriented image.
    """

    _orientation = "RAS"

    def read_header(self, file: str) -> ImageHeader:
        """Shape and spacing after reorientation."""
        channels, *shape = (stored := super().read_header(file)).shape
        reader = _read_information(file)
        _require_3d(reader.GetDimension(), file)
        code = _orientation_code(reader)
        axes = [2 - next(i for i, letter in enumerate(code) if letter in pair) for pair in reversed(_AXES)]
        return ImageHeader((channels, *(shape[a] for a in axes)), tuple(stored.spacing[a] for a in axes))

    def _read_file(self, file: str) -> FileContent:
        content = super()._read_file(file)
        image = _image_of(content, file)
        original = _orientation_code(image)
        content = self._content(_simpleitk().DICOMOrient(image, self._orientation), file)
        content.properties["sitk_stuff"]["original_orientation"] = original
        return content

    def write_seg(self, seg: NDArray[Any], output_fname: str, properties: CaseProperties) -> None:
        """Write (z, y, x), turned back to the orientation the image came in."""
        image = self._labelled_image(seg, output_fname, properties)
        original = properties["sitk_stuff"].get("original_orientation", self._orientation)
        _write_image(_simpleitk().DICOMOrient(image, original), output_fname)


def _read_information(file: str) -> Any:
    """An ITK reader that has read the header only."""
    reader = _simpleitk().ImageFileReader()
    if nifti.is_nifti(file):
        reader.SetImageIO("NiftiImageIO")  # otherwise every format is tried first
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _explained(file, error) from error
    if not 2 <= reader.GetDimension() <= 4:
        raise DatasetError(f"{file}: an image of {reader.GetDimension()} dimensions; expected 2, 3 or 4")
    return reader


def _read_image(file: str) -> Any:
    try:
        return _simpleitk().ReadImage(file)
    except RuntimeError as error:
        raise _explained(file, error) from error


def _explained(file: str, error: RuntimeError) -> DatasetError:
    """One line out of ITK's several."""
    if not Path(file).is_file():
        return DatasetError(f"{file} does not exist")
    if "orthonormal" in str(error):
        return DatasetError(
            f"{file}: the direction vectors of its header are not orthonormal (a sheared image), which SimpleITK "
            'refuses; correct the header (sform/qform) or set "overwrite_image_reader_writer": "NibabelIO" '
            "in dataset.json"
        )
    if nifti.is_nifti(file):
        try:
            nifti.require_intact_gzip(file)
        except DatasetError as damage:
            return damage
    lines = str(error).splitlines()
    lines = [line for line in lines if "Exception thrown" not in line and "sitkImageReader" not in line] or lines
    reason = " ".join(lines).replace("sitk::ERROR:", "").replace("ITK ERROR:", "")
    return unreadable(file, RuntimeError(reason))


def _write_image(image: Any, output_fname: str) -> None:
    with atomic_path(output_fname) as temporary:
        _simpleitk().WriteImage(image, str(temporary), True)
        if nifti.is_nifti(output_fname) and not nifti.is_complete(str(temporary)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _image_of(content: FileContent, file: str) -> Any:
    """The ITK image (a vector image if it has channels) of what was read; it must be 3D."""
    geometry = content.properties["sitk_stuff"]
    _require_3d(len(geometry["spacing"]), file)
    several = content.voxels.shape[0] > 1
    voxels = np.moveaxis(content.voxels, 0, -1) if several else content.voxels[0]
    image = _simpleitk().GetImageFromArray(voxels, isVector=several)
    image.SetSpacing(geometry["spacing"])
    image.SetOrigin(geometry["origin"])
    image.SetDirection(geometry["direction"])
    return image


def _require_3d(dimension: int, file: str) -> None:
    if dimension == 2:
        raise DatasetError(f"{file}: a 2D image has no orientation to bring to RAS; use SimpleITKIO")


def _orientation_code(image: Any) -> str:
    direction = _submatrix(image.GetDirection(), 3)
    return str(_simpleitk().DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction))


def _channels_first(voxels: NDArray[Any], dimension: int, components: int) -> NDArray[Any]:
    """(c, z, y, x) of an array as ITK hands it out: slowest axis first, vector components last."""
    if components > 1:
        voxels = np.moveaxis(voxels, -1, 0)
    elif dimension < 4:
        voxels = voxels[None]
    return voxels[:, None] if dimension == 2 else voxels


def _properties(image: Any) -> CaseProperties:
    """Geometry of an ITK image or reader; of four dimensions the spatial three are kept."""
    spacing = tuple(_spatial(image.GetSpacing()))
    return CaseProperties(
        sitk_stuff={
            "spacing": spacing,
            "origin": tuple(_spatial(image.GetOrigin())),
            "direction": _submatrix(image.GetDirection(), len(spacing)),
        },
        spacing=list(_array_spacing(spacing[::-1])),
    )


def _array_spacing(spacing: Sequence[float]) -> tuple[float, ...]:
    """Three positive numbers, slowest axis first; a missing slice axis gets one far above the others."""
    steps = [abs(float(step)) for step in spacing]
    return tuple(steps if len(steps) == 3 else [max(steps) * _SLICE_SPACING, *steps])


def _spatial(values: Sequence[Any]) -> Sequence[Any]:
    return values[:3]


def _submatrix(direction: Sequence[float], dimension: int) -> tuple[float, ...]:
    """Row-major direction matrix cut down to its first `dimension` rows and columns."""
    edge = int(round(len(direction) ** 0.5))
    return tuple(np.reshape(direction, (edge, edge))[:dimension, :dimension].ravel().tolist())
