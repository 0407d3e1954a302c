"""SimpleITKIO and SimpleITKIOWithReorient: NIfTI, NRRD, MetaImage and GIPL in two to four dimensions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.imageio import nifti
from nnunet_lite.imageio.base_reader_writer import (
    BaseReaderWriter,
    FileContent,
    ImageHeader,
    as_stored_labels,
    require_real,
    unreadable,
)
from nnunet_lite.imageio.case_properties import CaseProperties
from nnunet_lite.imageio.nifti_labels import header_of, write_labels
from nnunet_lite.utilities.files import atomic_path
from nnunet_lite.utilities.logging import logger

_SLICE_SPACING = 999.0  # factor for the missing axis of 2D images: no plan will ever resample along it
_AXES = ("RL", "AP", "SI")


@cache
def _simpleitk() -> Any:
    """SimpleITK, imported when it is first needed: a process that only looks at headers saves 100 MB."""
    return import_module("SimpleITK")


class _Geometry(NamedTuple):
    """Of an image of n dimensions: ITK's values, x first, LPS."""

    spacing: Sequence[float]  # n
    origin: Sequence[float]  # n
    direction: Sequence[float]  # n * n, by rows


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
        if header is not None and header.plain:
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
        require_real(voxels, file)
        dimension, components = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
        if dimension == 4 and components > 1:
            raise DatasetError(f"{file}: {components} components per voxel in four dimensions; expected one of the two")
        return FileContent(_channels_first(voxels, dimension, components), _properties(image))

    def properties_for_writing(self, file: str) -> CaseProperties:
        """Of a NIfTI image, its header."""
        return header_of(file)

    def write_seg(self, seg: NDArray[Any], output_fname: str, properties: CaseProperties) -> None:
        """Write (z, y, x) with the stored geometry, compressed; the label map of a 2D image becomes a 2D file."""
        stored, geometry = _stored_and_geometry(seg, output_fname, properties)
        if nifti.is_nifti(output_fname):
            _write_nifti(stored, geometry, output_fname, properties)
        else:
            _write_image(_image(stored, geometry), output_fname)


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
        stored, geometry = _stored_and_geometry(seg, output_fname, properties)
        original = properties["sitk_stuff"].get("original_orientation", self._orientation)
        image = _simpleitk().DICOMOrient(_image(stored, geometry), original)
        if nifti.is_nifti(output_fname):
            turned = _Geometry(image.GetSpacing(), image.GetOrigin(), image.GetDirection())
            _write_nifti(_simpleitk().GetArrayViewFromImage(image), turned, output_fname, properties)
        else:
            _write_image(image, output_fname)


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
    _require_geometry(reader, file)
    return reader


def _read_image(file: str) -> Any:
    try:
        image = _simpleitk().ReadImage(file)
    except RuntimeError as error:
        raise _explained(file, error) from error
    _require_geometry(image, file)
    return image


def _require_geometry(image: Any, file: str) -> None:
    if not 2 <= image.GetDimension() <= 4:
        raise DatasetError(
            f"{file}: an image of {image.GetDimension()} dimensions; expected 2, 3, or 4 of which the last are channels"
        )
    if not np.isfinite(image.GetDirection()).all():
        raise DatasetError(
            f"{file}: the directions of its axes in its header (sform/qform) are NaN or infinite; correct them"
        )


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
    if nifti.is_nifti2(file):
        return DatasetError(
            f"{file}: a NIfTI-2 file, which SimpleITK does not read; save it as NIfTI-1 or set "
            '"overwrite_image_reader_writer": "NibabelIO" in dataset.json'
        )
    if nifti.is_nifti(file):
        try:
            nifti.require_intact_gzip(file)
        except DatasetError as damage:
            return damage
    lines = str(error).splitlines()
    lines = [line for line in lines if "Exception thrown" not in line and "sitkImageReader" not in line] or lines
    reason = " ".join(lines).replace("sitk::ERROR:", "").replace("ITK ERROR:", "")
    reason = re.sub(r"\(0x[0-9a-f]+\)", "", reason).partition("Reason: No such file")[0]  # the file is there
    return unreadable(file, RuntimeError(reason))


def _stored_and_geometry(
    seg: NDArray[Any], output_fname: str, properties: CaseProperties
) -> tuple[NDArray[Any], _Geometry]:
    """The labels in the type and with the dimensions they are written in, (z, y, x) or (y, x), and their geometry."""
    stuff = properties.get("sitk_stuff")
    if stuff is None:
        raise DatasetError(
            f"{output_fname}: its image was not read by SimpleITK, so SimpleITKIO does not know its geometry; "
            "use the reader that the plans name"
        )
    stored = as_stored_labels(seg, output_fname)
    dimension = min(3, len(stuff["spacing"]))
    geometry = _Geometry(
        stuff["spacing"][:dimension], stuff["origin"][:dimension], _submatrix(stuff["direction"], dimension)
    )
    return stored[0] if dimension == 2 else stored, geometry


def _image(voxels: NDArray[Any], geometry: _Geometry, is_vector: bool = False) -> Any:
    image = _simpleitk().GetImageFromArray(voxels, isVector=is_vector)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    return image


def _write_image(image: Any, output_fname: str) -> None:
    with atomic_path(output_fname) as temporary:
        _simpleitk().WriteImage(image, str(temporary), True)


def _write_nifti(labels: NDArray[Any], geometry: _Geometry, output_fname: str, properties: CaseProperties) -> None:
    """Write labels (z, y, x) or (y, x) without ITK, which drops half of the header and is silent on a full disk."""
    dimension = len(geometry.spacing)
    affine = np.eye(4)
    affine[:dimension, :dimension] = np.reshape(geometry.direction, (dimension, dimension)) * geometry.spacing
    affine[:dimension, 3] = geometry.origin
    affine[:2] *= -1  # from ITK's LPS to RAS
    write_labels(labels.T, affine, output_fname, properties.get("nifti_header"), qform_code=1, sform_code=1)


def _image_of(content: FileContent, file: str) -> Any:
    """The ITK image (a vector image if it has channels) of what was read; it must be 3D."""
    geometry = _Geometry(**content.properties["sitk_stuff"])
    _require_3d(len(geometry.spacing), file)
    several = content.voxels.shape[0] > 1
    return _image(np.moveaxis(content.voxels, 0, -1) if several else content.voxels[0], geometry, several)


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
    spacing = np.array(_spatial(image.GetSpacing()))
    direction = np.reshape(_submatrix(image.GetDirection(), len(spacing)), (len(spacing), len(spacing)))
    return CaseProperties(
        sitk_stuff={
            "spacing": tuple(np.abs(spacing).tolist()),
            "origin": tuple(_spatial(image.GetOrigin())),
            "direction": tuple((direction * np.where(spacing < 0, -1, 1)).ravel().tolist()),
        },
        spacing=list(_array_spacing(spacing[::-1].tolist())),
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
