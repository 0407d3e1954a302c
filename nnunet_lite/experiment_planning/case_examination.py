"""One look at one raw case: what is wrong with it, and what the fingerprint needs to know. Runs in a worker."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.experiment_planning.intensity_statistics import IntensitySummary, summarize
from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter, rounded, spacings_agree
from nnunet_lite.imageio.case_properties import CaseProperties
from nnunet_lite.plans.case_files import RawCase
from nnunet_lite.plans.faults import Fault
from nnunet_lite.preprocessing.cropping import nonzero_bounding_box
from nnunet_lite.utilities.arrays import box_shape, slices
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.wording import counted

_CHUNK = 2**20  # voxels that are counted at once
_COUNTABLE = 2**16  # range of labels up to which counting is an array indexed by label
_LISTED = 10  # values listed in a finding

Image = tuple[NDArray[np.float32], CaseProperties]


class Questions(NamedTuple):
    """What is to be found out about every case."""

    num_channels: int | None  # as dataset.json says; None: it does not say
    labels: tuple[int, ...] | None  # allowed, the ignore label among them; None: do not compare with these
    summary_size: int  # points per channel kept of the intensities; 0: no fingerprint wanted
    is_check: bool = True  # look at everything; False: only at what makes a fingerprint impossible


class CaseReport(NamedTuple):
    """What was found; small, because it travels between processes. Without a fingerprint its four parts are empty."""

    findings: list[Fault]
    shape: tuple[int, ...] = ()  # (x, y, z) of the image as stored
    spacing: tuple[float, ...] = ()
    digests: Mapping[str, str] = {}  # of the voxels of each file that is not constant
    label_counts: Mapping[int, int] | None = None  # voxels of each label
    shape_after_crop: tuple[int, ...] = ()
    relative_size: float = 1.0
    intensities: tuple[IntensitySummary, ...] = ()


def examine_case(case: RawCase, reader_class: type[BaseReaderWriter], questions: Questions) -> CaseReport:
    """Read every file of a case once and answer the questions; nothing is raised for what is wrong with the case.

    Args:
        case: its files; those known to be missing left out.
        reader_class: reads them.
        questions: what to find out.
    """
    with _collected_warnings(case) as findings:
        reader = reader_class()
        image = _read_image(case, reader, findings)
        label = _read_label(case, reader, findings)
        if image is not None:
            findings += _faults_of_image(case, image, questions)
        counts = None
        if label is not None and questions.is_check:
            counts = count_labels(label[0])
            findings += _faults_of_label(case, label[0], counts, questions.labels)
        if image is not None and label is not None:
            findings += _faults_of_pair(case, image, label)
        report = CaseReport(findings, label_counts=counts)
        if image is None:
            return report
        data, properties = image
        report = report._replace(shape=data.shape[1:], spacing=tuple(float(step) for step in properties["spacing"]))
        if questions.is_check:
            findings += _constant_channels(case, data)
            report = report._replace(digests=_digests(case, data))
        if label is None or not questions.summary_size or any(finding.is_fault for finding in findings):
            return report
        return _described(report, data, label[0], questions.summary_size)


def _described(report: CaseReport, data: NDArray[np.float32], seg: NDArray[Any], summary_size: int) -> CaseReport:
    """Geometry after cropping to the nonzero region and the foreground's intensities within it.

    Foreground is every label above 0, the ignore label included (nnU-Net v2 2.8.1 behaviour).
    """
    box = nonzero_bounding_box(data)
    foreground = seg[0][slices(box)] > 0
    return report._replace(
        shape_after_crop=box_shape(box),
        relative_size=math.prod(box_shape(box)) / math.prod(data.shape[1:]),
        intensities=tuple(summarize(channel[slices(box)][foreground], summary_size) for channel in data),
    )


def _read_image(case: RawCase, reader: BaseReaderWriter, findings: list[Fault]) -> Image | None:
    if not case.images:
        return None
    try:
        return reader.read_images_unaltered(case.images)
    except DatasetError as error:
        found = _faults_of_single_files(case, reader) if len(case.images) > 1 else []
        findings += found or [_unreadable("image-unreadable", case, case.images[0], error)]
    return None


def _unreadable(kind: str, case: RawCase, file: str, error: DatasetError) -> Fault:
    """The reader's message, cut into what was found and the advice that follows."""
    if Path(file).is_file() and Path(file).stat().st_size == 0:
        return Fault(kind, "the file is empty (0 bytes)", case=case.identifier, file=file)
    text = str(error).removeprefix(file).lstrip(": ").replace(f' for "{file}"', "").replace(f"{file} ", "")
    found, _, advice = text.partition("; ")
    return Fault(kind, found, case=case.identifier, file=file, repair=advice)


