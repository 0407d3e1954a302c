"""Raw datasets: ids and names, and which files belong to which case."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results
from nnunet_lite.plans.dataset_json import DatasetJson
from nnunet_lite.utilities.files import PathLike, subdirs, subfiles

_DATASET = re.compile(r"^Dataset(\d{3,})_")
_CHANNEL = re.compile(r"^(.+)_(\d{4})$")
_IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff")
_EXAMPLES = 5  # names listed in a message


class RawCase(NamedTuple):
    """One training case: image files in channel order and its label map."""

    identifier: str
    images: list[str]
    label: str | None


class Fault(NamedTuple):
    """Something wrong with a dataset; `case` is empty if it concerns the dataset as a whole."""

    case: str
    kind: str
    message: str


@dataclass(frozen=True)
class RawDataset:
    """A folder DatasetXXX_NAME below nnUNet_raw: its dataset.json, its cases and what is wrong with its files."""

    name: str
    folder: Path
    dataset_json: DatasetJson
    cases: dict[str, RawCase]
    faults: list[Fault]

    @classmethod
    def load(cls, name_or_id: int | str) -> RawDataset:
        """Find a dataset in nnUNet_raw and list its cases.

        Raises:
            DatasetError: there is no such dataset, or a file is missing or misnamed; lists everything found.
        """
        dataset = cls.scan(raw_folder(name_or_id))
        if dataset.faults:
            raise faults_as_error(dataset.name, dataset.faults, len(dataset.cases))
        return dataset

    @classmethod
    def scan(cls, folder: PathLike) -> RawDataset:
        """List the cases of a dataset's folder; missing and misnamed files end up in `faults`.

        Raises:
            DatasetError: dataset.json is missing or lacks what is needed to find the files.
        """
        folder = Path(folder)
        dataset_json = DatasetJson.from_file(folder / "dataset.json")
        faults: list[Fault] = []
        if dataset_json.explicit_cases is None:
            cases = _scan_folders(folder, dataset_json.file_ending, faults)
        else:
            cases = _explicit_cases(folder, dataset_json.explicit_cases, faults)
        if not cases and not faults:
            faults.append(Fault("", "empty", _nothing_found(folder, dataset_json)))
        return cls(folder.name, folder, dataset_json, cases, faults)


def faults_as_error(dataset: str, faults: list[Fault], num_cases: int) -> DatasetError:
    """One error for everything that is wrong: the fault itself if it is alone, else a summary and a line for each."""
    lines = [f"{fault.case}: {fault.message}" if fault.case else fault.message for fault in faults]
    if len(lines) == 1:
        return DatasetError(f"{dataset}: {lines[0]}")
    broken = len({fault.case for fault in faults if fault.case})
    summary = f"{dataset} has {len(faults)} faults ({broken} of {num_cases} cases are affected); correct them:"
    return DatasetError("\n  ".join([summary, *lines]))


def raw_folder(name_or_id: int | str) -> Path:
    """Folder of a dataset in nnUNet_raw. Raises DatasetError with the datasets that exist if there is none."""
    name = maybe_convert_to_dataset_name(name_or_id)
    folder = nnUNet_raw / name
    if not folder.is_dir():
        known = _listing(_datasets_in(nnUNet_raw))
        raise DatasetError(f"There is no dataset {name} in nnUNet_raw={nnUNet_raw}; {known}")
    return folder


def existing_datasets() -> list[str]:
    """Sorted names of all datasets in nnUNet_raw, nnUNet_preprocessed and nnUNet_results, as far as these are set."""
    return sorted({name for root in _roots() for name in _datasets_in(root)})


def dataset_id_to_name(dataset_id: int) -> str:
    """Name of the dataset with this id in any of the three folders.

    Raises:
        DatasetError: there is none (lists those that exist), or several names share the id.
    """
    found: dict[str, str] = {}
    for root in _roots():
        for name in _datasets_in(root):
            if dataset_name_to_id(name) == dataset_id:
                found.setdefault(name, os.path.join(root, name))
    if not found:
        raise _unknown(f"with id {dataset_id}")
    if len(found) > 1:
        raise DatasetError(
            f"Dataset id {dataset_id} is used by {len(found)} datasets: {', '.join(sorted(found.values()))}; "
            "rename or remove all but one, or give the full name"
        )
    return next(iter(found))


def dataset_name_to_id(name: str) -> int:
    """The number in DatasetXXX_NAME, whatever its length. Raises DatasetError for other names."""
    match = _DATASET.match(name)
    if match is None:
        raise DatasetError(f"{name!r} is no dataset name; expected DatasetXXX_NAME with a number of at least 3 digits")
    return int(match[1])


def maybe_convert_to_dataset_name(dataset_name_or_id: int | str) -> str:
    """A dataset's name from its name or its id (5, "5" or "005").

    Raises:
        DatasetError: neither a name nor a number; none of the three folders has such a dataset (lists those that
            exist); or several share the id.
    """
    text = str(dataset_name_or_id)
    if text.startswith("Dataset"):
        if _roots() and text not in existing_datasets():
            raise _unknown(text)
        return text
    if not text.strip().isdigit():
        raise DatasetError(f"{text!r} is no dataset; expected an id such as 4 or a name such as Dataset004_Hippocampus")
    return dataset_id_to_name(int(text))


convert_id_to_dataset_name = dataset_id_to_name
convert_dataset_name_to_id = dataset_name_to_id


def _roots() -> list[Any]:
    return [root for root in (nnUNet_raw, nnUNet_preprocessed, nnUNet_results) if root.is_set() and Path(root).is_dir()]


def _datasets_in(root: PathLike) -> list[str]:
    names = subdirs(root, "Dataset", join=False) if Path(root).is_dir() else []
    return [name for name in names if _DATASET.match(name)]


def _unknown(what: str) -> DatasetError:
    folders = (nnUNet_raw, nnUNet_preprocessed, nnUNet_results)
    roots = ", ".join(f"{root.variable}={root.get() if root.is_set() else '(not set)'}" for root in folders)
    return DatasetError(f"There is no dataset {what} in {roots}; {_listing(existing_datasets())}")


def _listing(names: list[str]) -> str:
    return f"there are: {', '.join(names)}" if names else "there are no datasets at all"


def get_identifiers_from_splitted_dataset_folder(folder: PathLike, file_ending: str) -> list[str]:
    """Sorted identifiers of the cases of a folder of images. Raises DatasetError for misnamed files."""
    return list(list_image_cases(folder, file_ending))


def list_image_cases(folder: PathLike, file_ending: str) -> dict[str, list[str]]:
    """Case identifier -> its files `<CASE>_<CCCC><file_ending>` in channel order, of a whole folder at once.

    Raises:
        DatasetError: the folder does not exist, files are named otherwise, or a channel in between is missing.
    """
    faults: list[Fault] = []
    cases = _group(Path(folder), file_ending, faults)  # the message below names the folder
    if faults:
        raise faults_as_error(str(folder), faults, len(cases))
    return cases


def get_filenames_of_train_images_and_targets(
    raw_dataset_folder: PathLike, dataset_json: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Case -> {"images": [file, ...], "label": file} (nnU-Net v2 2.8.1 behaviour); in the order of training.

    Raises:
        DatasetError: files are missing or misnamed.
    """
    folder = Path(raw_dataset_folder)
    view = DatasetJson.from_file(folder / "dataset.json") if dataset_json is None else DatasetJson(dataset_json)
    faults: list[Fault] = []
    explicit = view.explicit_cases
    cases = (
        _scan_folders(folder, view.file_ending, faults)
        if explicit is None
        else _explicit_cases(folder, explicit, faults)
    )
    if faults:
        raise faults_as_error(folder.name, faults, len(cases))
    return {case.identifier: {"images": case.images, "label": case.label} for case in cases.values()}


