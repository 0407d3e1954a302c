"""The interface of all readers and writers, and what they share: stacking of channels and the types of label maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.imageio.case_properties import CaseProperties
from nnunet_lite.utilities.logging import logger

_RTOL, _ATOL = 1e-5, 1e-8  # of comparisons between the geometries of two files


class ImageHeader(NamedTuple):
    """What a file says about its image before any voxel is read."""

    shape: tuple[int, ...]  # (c, x, y, z)
    spacing: tuple[float, ...]  # (x, y, z)


class FileContent(NamedTuple):
    """One file as read: its voxels (c, x, y, z) in their own type, and its geometry."""

    voxels: NDArray[Any]
    properties: CaseProperties


class BaseReaderWriter(ABC):
    """Reads images and label maps of some file formats and writes label maps with the geometry of an image.

    A reader of one's own implements `_read_file` (or, as with upstream, `read_images` and `read_seg`) and `write_seg`.
    properties["spacing"] is required; anything else in the properties is private to the reader and comes back to its
    `write_seg` unchanged.
    """

    supported_file_endings: tuple[str, ...] = ()

    def read_images(self, image_fnames: Sequence[str]) -> tuple[NDArray[np.float32], CaseProperties]:
        """Read all channels of a case.

        Args:
            image_fnames: one file per channel, or fewer where a file holds several channels.

        Returns:
            float32 (c, x, y, z) and the properties of the first file.

        Raises:
            DatasetError: a file cannot be read, or shape or spacing of two files differ.
        """
        first, *others = image_fnames
        content = self._read_file(first)
        if not others:
            return np.require(content.voxels, np.float32, ["C", "W"]), content.properties
        channels = content.voxels.shape[0]
        data = np.empty((channels * len(image_fnames), *content.voxels.shape[1:]), dtype=np.float32)
        data[:channels] = content.voxels
        for i, file in enumerate(others, start=1):
            other = self._read_file(file)
            require_same_geometry(first, content, file, other)
            data[i * channels : (i + 1) * channels] = other.voxels
        return data, content.properties

    def properties_for_writing(self, file: str) -> CaseProperties:
        """What a label map shall share with this image beyond the properties that upstream knows.

        Asked for where label maps are written; what is stored of training cases has upstream's keys alone.
        """
        return CaseProperties()

    def read_images_unaltered(self, image_fnames: Sequence[str]) -> tuple[NDArray[np.float32], CaseProperties]:
        """As read_images, with NaN and infinity left in where a reader otherwise replaces them."""
        return self.read_images(image_fnames)

    def read_seg(self, seg_fname: str) -> tuple[NDArray[np.integer[Any]], CaseProperties]:
        """Read a label map as integers, (1, x, y, z), in the narrowest common type its file allows.

        Raises:
            DatasetError: the file cannot be read, has several channels or holds values that are not whole numbers.
        """
        content = self._read_label_file(seg_fname)
        if content.voxels.shape[0] != 1:
            raise DatasetError(
                f"{seg_fname}: {content.voxels.shape[0]} values per voxel (colours or channels); a label map has one, "
                "the number of its label"
            )
        return as_labels(content.voxels, seg_fname), content.properties

    def _read_file(self, file: str) -> FileContent:
        """Read one file completely. Raises DatasetError with one line that names the file."""
        raise NotImplementedError(f"{type(self).__name__} implements neither _read_file nor read_images and read_seg")

    def _read_label_file(self, file: str) -> FileContent:
        """As _read_file, for formats in which labels are stored otherwise than images."""
        return self._read_file(file)

    def read_header(self, file: str) -> ImageHeader:
        """Shape and spacing of one file, without reading its voxels where the format allows. Raises DatasetError."""
        data, properties = self.read_images([file])
        return ImageHeader(data.shape, tuple(properties["spacing"]))

    @abstractmethod
    def write_seg(self, seg: NDArray[Any], output_fname: str, properties: CaseProperties) -> None:
        """Write a label map (x, y, z) with the geometry that `properties` remember; complete or not at all.

        Stored as uint8 if no label exceeds 254, else as uint16.

        Raises:
            DatasetError: a label does not fit into uint16, or the geometry is of another reader.
            StorageError: the file cannot be written.
        """

    def companion_files(self, seg_fname: str) -> list[str]:
        """Files besides `seg_fname` that belong to it and must be copied along, such as a spacing sidecar."""
        return []


def require_same_geometry(first: str, content: FileContent, file: str, other: FileContent) -> None:
    """Raise DatasetError with both values if shape (exactly) or spacing of two channel files differ."""
    shape, properties = content.voxels.shape, content.properties
    if shape != other.voxels.shape:
        raise DatasetError(
            f"{file}: shape {list(other.voxels.shape)} (channels first) differs from {list(shape)} of {first}; "
            "all channels of a case must lie on one voxel grid, resample them before"
        )
    if not spacings_agree(properties["spacing"], other.properties["spacing"]):
        raise DatasetError(
            f"{file}: spacing {rounded(other.properties['spacing'])} differs from {rounded(properties['spacing'])} "
            f"of {first}; all channels of a case must lie on one voxel grid, resample them before"
        )
    for key in ("origin", "direction"):
        here, there = (p.get("sitk_stuff", {}).get(key, ()) for p in (properties, other.properties))
        if not spacings_agree(here, there):
            logger.warning(
                "%s: %s %s differs from %s of %s",
                file,
                key,
                rounded(there),
                rounded(here),
                first,
                extra={"kind": f"channel-{key}", "file": file},
            )
    here, there = (p.get("nibabel_stuff", {}).get("original_affine", ()) for p in (properties, other.properties))
    if not spacings_agree(np.ravel(here).tolist(), np.ravel(there).tolist()):
        logger.warning(
            "%s: its affine differs from that of %s", file, first, extra={"kind": "channel-direction", "file": file}
        )


def spacings_agree(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two spacings (or origins, directions) are equal up to rounding."""
    return len(first) == len(second) and bool(np.allclose(first, second, rtol=_RTOL, atol=_ATOL))


