"""NibabelIO and NibabelIOWithReorient: NIfTI through nibabel."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import io_orientation, ornt_transform
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
from nnunet_lite.utilities.logging import logger

_DAMAGED = (ImageFileError, EOFError, OSError, ValueError, zlib.error)


class NibabelIO(BaseReaderWriter):
    """Array axes are nibabel's in reverse, (z, y, x), so they equal SimpleITKIO's; affines are RAS.

    A fourth dimension, colours or the vectors of a five-dimensional image become channels.
    """

    supported_file_endings = (".nii", ".nii.gz")

    def read_header(self, file: str) -> ImageHeader:
        """Shape (c, z, y, x) and spacing (z, y, x)."""
        image = self._load(file)
        return ImageHeader((_channels(image), *reversed(image.shape[:3])), tuple(_spacing(image, file)))

    def _load(self, file: str) -> Any:
        """The nibabel image, its voxels still on disk, in the orientation they are handed out in."""
        try:
            if file.endswith(".GZ"):  # for nibabel a file that is not compressed
                image = nib.Nifti1Image.from_bytes(gzip.decompress(Path(file).read_bytes()))
            else:
                image = nib.load(file)
        except FileNotFoundError as error:
            raise DatasetError(f"{file} does not exist") from error
        except _DAMAGED as error:
            raise unreadable(file, error) from error
        shape = image.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        several = len(shape) == 4 or (len(shape) == 5 and shape[3] == 1)
        if len(shape) != 3 and not several:
            raise DatasetError(
                f"{file}: an image of {len(shape)} dimensions; {type(self).__name__} reads 3, or 4 of which the last "
                "are channels (2D images are read by SimpleITKIO; of a time series save one file per channel)"
            )
        return image

    def _read_file(self, file: str) -> FileContent:
        image = self._load(file)
        nifti.require_intact_gzip(file)
        return self._content(image, file)

    def _content(self, image: Any, file: str) -> FileContent:
        return FileContent(_voxels(image, file), _properties(image, {"original_affine": image.affine}, file))

    def properties_for_writing(self, file: str) -> CaseProperties:
        """The header of the image."""
        return header_of(file)

    def write_seg(self, seg: NDArray[Any], output_fname: str, properties: CaseProperties) -> None:
        """Write (z, y, x) with the affine the image came with."""
        stored = as_stored_labels(seg, output_fname).transpose(2, 1, 0)
        affine = _affine(properties, "original_affine", output_fname)
        write_labels(stored, affine, output_fname, properties.get("nifti_header"))


class NibabelIOWithReorient(NibabelIO):
    """Brings every image to the closest canonical (RAS+) orientation when reading, and label maps back when writing."""

    def read_header(self, file: str) -> ImageHeader:
        """Shape and spacing after reorientation."""
        image = self._load(file)
        _require_orientation(image.affine, file)
        axes = np.argsort(io_orientation(image.affine)[:, 0])[::-1]
        spacing = _spacing(image, file)[::-1]
        return ImageHeader((_channels(image), *(image.shape[a] for a in axes)), tuple(spacing[a] for a in axes))

    def _content(self, image: Any, file: str) -> FileContent:
        _require_orientation(image.affine, file)
        reoriented = nib.as_closest_canonical(image)
        stuff = {"original_affine": image.affine, "reoriented_affine": reoriented.affine}
        return FileContent(_voxels(reoriented, file), _properties(reoriented, stuff, file))

    def write_seg(self, seg: NDArray[Any], output_fname: str, properties: CaseProperties) -> None:
        """Write (z, y, x), turned back to the orientation the image came in."""
        stored = as_stored_labels(seg, output_fname).transpose(2, 1, 0)
        original = _affine(properties, "original_affine", output_fname)
        image = nib.Nifti1Image(stored, affine=_affine(properties, "reoriented_affine", output_fname))
        image = image.as_reoriented(ornt_transform(io_orientation(image.affine), io_orientation(original)))
        if not np.allclose(image.affine, original):
            logger.warning(
                "%s: its affine after turning it back differs from the image's: %s instead of %s",
                output_fname,
                image.affine.tolist(),
                np.asarray(original).tolist(),
            )
        write_labels(np.asanyarray(image.dataobj), image.affine, output_fname, properties.get("nifti_header"))


def _voxels(image: Any, file: str) -> NDArray[Any]:
    """(c, z, y, x) in the stored type, or scaled where the header says so."""
    try:
        voxels: NDArray[Any] = np.asanyarray(image.dataobj)
    except _DAMAGED as error:
        raise unreadable(file, error) from error
    require_real(voxels, file)
    if voxels.dtype.names is not None:
        voxels = np.stack([voxels[name] for name in voxels.dtype.names], axis=-1)
    by_channel: NDArray[Any] = voxels.reshape((*image.shape[:3], _channels(image)), order="A").T
    return by_channel


def _channels(image: Any) -> int:
    colours = image.get_data_dtype().names
    return int(np.prod(image.shape[3:])) * (1 if colours is None else len(colours))


def _properties(image: Any, stuff: dict[str, Any], file: str) -> CaseProperties:
    """Of an image as it is handed out."""
    return CaseProperties(nibabel_stuff=stuff, spacing=_spacing(image, file))


def _spacing(image: Any, file: str) -> list[float]:
    spacing = [abs(float(step)) for step in image.header.get_zooms()[2::-1]]
    if not (np.isfinite(spacing).all() and min(spacing) > 0):
        raise DatasetError(f"{file}: spacing {spacing}; every step must be above 0, correct pixdim in the header")
    return spacing


def _require_orientation(affine: NDArray[np.float64], file: str) -> None:
    if not np.isfinite(io_orientation(affine)).all():
        raise DatasetError(f"{file}: its affine lacks the direction of some axis; correct the header (sform/qform)")


def _affine(properties: CaseProperties, key: str, output_fname: str) -> Any:
    affine = properties.get("nibabel_stuff", {}).get(key)
    if affine is None:
        raise DatasetError(
            f"{output_fname}: its image was not read by this reader ({key} is unknown); use the reader the plans name"
        )
    return affine
