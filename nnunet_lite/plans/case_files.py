"""Which files belong to which case, by their names or by the list in dataset.json, and what is wrong with the names."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.plans.faults import Fault

_CHANNEL = re.compile(r"^(.+)_(\d{4})$")
IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff")
_EXAMPLES = 5  # names listed in a message


class RawCase(NamedTuple):
    """One training case: image files in channel order and its label map."""

    identifier: str
    images: list[str]
    label: str | None


def scan_folders(folder: Path, file_ending: str, findings: list[Fault]) -> dict[str, RawCase]:
    """Cases of imagesTr and labelsTr, sorted; what is wrong is appended to `findings`."""
    images, labels = folder / "imagesTr", folder / "labelsTr"
    missing = [needed for needed in (images, labels) if not needed.is_dir()]
    findings += [Fault("folder-missing", f"the folder {needed} does not exist") for needed in missing]
    if missing:
        return {}
    grouped = group_by_case(images, file_ending, findings)
    names = _listing(labels, file_ending, findings)
    present = {name for name in names if name.endswith(file_ending)}
    cases = {}
    for identifier, files in grouped.items():
        label = f"{identifier}{file_ending}"
        cases[identifier] = RawCase(identifier, files, str(labels / label) if label in present else None)
        if label not in present:
            findings.append(_missing_label(identifier, label, names))
    findings += [_surplus_label(name, file_ending, grouped) for name in sorted(present) if name not in _labels(cases)]
    return cases


def _labels(cases: Mapping[str, RawCase]) -> set[str]:
    return {Path(case.label).name for case in cases.values() if case.label is not None}


def _missing_label(identifier: str, label: str, names: Iterable[str]) -> Fault:
    similar = [name for name in names if name.lower().startswith(f"{identifier.lower()}.") or _stem(name) == identifier]
    hint = f"rename or convert {_examples(similar)}" if similar else ""
    return Fault("label-missing", "there is no label map", case=identifier, file=f"labelsTr/{label}", repair=hint)


def _stem(name: str) -> str:
    match = _CHANNEL.match(name.split(".")[0])
    return match[1] if match else ""


def _surplus_label(name: str, file_ending: str, cases: Mapping[str, Any]) -> Fault:
    case = name[: -len(file_ending)]
    match = _CHANNEL.match(case)
    repair = ""
    if match and match[1] in cases:
        repair = f"label maps carry no channel number: rename it to {match[1]}{file_ending}"
    return Fault("label-surplus", f"there is no image {case}_0000{file_ending}", "", case, f"labelsTr/{name}", repair)


def explicit_cases(folder: Path, entries: Mapping[str, Mapping[str, Any]], findings: list[Fault]) -> dict[str, RawCase]:
    """Cases of the list in dataset.json in its order; what is wrong is appended to `findings`."""
    cases = {}
    users: defaultdict[str, list[str]] = defaultdict(list)
    for identifier, entry in entries.items():
        images = [_resolved(folder, image) for image in entry["images"]]
        label = _resolved(folder, entry["label"]) if entry.get("label") is not None else None
        cases[identifier] = RawCase(identifier, images, label)
        for file in [*images, *([label] if label else [])]:
            users[file].append(identifier)
            if not Path(file).is_file():
                found = "listed in dataset.json, but it is not there"
                findings.append(Fault("file-missing", found, case=identifier, file=file))
        if label is None:
            found = 'its entry in "dataset" of dataset.json names no label'
            repair = 'add "label": file'
            findings.append(Fault("label-missing", found, case=identifier, file="dataset.json", repair=repair))
    for file, cases_of_file in users.items():
        if len(cases_of_file) > 1:
            found = f"listed {len(cases_of_file)} times, for {_some(dict.fromkeys(cases_of_file))}"
            findings.append(Fault("file-shared", found, case=cases_of_file[0], file=file))
    return cases


def name_faults(cases: Iterable[str]) -> list[Fault]:
    """Findings for names that would be mixed up with files of ours."""
    found = "the name of a case may not end in '_seg', which marks the label maps of preprocessed cases"
    return [Fault("case-name", found, case=identifier) for identifier in cases if identifier.endswith("_seg")]


def _resolved(folder: Path, file: str) -> str:
    """A path of dataset.json: environment variables expanded, relative to the dataset's folder."""
    return os.path.abspath(folder / os.path.expandvars(file))


