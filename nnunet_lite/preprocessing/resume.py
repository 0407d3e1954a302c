"""Which cases of a configuration are finished, what they were made from, and how much memory the others will need."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter
from nnunet_lite.plans.configuration_manager import PREPROCESSING_KEYS, ConfigurationManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.preprocessing.geometry import network_spacing
from nnunet_lite.preprocessing.interpolation import compute_new_shape
from nnunet_lite.utilities.files import to_plain
from nnunet_lite.utilities.journal import Journal
from nnunet_lite.utilities.parts import WHOLE, Part

_FORMAT = 1  # raise it when the stored arrays change for the same input
_ENDINGS = ("_seg.b2nd", ".b2nd", ".pkl", "_seg.npy", ".npy", ".npz")  # longest first
_OUTPUTS = (".b2nd", "_seg.b2nd", ".pkl")
_TEMPORARY = re.compile(r"^\.[0-9a-f]+\.tmp\.(.+)$")  # what `atomic_path` calls a file that is being written
_WORKER_BASE = 140 * 2**20  # bytes of interpreter and libraries
_MARGIN = 1.05
_EXPANSION = 20  # bytes of work per byte on disk, for readers that cannot tell the size of an image beforehand
_PLAN_KEYS = (*PREPROCESSING_KEYS, "patch_size")  # the patch decides how arrays are cut into blocks


class FinishedCases:
    """The record of finished cases of one configuration folder.

    It lies beside the folder, in `.nnunet_lite/<data_identifier>.*.journal`, since upstream takes every file in the
    folder for a case. A case is noted at once, so a kill -9 costs only what was being worked on.

    Args:
        folder: of the configuration.
        part: the part this process works on; what others have finished or are writing is left alone.
    """

    def __init__(self, folder: Path, part: Part = WHOLE) -> None:
        self._folder = folder
        self._journal = Journal(folder.parent / ".nnunet_lite", folder.name, part)
        self._part = part
        self._cases: dict[str, dict[str, Any]] = {}
        for entry in self._journal.read():
            known = self._cases.get(entry["case"])
            if known is None or known["written"] <= entry["written"]:
                self._cases[entry["case"]] = entry

    def has(self, identifier: str, signature: str) -> bool:
        """Whether the case is stored completely and was made from what `signature` stands for."""
        entry = self._cases.get(identifier)
        return entry is not None and entry["signature"] == signature and entry["bytes"] == self._sizes(identifier)

    def add(self, identifier: str, signature: str) -> None:
        """Note a case as finished."""
        entry = {
            "case": identifier,
            "signature": signature,
            "bytes": self._sizes(identifier),
            "written": (self._folder / f"{identifier}.pkl").stat().st_mtime,
        }
        self._cases[identifier] = entry
        self._journal.append(entry)

    def remove_all_but(self, identifiers: Sequence[str]) -> None:
        """Remove files of cases that are not among `identifiers`, and what killed workers left; other files stay."""
        if self._part.is_whole and self._cases:
            self._cases = {name: entry for name, entry in self._cases.items() if name in identifiers}
            self._journal.replace(list(self._cases.values()))
        if not self._folder.is_dir():
            return
        known, own = set(identifiers), set(self._part.of(identifiers))
        for file in self._folder.iterdir():
            half_written = _TEMPORARY.match(file.name)
            identifier = _identifier(half_written[1] if half_written else file.name)
            if identifier is None:
                continue
            is_ours = self._part.is_whole or identifier in own
            is_output = file.name.endswith(_OUTPUTS) and half_written is None
            if (is_ours and not is_output) or identifier not in known:
                file.unlink(missing_ok=True)

    def _sizes(self, identifier: str) -> list[int] | None:
        files = [self._folder / f"{identifier}{ending}" for ending in _OUTPUTS]
        return [file.stat().st_size for file in files] if all(file.is_file() for file in files) else None


def _identifier(file_name: str) -> str | None:
    """The case a file of the configuration folder belongs to, or None for a file of another kind."""
    for ending in _ENDINGS:
        if file_name.endswith(ending):
            return file_name[: -len(ending)]
    return None


def case_signature(
    files: Sequence[str],
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    dataset_json: Mapping[str, Any],
) -> str:
    """Stands for all that a preprocessed case depends on: its files by name, size and time, and the plans' content.

    Raises:
        DatasetError: a file does not exist.
    """
    try:
        stats = [(Path(file).name, Path(file).stat().st_size, Path(file).stat().st_mtime_ns) for file in files]
    except FileNotFoundError as error:
        raise DatasetError(f"{error.filename} does not exist; every case needs all its images and a label") from error
    content = {
        "format": _FORMAT,
        "files": stats,
        "configuration": {key: configuration_manager.configuration.get(key) for key in _PLAN_KEYS},
        "transpose_forward": plans_manager.transpose_forward,
        "reader": plans_manager.plans.get("image_reader_writer"),
        "intensities": plans_manager.foreground_intensity_properties_per_channel,
        "labels": dataset_json.get("labels"),
        "regions_class_order": dataset_json.get("regions_class_order"),
    }
    return hashlib.sha256(json.dumps(to_plain(content)).encode()).hexdigest()


def estimate_memory(
    images: Sequence[str], plans_manager: PlansManager, configuration_manager: ConfigurationManager
) -> int:
    """Bytes a worker will hold at most while it preprocesses a training case, from the image's header.

    0 if that has a spacing which is none: preprocessing says so.
    """
    reader = plans_manager.image_reader_writer_class()
    if type(reader).read_header is BaseReaderWriter.read_header:  # it would read all voxels
        return _WORKER_BASE + _EXPANSION * sum(Path(image).stat().st_size for image in images)
    header = reader.read_header(images[0])
    if not all(0 < step < math.inf for step in header.spacing):
        return 0
    shape, new_shape = shapes_of_case(header.shape[1:], header.spacing, plans_manager, configuration_manager)
    return memory_of_preprocessing(int(header.shape[0]) * len(images), math.prod(shape), math.prod(new_shape))


def shapes_of_case(
    shape: Sequence[int],
    spacing: Sequence[float],
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
) -> tuple[list[int], list[int]]:
    """Spatial shape of an image in network space before and after resampling, if nothing is cropped."""
    own = [spacing[axis] for axis in plans_manager.transpose_forward]
    before = [int(shape[axis]) for axis in plans_manager.transpose_forward]
    after = compute_new_shape(before, own, network_spacing(configuration_manager.spacing, own))
    return before, [int(n) for n in after]


def memory_of_preprocessing(channels: int, before: int, after: int) -> int:
    """Bytes a worker will hold at most for an image of so many voxels before and after resampling.

    Measured (benchmarks/preprocessing_memory.py): 1.03 to 1.25 times what the process takes for CT of 1 to 157 million
    voxels, more where much is cropped. A voxel of float32 takes 4 bytes and its label 1 or 2; finding holes 7 more,
    resampling another image and label map, compression of noise twice the image.
    """
    image = 4 * channels
    stages = (before * (image + 9), before * (image + 2) + after * (image + 2), after * (3 * image + 4.5))
    return _WORKER_BASE + int(_MARGIN * max(stages))