def _faults_of_single_files(case: RawCase, reader: BaseReaderWriter) -> list[Fault]:
    """Look at each file alone, now that they cannot be read together: what is unreadable, what does not fit."""
    found: list[Fault] = []
    grids: dict[str, tuple[tuple[int, ...], list[float]]] = {}
    for file in case.images:
        try:
            data, properties = reader.read_images_unaltered([file])
        except DatasetError as error:
            found.append(_unreadable("image-unreadable", case, file, error))
        else:
            grids[file] = data.shape, properties["spacing"]
    first = next(iter(grids), None)
    for file, (shape, spacing) in grids.items():
        if first is None or file == first:
            continue
        first_shape, first_spacing = grids[first]
        if shape != first_shape:
            expected = f"{list(first_shape)} as {Path(first).name}"
            found.append(
                Fault("channel-shape", f"shape {list(shape)} (channels first)", expected, case.identifier, file)
            )
        if not spacings_agree(spacing, first_spacing):
            expected = f"{rounded(first_spacing)} as {Path(first).name}"
            found.append(Fault("channel-spacing", f"spacing {rounded(spacing)}", expected, case.identifier, file))
    return found


def _read_label(
    case: RawCase, reader: BaseReaderWriter, findings: list[Fault]
) -> tuple[NDArray[Any], CaseProperties] | None:
    if case.label is None:
        return None
    try:
        seg, properties = reader.read_seg(case.label)
    except DatasetError as error:
        findings.append(_strange_values(case, reader) or _unreadable("label-unreadable", case, case.label, error))
        return None
    if seg.shape[0] != 1:
        found = f"{seg.shape[0]} values per voxel (colours or channels)"
        findings.append(Fault("label-channels", found, "1", case.identifier, case.label))
        return None
    return seg, properties


def _strange_values(case: RawCase, reader: BaseReaderWriter) -> Fault | None:
    """Why a file that reads as an image is no label map: several channels, or values that are no whole numbers."""
    file = str(case.label)
    try:
        values, _ = reader.read_images_unaltered([file])
    except DatasetError:
        return None
    if values.shape[0] != 1:
        return Fault(
            "label-channels", f"{values.shape[0]} values per voxel (colours or channels)", "1", case.identifier, file
        )
    finite = np.isfinite(values)
    strange = values[finite & (values != np.round(values))]
    numbers = dict(zip(*(part.tolist() for part in np.unique(strange, return_counts=True)), strict=True))
    if not finite.all():
        numbers["NaN or infinity"] = int(np.count_nonzero(~finite))
    if not numbers:
        return None
    return Fault(
        "label-not-integer",
        f"holds {_counted(numbers)}",
        "whole numbers",
        case.identifier,
        file,
        "resample label maps with nearest neighbours" if finite.all() else "",
        {"voxels": dict(list(numbers.items())[:100])},
    )


