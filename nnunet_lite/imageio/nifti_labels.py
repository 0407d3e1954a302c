"""Writes label maps as NIfTI files that lie exactly where their image lies, for every program that looks at them.

A NIfTI header places its voxels twice (qform and sform), each with a code that says in which space, and has units. ITK
and nibabel each understand one placement and drop the rest, so the header itself is remembered with the image (348
bytes, `CaseProperties.nifti_header`) and given to its label map. Where that is impossible (properties made by nnU-Net
v2, an image of another format, a geometry changed meanwhile) a header is made from the geometry, as nnU-Net v2 does.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.imageio import nifti
from nnunet_lite.imageio.case_properties import CaseProperties
from nnunet_lite.utilities.files import atomic_path

_NEVER = 100  # above every level of severity that nibabel gives to a fault in a header
_SILENT = logging.Logger("nifti_labels", _NEVER)
_UNITS = {1: 1e3, 3: 1e-3}  # metres and micrometres, which ITK converts to millimetres
_OFFSET = 352  # of the first voxel: header, and a word that says "no extensions"
_GZIP = 31  # zlib's code for "a gzip stream"
_BLOCK = 2**24  # bytes compressed at once
_RELATIVE, _OF_A_VOXEL = 1e-5, 1e-4  # by how much two placements may differ and still be the same


def header_of(file: str) -> CaseProperties:
    """The header of a NIfTI-1 image; nothing for anything else."""
    header = nifti.raw_header(file)
    return CaseProperties() if header is None else CaseProperties(nifti_header=header)


def write_labels(
    labels: NDArray[Any],
    affine: NDArray[np.float64],
    output_fname: str,
    header: bytes | None = None,
    qform_code: int = 0,
    sform_code: int = 2,
) -> None:
    """Write labels (x, y, z) or (x, y), gzip-compressed if the name ends in .gz; complete or not at all.

    Args:
        affine: 4x4, RAS, of a voxel of `labels`.
        header: that of the image; used if it puts voxels where `affine` puts them.
        qform_code, sform_code: of a header that has to be made; code 0 leaves the qform out.

    Raises:
        StorageError: the file cannot be written.
    """
    kept = None if header is None else _reused(header, affine, labels.ndim)
    start = _new(affine, qform_code, sform_code) if kept is None else kept
    start.set_data_dtype(labels.dtype)
    start.set_data_shape(labels.shape)
    start["vox_offset"] = _OFFSET
    content = start.binaryblock.ljust(_OFFSET, b"\0")
    voxels = np.ascontiguousarray(labels.T).reshape(-1).view(np.uint8).data
    with atomic_path(output_fname) as temporary, temporary.open("wb") as stream:
        if not output_fname.lower().endswith(".gz"):
            stream.write(content)
            stream.write(voxels)
            return
        # Runs only: label maps are little else, and finding more takes twice as long.
        gzip = zlib.compressobj(wbits=_GZIP, strategy=zlib.Z_RLE)
        stream.write(gzip.compress(content))
        for first in range(0, len(voxels), _BLOCK):
            stream.write(gzip.compress(voxels[first : first + _BLOCK]))
        stream.write(gzip.flush())


def _new(affine: NDArray[np.float64], qform_code: int, sform_code: int) -> Any:
    """A header made from the geometry alone."""
    import nibabel as nib

    header = nib.Nifti1Header(endianness="<")
    header.set_qform(affine, qform_code)
    header.set_sform(affine, sform_code)
    if qform_code:
        header.set_xyzt_units("mm", "sec")
    return header


def _reused(header: bytes, affine: NDArray[np.float64], dimension: int) -> Any:
    """The image's header made fit for its label map, None if it places voxels elsewhere than `affine`."""
    import nibabel as nib

    kept = nib.Nifti1Header(header, check=False).as_byteswapped("<")
    kept.check_fix(logger=_SILENT, error_level=_NEVER)
    expected = affine[:dimension, [*range(dimension), 3]]
    tolerance = _RELATIVE * np.abs(expected) + _OF_A_VOXEL * np.linalg.norm(expected[:, :-1], axis=0).min()
    if not any(np.all(np.abs(placed - expected) <= tolerance) for placed in _placements(kept, dimension)):
        return None
    kept.set_slope_inter(1, 0)
    kept.set_intent("none")
    for field in ("cal_min", "cal_max", "aux_file", "db_name", "glmin", "glmax"):
        kept[field] = np.zeros_like(kept[field])
    return kept


def _placements(header: Any, dimension: int) -> Iterator[NDArray[np.float64]]:
    """All that programs read out of this header, (dimension, dimension + 1): nibabel, and ITK with its own scale."""
    affines = [header.get_best_affine()]
    if header["sform_code"] > 0:
        affines.append(header.get_sform())
    if header["qform_code"] > 0:
        affines.append(header.get_qform())
    if len(affines) == 1:
        affines.append(np.diag([-1.0, -1.0, 1.0, 1.0]))  # what ITK takes for unknown
    unit = _UNITS.get(int(header["xyzt_units"]) & 7, 1.0)
    steps = header["pixdim"][1 : dimension + 1].astype(np.float64)
    for affine in affines:
        placed = affine[:dimension, [*range(dimension), 3]]
        yield placed
        lengths = np.linalg.norm(placed[:, :-1], axis=0)
        placed[:, :-1] *= steps / np.where(lengths > 0, lengths, 1)
        yield placed
        yield placed * unit