def _nothing_found(folder: Path, dataset_json: DatasetJson) -> str:
    if dataset_json.explicit_cases is not None:
        return f'there are no training cases in "dataset" of {folder / "dataset.json"}'
    names = subfiles(folder / "imagesTr", join=False)
    held = f"it holds {_examples(names)}" if names else "it is empty"
    return (
        f"there are no training cases in {folder / 'imagesTr'}: expected files CASE_0000{dataset_json.file_ending} "
        f'("file_ending" of dataset.json), {held}'
    )


def _explicit_cases(folder: Path, entries: dict[str, dict[str, Any]], faults: list[Fault]) -> dict[str, RawCase]:
    cases = {}
    for identifier, entry in entries.items():
        images = [_resolved(folder, image) for image in entry["images"]]
        label = _resolved(folder, entry["label"]) if entry.get("label") is not None else None
        cases[identifier] = RawCase(identifier, images, label)
        missing = [file for file in [*images, *([label] if label else [])] if not Path(file).is_file()]
        if missing:
            message = f'listed in "dataset", but not there: {", ".join(missing)}'
            faults.append(Fault(identifier, "missing file", message))
        if label is None:
            faults.append(Fault(identifier, "missing label", 'its entry in "dataset" names no label'))
    return cases


def _resolved(folder: Path, file: str) -> str:
    """A path of dataset.json: environment variables expanded, relative to the dataset's folder."""
    return os.path.abspath(folder / os.path.expandvars(file))


