"""One look at one raw case: what is wrong with it, and what the fingerprint needs to know. Runs in a worker."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.experiment_planning.intensity_statistics import IntensitySummary, summarize
from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter, rounded, spacings_agree
from nnunet_lite.imageio.case_properties import CaseProperties
from nnunet_lite.plans.raw_dataset import Fault, RawCase
from nnunet_lite.preprocessing.cropping import nonzero_bounding_box
from nnunet_lite.utilities.arrays import box_shape, slices
from nnunet_lite.utilities.logging import logger

_CHUNK = 2**20  # voxels that are counted at once
_COUNTABLE = 2**16  # range of labels up to which counting is an array indexed by label


class Questions(NamedTuple):
    """What is to be found out about every case."""

    num_channels: int  # as dataset.json says
    labels: tuple[int, ...] | None  # allowed, the ignore label among them; None: do not look
    summary_size: int  # points per channel kept of the intensities; 0: no fingerprint wanted


class CaseReport(NamedTuple):
    """What was found; small, because it travels between processes. Without a fingerprint the last four are empty."""

    faults: list[Fault]
    warnings: list[str]
    shape_after_crop: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    relative_size: float = 1.0
    intensities: tuple[IntensitySummary, ...] = ()


def examine_case(case: RawCase, reader_class: type[BaseReaderWriter], questions: Questions) -> CaseReport:
    """Read every file of a case once and answer the questions; nothing is raised for what is wrong with the case."""
    faults: list[Fault] = []
    with _collected_warnings() as warnings:
        reader = reader_class()
        image, label = None, None
        try:
            image = reader.read_images_unaltered(case.images)
        except DatasetError as error:
            faults.append(Fault(case.identifier, "image", str(error)))
        try:
            label = reader.read_seg(str(case.label))
        except DatasetError as error:
            faults.append(Fault(case.identifier, "label", str(error)))
        if image is not None:
            faults += _faults_of_image(case, image[0], questions)
        if label is not None and questions.labels is not None:
            faults += _faults_of_label(case, label[0], questions.labels)
        if image is not None and label is not None:
            faults += _faults_of_pair(case, image, label)
        if faults or image is None or label is None or not questions.summary_size:
            return CaseReport(faults, warnings)
        return _described(image, label[0], questions.summary_size)._replace(warnings=warnings)


def _described(image: tuple[NDArray[np.float32], CaseProperties], seg: NDArray[Any], summary_size: int) -> CaseReport:
    """Geometry after cropping to the nonzero region and the foreground's intensities within it.

    Foreground is every label above 0, the ignore label included (nnU-Net v2 2.8.1 behaviour).
    """
    data, properties = image
    box = nonzero_bounding_box(data)
    foreground = seg[0][slices(box)] > 0
    return CaseReport(
        [],
        [],
        box_shape(box),
        tuple(float(step) for step in properties["spacing"]),
        math.prod(box_shape(box)) / math.prod(data.shape[1:]),
        tuple(summarize(channel[slices(box)][foreground], summary_size) for channel in data),
    )


def _faults_of_image(case: RawCase, data: NDArray[np.float32], questions: Questions) -> Iterator[Fault]:
    if data.shape[0] != questions.num_channels:
        files = f" in {len(case.images)} file{'s' if len(case.images) > 1 else ''}"
        yield Fault(
            case.identifier,
            "channels",
            f"{data.shape[0]} channels{files}, but dataset.json has "
            f"{questions.num_channels} channel_names; add the missing files or correct dataset.json",
        )
    for index, channel in enumerate(data):
        if not (np.isfinite(channel.min()) and np.isfinite(channel.max())):
            strange = int(np.count_nonzero(~np.isfinite(channel)))
            file = case.images[index] if len(case.images) == data.shape[0] else f"channel {index} of {case.images[0]}"
            yield Fault(
                case.identifier,
                "not finite",
                f"{strange} voxels of {file} are NaN or infinite; "
                "give them a value, for example that of the background",
            )


def _faults_of_label(case: RawCase, seg: NDArray[Any], allowed: Sequence[int]) -> Iterator[Fault]:
    counts = count_labels(seg)
    unknown = {label: count for label, count in counts.items() if label not in allowed}
    if unknown:
        found = ", ".join(f"{label} ({count} voxels)" for label, count in list(unknown.items())[:10])
        found += f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        hint = ""
        if set(counts) == {0, 255}:
            hint = "; it looks like a binary mask of 0 and 255: store its foreground as 1"
        yield Fault(
            case.identifier,
            "labels",
            f"{case.label} holds the labels {found}, which dataset.json does not "
            f"list; expected {_ranges(allowed)}{hint}",
        )
    elif set(counts) == {0}:
        logger.warning("%s: its label map %s is all background", case.identifier, case.label)


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


def _faults_of_pair(
    case: RawCase, image: tuple[NDArray[Any], CaseProperties], label: tuple[NDArray[Any], CaseProperties]
) -> Iterator[Fault]:
    """Image and label must have one grid; different origins and directions are only warned about."""
    (data, here), (seg, there) = image, label
    if data.shape[1:] != seg.shape[1:]:
        yield Fault(
            case.identifier,
            "shape",
            f"the image has shape {list(data.shape[1:])}, its label map "
            f"{case.label} {list(seg.shape[1:])}; they must be equal",
        )
    if not spacings_agree(here["spacing"], there["spacing"]):
        yield Fault(
            case.identifier,
            "spacing",
            f"the image has spacing {rounded(here['spacing'])}, its label map "
            f"{case.label} {rounded(there['spacing'])}; they must be equal",
        )
    for stuff, name in (("sitk_stuff", "origin"), ("sitk_stuff", "direction"), ("nibabel_stuff", "original_affine")):
        ours, theirs = (np.ravel(_entry(properties, stuff, name)).tolist() for properties in (here, there))
        if not spacings_agree(ours, theirs):
            logger.warning(
                "%s: the %s of image %s and label map %s differ; check that they lie on each other",
                case.identifier,
                name.split("_")[-1],
                rounded(ours),
                rounded(theirs),
            )


def _entry(properties: CaseProperties, stuff: str, name: str) -> Any:
    holder: Any = properties.get(stuff, {})
    return holder.get(name, ())


@contextlib.contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """What is logged as a warning within the block; a worker has no terminal, so the report carries it."""
    found: list[str] = []

    class _Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    collector, others = _Collector(logging.WARNING), list(logger.handlers)
    logger.handlers[:] = [collector]
    try:
        yield found
    finally:
        logger.handlers[:] = others
