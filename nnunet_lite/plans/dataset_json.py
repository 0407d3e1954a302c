"""DatasetJson: what a dataset's dataset.json says; the only place that knows its older spellings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.utilities.files import PathLike, load_json

REQUIRED_KEYS = ("channel_names", "labels", "numTraining", "file_ending")


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
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
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
        if not isinstance(value, str) or not value.startswith("."):
            raise DatasetError(f'{self.source}: "file_ending" is {value!r}; expected a text such as ".nii.gz"')
        return value

    @property
    def channel_names(self) -> list[str]:
        """Names of the input channels in the order of their numbers; `modality` is the key's old name."""
        value = self.raw.get("channel_names", self.raw.get("modality"))
        if value is None:
            self._required("channel_names")
        if isinstance(value, list):
            return [str(name) for name in value]
        numbers = sorted(value, key=_as_number) if isinstance(value, dict) else []
        if not numbers or [_as_number(number) for number in numbers] != list(range(len(numbers))):
            raise DatasetError(
                f'{self.source}: "channel_names" is {value!r}; expected {{"0": name, "1": name, ...}} without gaps'
            )
        return [str(value[number]) for number in numbers]

    @property
    def num_input_channels(self) -> int:
        """Number of channels of every image."""
        return len(self.channel_names)

    @property
    def labels(self) -> dict[str, int | list[int]]:
        """Label name -> number, or -> list of numbers (a region), in the order of the file."""
        value = self._required("labels")
        try:
            return {str(name): _as_label(label) for name, label in value.items()}
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise DatasetError(
                f'{self.source}: "labels" is {value!r}; expected {{"background": 0, name: number or [numbers], ...}}'
            ) from error

    @property
    def regions_class_order(self) -> list[int] | None:
        """The number each region is painted with, in the order of painting; None without regions."""
        value = self.raw.get("regions_class_order")
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(label, int) for label in value):
            raise DatasetError(f'{self.source}: "regions_class_order" is {value!r}; expected a list of whole numbers')
        return list(value)

    @property
    def num_training(self) -> int:
        """Number of training cases as declared."""
        value = self._required("numTraining")
        try:
            return int(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise DatasetError(f'{self.source}: "numTraining" is {value!r}; expected a whole number') from error

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
        entries = value.items() if isinstance(value, dict) else [("", value)]
        for case, entry in entries:
            images = entry.get("images") if isinstance(entry, dict) else None
            if not case or not isinstance(images, list) or not images:
                raise DatasetError(
                    f'{self.source}: "dataset" has the entry {case!r}: {entry!r}; '
                    'expected case: {"images": [file, ...], "label": file}'
                )
        return dict(value)

    def _required(self, key: str) -> Any:
        if key not in self.raw:
            raise DatasetError(f'{self.source} lacks "{key}"; it needs the keys {", ".join(REQUIRED_KEYS)}')
        return self.raw[key]


def _as_number(text: Any) -> int:
    return int(text) if str(text).isdigit() else -1


def _as_label(value: Any) -> int | list[int]:
    if isinstance(value, (list, tuple)):
        return [_as_whole(label) for label in value]
    return _as_whole(value)


def _as_whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)