def rounded(values: Iterable[float]) -> list[float]:
    """Numbers for a message: eight significant digits tell apart what the comparison tells apart."""
    return [float(f"{value:.8g}") for value in values]


def as_labels(values: NDArray[Any], file: str) -> NDArray[np.integer[Any]]:
    """The voxels of a label file as integers of at most 32 bits (64 where a value needs them), C-ordered, writable.

    Raises:
        DatasetError: a value is not a whole number; names it.
    """
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        return np.require(values, values.dtype.newbyteorder("="), ["C", "W"])
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DatasetError(f"{file}: NaN or infinity in a label map; every voxel needs the whole number of its label")
    labels = values.astype(_integer_type(int(low), int(high)), order="C")
    if values.dtype.kind == "f" and not np.array_equal(labels, values):
        strange = float(values[labels != values].flat[0])
        raise DatasetError(f"{file}: {strange:.6g} in a label map; every voxel needs the whole number of its label")
    return labels


def _integer_type(low: int, high: int) -> type[np.integer[Any]]:
    for candidate in (np.int16, np.int32):
        if np.iinfo(candidate).min <= low and high <= np.iinfo(candidate).max:
            return candidate
    return np.int64


def as_stored_labels(seg: NDArray[Any], output_fname: str) -> NDArray[Any]:
    """A label map (x, y, z) in the type it is written in: uint8 up to 254, else uint16 (nnU-Net v2 2.8.1 behaviour).

    Raises:
        DatasetError: not three axes, or a label is negative or above 65535 and would be stored as another one.
    """
    if seg.ndim != 3:
        raise DatasetError(f"{output_fname}: a label map of shape {list(seg.shape)}; expected 3 axes (x, y, z)")
    low, high = (int(seg.min()), int(seg.max())) if seg.size else (0, 0)
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise DatasetError(f"{output_fname}: labels from {low} to {high}; only 0 to 65535 can be written")
    return np.ascontiguousarray(seg, dtype=np.uint8 if high < 255 else np.uint16)


def require_real(voxels: NDArray[Any], file: str) -> None:
    """Raise DatasetError for complex numbers, of which only the real part would be used."""
    if voxels.dtype.kind == "c":
        raise DatasetError(f"{file}: complex numbers; save magnitude and phase (or what you need) as channels")


def unreadable(file: str, error: Exception, advice: str = "") -> DatasetError:
    """One line for a file that some library could not read."""
    reason = " ".join(str(error).split()) or type(error).__name__
    advice = advice or "it may be truncated or of another format than its name says; replace it"
    return DatasetError(f"{file} cannot be read ({reason[:200]}); {advice}")