def _counted(counts: Mapping[Any, int]) -> str:
    """0.5 (3 voxels), 1.5 (1 voxel)."""
    listed = [f"{value:.6g}" if isinstance(value, float) else str(value) for value in list(counts)[:_LISTED]]
    shown = [f"{value} ({_voxels(count)})" for value, count in zip(listed, counts.values(), strict=False)]
    return ", ".join(shown) + (f" and {len(counts) - _LISTED} more values" if len(counts) > _LISTED else "")


def _voxels(number: int) -> str:
    return f"{number} voxel{'' if number == 1 else 's'}"


def _faults_of_image(case: RawCase, image: Image, questions: Questions) -> Iterator[Fault]:
    data, properties = image
    if questions.num_channels is not None and data.shape[0] != questions.num_channels:
        files = f" in {len(case.images)} file{'s' if len(case.images) > 1 else ''}"
        yield Fault(
            "channel-count",
            f"{counted(data.shape[0], 'channel')}{files}",
            f"{questions.num_channels} as channel_names of dataset.json has",
            case.identifier,
            case.images[0],
            _colour_advice(case, data.shape[0], questions.num_channels),
        )
    if not all(step > 0 and math.isfinite(step) for step in properties["spacing"]):
        found = f"spacing {rounded(properties['spacing'])}"
        yield Fault("spacing-not-positive", found, "three positive numbers", case.identifier, case.images[0])
    for index, channel in enumerate(data):
        if not (np.isfinite(channel.min()) and np.isfinite(channel.max())):
            strange = int(np.count_nonzero(~np.isfinite(channel)))
            found = f"{_voxels(strange)} {'is' if strange == 1 else 'are'} NaN or infinite{_channel(case, data, index)}"
            file = _file_of(case, data, index)
            yield Fault("image-not-finite", found, "", case.identifier, file, details={"voxels": strange})


def _colour_advice(case: RawCase, found: int, declared: int) -> str:
    if len(case.images) == 1 and found in (3, 4) and declared == 1:
        names = '"0": "R", "1": "G", "2": "B"' + (', "3": "A"' if found == 4 else "")
        return f"it is a colour image: save it in gray, or name its channels {{{names}}}"
    if len(case.images) == 1 and found == 4 and declared == 3:
        return "it is a colour image with transparency: save it without"
    return ""


def _file_of(case: RawCase, data: NDArray[Any], channel: int) -> str:
    return case.images[channel if len(case.images) == data.shape[0] else 0]


def _channel(case: RawCase, data: NDArray[Any], channel: int) -> str:
    return "" if len(case.images) == data.shape[0] else f" (channel {channel})"


def _constant_channels(case: RawCase, data: NDArray[np.float32]) -> Iterator[Fault]:
    for index, channel in enumerate(data):
        if channel.min() == channel.max():
            found = f"every voxel is {float(channel.flat[0]):.6g}{_channel(case, data, index)}"
            yield Fault("image-constant", found, "", case.identifier, _file_of(case, data, index))


def _digests(case: RawCase, data: NDArray[np.float32]) -> dict[str, str]:
    """File -> digest of shape and voxels, for files that are not constant: two of those are equal by chance."""
    channels = data.shape[0] // len(case.images)
    parts = [data[i * channels : (i + 1) * channels] for i in range(len(case.images))]
    return {
        file: hashlib.blake2b(part.data, digest_size=16, person=repr(part.shape).encode()[:16]).hexdigest()
        for file, part in zip(case.images, parts, strict=True)
        if part.size and part.min() < part.max()
    }


def _faults_of_label(
    case: RawCase, seg: NDArray[Any], counts: Mapping[int, int], allowed: Sequence[int] | None
) -> Iterator[Fault]:
    unknown = {label: count for label, count in counts.items() if allowed is not None and label not in allowed}
    file = str(case.label)
    if unknown:
        hint = ""
        if set(counts) == {0, 255}:
            hint = "it looks like a binary mask of 0 and 255: store its foreground as 1"
        elif len(unknown) > 100:
            hint = "it looks like an image, not a label map"
        yield Fault(
            "label-values",
            f"holds the labels {_counted(unknown)}",
            _ranges(allowed or ()),
            case.identifier,
            file,
            hint,
            {"voxels": {str(label): count for label, count in list(unknown.items())[:100]}},
        )
    elif set(counts) == {0}:
        yield Fault("label-empty", f"its {_voxels(seg.size)} are all background", "", case.identifier, file)


