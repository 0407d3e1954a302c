"""DatasetJson: what a dataset's dataset.json says; the only place that knows its older spellings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.utilities.files import PathLike, load_json

REQUIRED_KEYS = ("channel_names", "labels", "numTraining", "file_ending")
LARGEST = 65535  # label that can be stored
LIST_ENTRY = 'case: {"images": [file, ...], "label": file}'


@dataclass(frozen=True)
class DatasetJson:
    """View of dataset.json (nnU-Net v2 2.8.1 behaviour); unknown keys stay in `raw`, whose key order counts.

    Nothing is checked at construction: each property raises DatasetError if its key is missing or unusable.
    """

    raw: Mapping[str, Any]
    source: str = "dataset.json"

    @classmethod
    def from_file(cls, path: PathLike) -> DatasetJson:
        """Read dataset.json. Raises DatasetError if it does not exist or is no JSON object."""
        try:
            raw = load_json(path)
        except FileNotFoundError as error:
            raise DatasetError(
                f"There is no {path}; every dataset needs it, with the keys {', '.join(REQUIRED_KEYS)}"
            ) from error
        except ValueError as error:
            raise DatasetError(f"{path} is no valid JSON: {error}") from error
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error
        if not isinstance(raw, dict):
            raise DatasetError(f"{path} holds no object, but the keys {', '.join(REQUIRED_KEYS)} are needed")
        return cls(raw, os.fspath(path))

    @property
    def missing_keys(self) -> list[str]:
        """Required keys that are not there; `modality`, the old name of `channel_names`, does not count."""
        return [key for key in REQUIRED_KEYS if key not in self.raw]

    @property
    def file_ending(self) -> str:
        """Ending of all images and label maps, with its dot."""
        value = self._required("file_ending")
        if not isinstance(value, str) or not value.startswith(".") or len(value) < 2 or not is_file_name(f"a{value}"):
            raise DatasetError(f'{self.source}: "file_ending" is {short(value)}; expected a text such as ".nii.gz"')
        return value

    @property
    def channel_names(self) -> list[str]:
        """Names of the input channels in the order of their numbers; `modality` is the key's old name."""
        value = self.raw.get("channel_names", self.raw.get("modality"))
        if value is None:
            self._required("channel_names")
        if isinstance(value, list):
            value = {str(number): name for number, name in enumerate(value)}
        numbers = sorted(value, key=_as_number) if isinstance(value, dict) else []
        numbered = bool(numbers) and [_as_number(number) for number in numbers] == list(range(len(numbers)))
        if not numbered or not all(isinstance(name, str) for name in value.values()):
            raise DatasetError(
                f'{self.source}: "channel_names" is {short(value)}; expected {{"0": name, "1": name, ...}} without gaps'
            )
        return [value[number] for number in numbers]

    @property
    def num_input_channels(self) -> int:
        """Number of channels of every image."""
        return len(self.channel_names)

    @property
    def labels(self) -> dict[str, int | list[int]]:
        """Label name -> number, or -> list of numbers (a region), in the order of the file."""
        value = self._required("labels")
        try:
            return {str(name): as_label(label) for name, label in value.items()}
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise DatasetError(
                f'{self.source}: "labels" is {short(value)}; expected {{"background": 0, name: number or [numbers]}}'
            ) from error

    @property
    def regions_class_order(self) -> list[int] | None:
        """The number each region is painted with, in the order of painting; None without regions."""
        value = self.raw.get("regions_class_order")
        if value is None:
            return None
        if not isinstance(value, list) or not all(type(label) is int and 0 <= label <= LARGEST for label in value):
            raise DatasetError(
                f'{self.source}: "regions_class_order" is {short(value)}; expected a list of whole numbers from 0'
            )
        return list(value)

    @property
    def num_training(self) -> int:
        """Number of training cases as declared."""
        value = self._required("numTraining")
        try:
            number = _as_whole(value)
        except (TypeError, ValueError, OverflowError):
            number = -1
        if not 0 <= number < 2**31:
            raise DatasetError(f'{self.source}: "numTraining" is {short(value)}; expected a whole number')
        return number

    @property
    def reader_writer_name(self) -> str | None:
        """Class named by `overwrite_image_reader_writer`; None if nothing or the text "None" is named."""
        name = self.raw.get("overwrite_image_reader_writer")
        return None if name in (None, "None") else str(name)

    @property
    def explicit_cases(self) -> dict[str, dict[str, Any]] | None:
        """The optional list of files (key `dataset`): case -> {"images": [file, ...], "label": file}, as written.

        Raises:
            DatasetError: an entry has another form.
        """
        value = self.raw.get("dataset")
        if value is None:
            return None
        problems = list_problems(value)
        if problems:
            raise DatasetError(f'{self.source}: "dataset" has {problems[0]}; expected {LIST_ENTRY}')
        return dict(value)

    def _required(self, key: str) -> Any:
        if key not in self.raw:
            raise DatasetError(f'{self.source} lacks "{key}"; it needs the keys {", ".join(REQUIRED_KEYS)}')
        return self.raw[key]


def image_channels(dataset_json: Mapping[str, Any]) -> list[str]:
    """Names of a network's image channels; of both spellings of the key the old one counts (spec 03, 5.4).

    Raises:
        DatasetError: no channel names, or unusable ones.
    """
    channels = dataset_json.get("modality", dataset_json.get("channel_names"))
    if not channels:
        raise DatasetError('dataset.json has no channel_names; add for example "channel_names": {"0": "CT"}')
    return DatasetJson({"channel_names": channels}).channel_names


def list_problems(value: Any) -> list[str]:
    """What is wrong with the entries of the key `dataset`, a text for each."""
    entries = value.items() if isinstance(value, dict) else [("", value)]
    return [f"the entry {short(case)}: {short(entry)}" for case, entry in entries if not _is_entry(case, entry)]


def _is_entry(case: str, entry: Any) -> bool:
    if not is_file_name(case) or not isinstance(entry, dict):
        return False
    images, label = entry.get("images"), entry.get("label")
    files = [*images, *([] if label is None else [label])] if isinstance(images, list) and images else []
    return bool(files) and all(isinstance(file, str) and file and "\0" not in file for file in files)


def is_file_name(text: Any) -> bool:
    """Whether a text can be the name of a file in a folder of ours, and of nothing outside of it."""
    return isinstance(text, str) and text not in ("", ".", "..") and not set(text) & set("/\\\0")


def short(value: Any, length: int = 200) -> str:
    """A value of a document for a message."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def _as_number(text: Any) -> int:
    return int(text) if str(text).isascii() and str(text).isdigit() and len(str(text)) < 9 else -1


def as_label(value: Any) -> int | list[int]:
    """A label, or the labels of a region, as whole numbers. Raises TypeError, ValueError or OverflowError."""
    if not isinstance(value, (list, tuple)):
        return _as_storable(value)
    if not value:
        raise ValueError("a region of no label")
    return [_as_storable(label) for label in value]


def _as_storable(value: Any) -> int:
    number = _as_whole(value)
    if not 0 <= number <= LARGEST:
        raise ValueError(f"{number} is not from 0 to {LARGEST}")
    return number


def _as_whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)
