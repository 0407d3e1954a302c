"""NibabelIO and NibabelIOWithReorient: NIfTI through nibabel."""

from __future__ import annotations

import zlib
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
    unreadable,
)
from nnunet_lite.imageio.case_properties import CaseProperties
from nnunet_lite.utilities.files import atomic_path
from nnunet_lite.utilities.logging import logger

_DAMAGED = (ImageFileError, EOFError, OSError, ValueError, zlib.error)


class NibabelIO(BaseReaderWriter):
    """Array axes are nibabel's in reverse, (z, y, x), so they equal SimpleITKIO's; affines are RAS.

    A fourth dimension becomes channels.
    """

    supported_file_endings = (".nii", ".nii.gz")

    def read_header(self, file: str) -> ImageHeader:
        """Shape (c, z, y, x) and spacing (z, y, x)."""
        image = self._load(file)
        shape = tuple(reversed(image.shape))
        return ImageHeader(shape if len(shape) == 4 else (1, *shape), tuple(_spacing(image)))

    def _load(self, file: str) -> Any:
        """The nibabel image, its voxels still on disk, in the orientation they are handed out in."""
        try:
            image = nib.load(file)
        except FileNotFoundError as error:
            raise DatasetError(f"{file} does not exist") from error
        except _DAMAGED as error:
            raise unreadable(file, error) from error
        if len(image.shape) not in (3, 4):
            raise DatasetError(
                f"{file}: an image of {len(image.shape)} dimensions; {type(self).__name__} reads 3 (or 4, the last "
                'one being channels); set "overwrite_image_reader_writer": "SimpleITKIO" in dataset.json'
            )
        return image

    def _read_file(self, file: str) -> FileContent:
        image = self._load(file)
        nifti.require_intact_gzip(file)
        return self._content(image, file)

    def _content(self, image: Any, file: str) -> FileContent:
        voxels = _voxels(image, file)
        return FileContent(
            voxels, CaseProperties(nibabel_stuff={"original_affine": image.affine}, spacing=_spacing(image))
        )

    def write_seg(self, seg: NDArray[Any], output_fname: str, properties: CaseProperties) -> None:
        """Write (z, y, x) with the affine the image came with."""
        stored = as_stored_labels(seg, output_fname).transpose(2, 1, 0)
        _save(nib.Nifti1Image(stored, affine=_affine(properties, "original_affine", output_fname)), output_fname)


class NibabelIOWithReorient(NibabelIO):
    """Brings every image to the closest canonical (RAS+) orientation when reading, and label maps back when writing."""

    def read_header(self, file: str) -> ImageHeader:
        """Shape and spacing after reorientation."""
        image = self._load(file)
        axes = np.argsort(io_orientation(image.affine)[:, 0])[::-1]
        channels = image.shape[3] if len(image.shape) == 4 else 1
        zooms = image.header.get_zooms()
        return ImageHeader((channels, *(image.shape[a] for a in axes)), tuple(abs(float(zooms[a])) for a in axes))

    def _content(self, image: Any, file: str) -> FileContent:
        _require_orientation(image.affine, file)
        reoriented = nib.as_closest_canonical(image)
        stuff = {"original_affine": image.affine, "reoriented_affine": reoriented.affine}
        return FileContent(_voxels(reoriented, file), CaseProperties(nibabel_stuff=stuff, spacing=_spacing(reoriented)))

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
        _save(image, output_fname)


def _voxels(image: Any, file: str) -> NDArray[Any]:
    """(c, z, y, x) in the stored type, or scaled where the header says so."""
    try:
        voxels: NDArray[Any] = np.asanyarray(image.dataobj)
    except _DAMAGED as error:
        raise unreadable(file, error) from error
    voxels = voxels.T
    return voxels if voxels.ndim == 4 else voxels[None]


def _spacing(image: Any) -> list[float]:
    return [abs(float(step)) for step in image.header.get_zooms()[2::-1]]


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


def _save(image: Any, output_fname: str) -> None:
    with atomic_path(output_fname) as temporary:
        nib.save(image, temporary)
