"""Raw datasets: ids and names, and which files belong to which case."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results
from nnunet_lite.plans.case_files import (
    RawCase,
    explicit_cases,
    group_by_case,
    name_faults,
    nothing_found,
    scan_folders,
)
from nnunet_lite.plans.dataset_json import DatasetJson
from nnunet_lite.plans.faults import Fault, faults_as_error
from nnunet_lite.utilities.files import PathLike, subdirs
from nnunet_lite.utilities.logging import logger

_EXAMPLES = 5  # names listed in a warning
_NOT_TAKEN = ("image-ending", "file-hidden", "file-irregular")  # kinds of findings
_DATASET = re.compile(r"^Dataset(\d{3,})_")


@dataclass(frozen=True)
class RawDataset:
    """A folder DatasetXXX_NAME below nnUNet_raw: its dataset.json, its cases and what is wrong with its files."""

    name: str
    folder: Path
    dataset_json: DatasetJson
    cases: dict[str, RawCase]
    findings: list[Fault]

    @property
    def faults(self) -> list[Fault]:
        """Findings that must be repaired."""
        return [finding for finding in self.findings if finding.is_fault]

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
    def scan(cls, folder: PathLike, dataset_json: DatasetJson | None = None) -> RawDataset:
        """List the cases of a dataset's folder; missing and misnamed files end up in `findings`.

        Args:
            folder: DatasetXXX_NAME.
            dataset_json: its content; None reads it.

        Raises:
            DatasetError: dataset.json is missing or lacks what is needed to find the files.
        """
        folder = Path(folder)
        view = DatasetJson.from_file(folder / "dataset.json") if dataset_json is None else dataset_json
        findings: list[Fault] = []
        listed = view.explicit_cases
        if listed is None:
            cases = scan_folders(folder, view.file_ending, findings)
        else:
            cases = explicit_cases(folder, listed, findings)
        findings += name_faults(cases)
        if not cases and not any(finding.kind == "folder-missing" for finding in findings):
            findings.append(nothing_found(folder, view.file_ending, listed is not None))
        return cls(folder.name, folder, view, cases, findings)


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
    if not text.strip().isdecimal():
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
    roots = ", ".join(f"{root.variable}={_state(root)}" for root in folders)
    names = existing_datasets()
    advice = "" if names else "; export these variables with the folders that hold your datasets"
    return DatasetError(f"There is no dataset {what} in {roots}; {_listing(names)}{advice}")


def _state(root: Any) -> str:
    if not root.is_set():
        return "(not set)"
    return f"{root.get()}" if Path(root).is_dir() else f"{root.get()} (no such folder)"


def _listing(names: list[str]) -> str:
    return f"there are: {', '.join(names)}" if names else "there are no datasets at all"


def get_identifiers_from_splitted_dataset_folder(folder: PathLike, file_ending: str) -> list[str]:
    """Sorted identifiers of the cases of a folder of images. Raises DatasetError for misnamed files."""
    return list(list_image_cases(folder, file_ending))


def list_image_cases(
    folder: PathLike, file_ending: str, with_segmentations: bool = False, say_so: bool = False, quiet: bool = False
) -> dict[str, list[str]]:
    """Case identifier -> its files `<CASE>_<CCCC><file_ending>` in channel order, of a whole folder at once.

    Args:
        with_segmentations: files `<CASE><file_ending>` may lie among them: predictions of an earlier run.
        say_so: warn of these, where nobody expects them.
        quiet: do not warn of hidden files and other endings.

    Raises:
        DatasetError: the folder does not exist, files are named otherwise, or a channel in between is missing.
    """
    folder, findings = Path(folder), list[Fault]()
    cases = group_by_case(folder, file_ending, findings)
    allowed = {f"{folder.name}/{case}{file_ending}" for case in cases} if with_segmentations else set()
    faults = [finding for finding in findings if finding.is_fault and finding.file not in allowed]
    if faults:  # the message names the folder itself
        faults = [replace(fault, file=fault.file.removeprefix(f"{folder.name}/")) for fault in faults]
        raise faults_as_error(str(folder), faults, len(cases))
    segmentations = [Path(finding.file).name for finding in findings if finding.is_fault] if say_so else []
    if segmentations:
        logger.warning("%s: segmentations among the images are passed over: %s", folder, _some(segmentations))
    passed_over = [Path(finding.file).name for finding in findings if finding.kind in _NOT_TAKEN]
    # nobody should wait for their results; without cases the caller says what is there
    if passed_over and cases and not quiet:
        logger.warning(
            "%s: images that do not end in %s, are hidden, or no files, are passed over: %s",
            folder,
            file_ending,
            _some(passed_over),
        )
    return cases


def _some(names: list[str]) -> str:
    return ", ".join(names[:_EXAMPLES]) + (", ..." if len(names) > _EXAMPLES else "")


def get_filenames_of_train_images_and_targets(
    raw_dataset_folder: PathLike, dataset_json: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Case -> {"images": [file, ...], "label": file} (nnU-Net v2 2.8.1 behaviour); in the order of training.

    Raises:
        DatasetError: files are missing or misnamed.
    """
    dataset = RawDataset.scan(raw_dataset_folder, None if dataset_json is None else DatasetJson(dataset_json))
    faults = [fault for fault in dataset.faults if fault.kind != "no-cases"]
    if faults:
        raise faults_as_error(dataset.name, faults, len(dataset.cases))
    return {case.identifier: {"images": case.images, "label": case.label} for case in dataset.cases.values()}