def _scan_folders(folder: Path, file_ending: str, faults: list[Fault]) -> dict[str, RawCase]:
    images, labels = folder / "imagesTr", folder / "labelsTr"
    for needed in (images, labels):
        if not needed.is_dir():
            faults.append(Fault("", "missing folder", f"{needed} does not exist"))
    if faults:
        return {}
    present = set(subfiles(labels, file_ending, join=False))
    cases = {}
    for identifier, files in _group(images, file_ending, faults, f"{images}: ").items():
        label = f"{identifier}{file_ending}"
        cases[identifier] = RawCase(identifier, files, str(labels / label) if label in present else None)
        if label not in present:
            faults.append(Fault(identifier, "missing label", f"there is no label map {labels / label}"))
    return cases


def _group(folder: Path, file_ending: str, faults: list[Fault], where: str = "") -> dict[str, list[str]]:
    """Files of a folder by case, in one pass over its listing; `where` begins the messages."""
    if not folder.is_dir():
        raise DatasetError(f"The folder {folder} does not exist")
    channels: dict[str, dict[int, str]] = {}
    misnamed, other = [], []
    for name in subfiles(folder, join=False):
        match = _CHANNEL.match(name[: -len(file_ending)]) if name.endswith(file_ending) else None
        if match is not None:
            channels.setdefault(match[1], {})[int(match[2])] = str(folder / name)
        elif name.endswith(file_ending):
            misnamed.append(name)
        elif name.endswith(_IMAGE_ENDINGS):
            other.append(name)
    if misnamed:
        faults.append(
            Fault(
                "",
                "file name",
                f"{where}{_examples(misnamed)} named otherwise than "
                f"CASE_0000{file_ending} (case, channel with 4 digits)",
            )
        )
    if other:
        faults.append(
            Fault(
                "",
                "file ending",
                f"{where}{_examples(other)} not ending in {file_ending!r}, which "
                '"file_ending" of dataset.json says; convert the files or correct it',
            )
        )
    counts = Counter(len(found) for found in channels.values())
    usual = counts.most_common(1)[0][0] if counts else 0
    for identifier, found in sorted(channels.items()):
        missing = [number for number in range(max(max(found) + 1, usual)) if number not in found]
        if missing:
            names = ", ".join(f"{identifier}_{number:04d}{file_ending}" for number in missing)
            faults.append(Fault(identifier, "missing channel", f"{where}{names} is missing"))
    return {
        identifier: [channels[identifier][number] for number in sorted(channels[identifier])]
        for identifier in sorted(channels)
    }


def _examples(names: list[str]) -> str:
    shown = ", ".join(names[:_EXAMPLES]) + (", ..." if len(names) > _EXAMPLES else "")
    return f"{len(names)} file{'s' if len(names) > 1 else ''} ({shown})"