def group_by_case(folder: Path, file_ending: str, findings: list[Fault]) -> dict[str, list[str]]:
    """Case -> its image files in channel order, of a folder, in one pass over its listing.

    Raises:
        DatasetError: the folder does not exist.
    """
    if not folder.is_dir():
        raise DatasetError(f"The folder {folder} does not exist")
    channels: dict[str, dict[int, str]] = {}
    names = _listing(folder, file_ending, findings)
    for name in names:
        match = _CHANNEL.match(name[: -len(file_ending)]) if name.endswith(file_ending) else None
        if match is not None:
            channels.setdefault(match[1], {})[int(match[2])] = str(folder / name)
        elif name.endswith(file_ending):
            findings.append(_misnamed(folder, name, file_ending, names))
        elif name.lower().endswith(IMAGE_ENDINGS):
            found = f"its ending is not {file_ending!r}"
            findings.append(Fault("image-ending", found, file=f"{folder.name}/{name}"))
    findings += _missing_channels(folder, file_ending, channels)
    findings += _clashes(folder, channels)
    return {
        identifier: [channels[identifier][number] for number in sorted(channels[identifier])]
        for identifier in sorted(channels)
    }


def _misnamed(folder: Path, name: str, file_ending: str, names: Collection[str]) -> Fault:
    """The finding for a name without channel; a name that another file has is never proposed."""
    if "\n" in name:
        found = "a line break in its name"
        return Fault("image-name", found, file=f"{folder.name}/{' '.join(name.split())}", repair="rename it")
    stem = name[: -len(file_ending)]
    first = f"{stem}_0000{file_ending}"
    suggestion = f"rename it to {first} if it is channel 0 of case {stem}"
    number = re.match(r"^(.+?)[_-](\d{1,3})$", stem)
    if first in names:
        suggestion = f"it looks like a segmentation of case {stem}; move it out of the folder"
    elif number:
        other = f"{number[1]}_{int(number[2]):04d}{file_ending}"
        suggestion += f", to {other} if {number[2]} is its channel" if other not in names else ""
    return Fault(
        "image-name",
        "no channel number at the end of its name",
        f"CASE_0000{file_ending} (case, channel with 4 digits)",
        file=f"{folder.name}/{name}",
        repair=suggestion,
    )


def _missing_channels(folder: Path, file_ending: str, channels: Mapping[str, Mapping[int, str]]) -> list[Fault]:
    """Gaps in the numbers of a case's channels, and channels that most other cases have."""
    counts = Counter(len(found) for found in channels.values())
    usual = counts.most_common(1)[0][0] if counts else 0
    findings = []
    for identifier, found in sorted(channels.items()):
        for number in (n for n in range(max(max(found) + 1, usual)) if n not in found):
            if number > usual + len(found):
                break  # a number far too high: that file is the mistake, not a thousand missing ones
            name = f"{identifier}_{number:04d}{file_ending}"
            findings.append(
                Fault("image-missing", "this channel is missing", case=identifier, file=f"{folder.name}/{name}")
            )
    return findings


def _clashes(folder: Path, channels: Mapping[str, Mapping[int, str]]) -> list[Fault]:
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for identifier in channels:
        spellings[identifier.casefold()].append(identifier)
    return [
        Fault("name-clash", f"the cases {', '.join(sorted(names))}", case=sorted(names)[0], file=folder.name)
        for names in spellings.values()
        if len(names) > 1
    ]


def _listing(folder: Path, file_ending: str, findings: list[Fault]) -> list[str]:
    """Sorted names of the files of a folder but the hidden ones, which become findings if they look like images."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                if entry.name.endswith(file_ending) and ".tmp." not in entry.name:
                    found = "its name starts with a dot (macOS leaves such files)"
                    findings.append(Fault("file-hidden", found, file=f"{folder.name}/{entry.name}"))
            elif _is_file(entry):
                names.append(entry.name)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                target = os.readlink(entry.path)
                findings.append(
                    Fault("file-broken-link", f"a link to {target}, not there", file=f"{folder.name}/{entry.name}")
                )
            elif entry.name.endswith(file_ending):
                found = "a folder" if os.path.isdir(entry.path) else "no file: a pipe, a socket or a device"
                findings.append(Fault("file-irregular", found, file=f"{folder.name}/{entry.name}"))
    return sorted(names)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads back to itself
        return False


def nothing_found(folder: Path, file_ending: str, is_listed: bool) -> Fault:
    """Finding for a dataset without any case."""
    if is_listed:
        file = folder / "dataset.json"
        repair = "list the cases there, or delete the key"
        return Fault("no-cases", f'there are no training cases in "dataset" of {file}', repair=repair)
    images = folder / "imagesTr"
    names = sorted(entry.name for entry in os.scandir(images) if not entry.name.startswith("."))
    return Fault(
        "no-cases",
        f"there are no training cases in {images}, it {'holds ' + _examples(names) if names else 'is empty'}",
        f'files CASE_0000{file_ending} ("file_ending" of dataset.json)',
        repair="rename the files or correct file_ending" if names else "put the images there",
    )


def _examples(names: list[str]) -> str:
    return f"{len(names)} file{'s' if len(names) > 1 else ''} ({_some(names)})"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_EXAMPLES]) + (", ..." if len(listed) > _EXAMPLES else "")