def _ranges(labels: Sequence[int]) -> str:
    """Labels for a message; consecutive ones, which is the rule, in short."""
    if len(labels) > 3 and list(labels) == list(range(labels[0], labels[-1] + 1)):
        return f"{labels[0]} to {labels[-1]}"
    return ", ".join(str(label) for label in labels)


def count_labels(seg: NDArray[Any]) -> dict[int, int]:
    """Label -> number of voxels, ascending. Works in pieces: counting makes 64-bit copies."""
    flat = seg.reshape(-1)
    low, high = int(flat.min()), int(flat.max())
    if high - low >= _COUNTABLE:
        values, numbers = np.unique(flat, return_counts=True)
        return dict(zip(values.tolist(), numbers.tolist(), strict=True))
    counts = np.zeros(high - low + 1, dtype=np.int64)
    for start in range(0, flat.size, _CHUNK):
        piece = flat[start : start + _CHUNK]
        counts += np.bincount(piece.astype(np.intp) - low, minlength=counts.size)
    return {low + int(i): int(counts[i]) for i in np.flatnonzero(counts)}


def _faults_of_pair(case: RawCase, image: Image, label: tuple[NDArray[Any], CaseProperties]) -> Iterator[Fault]:
    """Image and label must have one grid; different origins and directions are only warned about."""
    (data, here), (seg, there) = image, label
    file = str(case.label)
    if data.shape[1:] != seg.shape[1:]:
        swapped = sorted(data.shape[1:]) == sorted(seg.shape[1:])
        repair = "its axes look swapped: convert image and label map with the same program" if swapped else ""
        found, expected = f"shape {list(seg.shape[1:])}", f"{list(data.shape[1:])} as the image"
        yield Fault("label-shape", found, expected, case.identifier, file, repair)
    if not spacings_agree(here["spacing"], there["spacing"]):
        found, expected = f"spacing {rounded(there['spacing'])}", f"{rounded(here['spacing'])} as the image"
        yield Fault("label-spacing", found, expected, case.identifier, file)
    for stuff, name in (("sitk_stuff", "origin"), ("sitk_stuff", "direction"), ("nibabel_stuff", "original_affine")):
        ours, theirs = (np.ravel(_entry(properties, stuff, name)).tolist() for properties in (here, there))
        if not spacings_agree(ours, theirs):
            kind = "label-origin" if name == "origin" else "label-direction"
            what = name.split("_")[-1]
            found, expected = f"{what} {rounded(theirs)}", f"{rounded(ours)} as the image"
            yield Fault(kind, found, expected, case.identifier, file)


def _entry(properties: CaseProperties, stuff: str, name: str) -> Any:
    holder: Any = properties.get(stuff, {})
    return holder.get(name, ())


@contextlib.contextmanager
def _collected_warnings(case: RawCase) -> Iterator[list[Fault]]:
    """What is logged as a warning within the block becomes a finding; a worker has no terminal to write to.

    A record may say of which kind it is and which file it is about (`extra` of the call).
    """
    found: list[Fault] = []

    class _Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kind, file = getattr(record, "kind", "reader-warning"), getattr(record, "file", "")
            text = record.getMessage().removeprefix(f"{file}: ")
            found.append(Fault(kind, text, case=case.identifier, file=file))

    collector, others = _Collector(logging.WARNING), list(logger.handlers)
    logger.handlers[:] = [collector]
    try:
        yield found
    finally:
        logger.handlers[:] = others
