"""Everything that is wrong with dataset.json at once, and a view of it that is complete enough to look at the files."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import DatasetError, ExtensionError
from nnunet_lite.experiment_planning.region_table import region_table, regions_of
from nnunet_lite.imageio.reader_writer_registry import READERS_BY_ENDING, find_reader_writer
from nnunet_lite.plans.dataset_json import LIST_ENTRY, REQUIRED_KEYS, DatasetJson, as_label, list_problems, short
from nnunet_lite.plans.faults import Fault
from nnunet_lite.plans.label_manager import LabelManager

_OPTIONAL_KEYS = ("regions_class_order", "overwrite_image_reader_writer", "dataset")
_FILE = "dataset.json"


def check_document(file: Path) -> tuple[DatasetJson | None, list[Fault]]:
    """The document and its findings; None if it cannot be read at all."""
    try:
        document = DatasetJson.from_file(file)
    except DatasetError as error:
        if file.is_file():
            return None, [Fault("json-unreadable", str(error), file=_FILE)]
        similar = [other.name for other in file.parent.glob("*.json")]
        repair = f"is it {', '.join(sorted(similar)[:3])}? Rename it" if similar else ""
        return None, [Fault("json-missing", str(error), file=_FILE, repair=repair)]
    findings = [
        *_keys(document.raw),
        *_channels(document),
        *_labels(document),
        *_number_and_ending(document),
        *_reader(document),
        *_file_list(document.raw.get("dataset")),
        *_duplicate_keys(file),
    ]
    return document, findings


def readable_labels(document: DatasetJson) -> dict[str, int | list[int]]:
    """The labels if each is a number or a list of them, whatever else is wrong with them; else none at all."""
    try:
        return document.labels
    except DatasetError:
        return {}


def sound_labels(document: DatasetJson) -> LabelManager | None:
    """The label manager, or None where labels or regions are such that there is none."""
    try:
        return LabelManager(document.labels, document.regions_class_order)
    except DatasetError:
        return None


def usable_document(document: DatasetJson, folder: Path, findings: list[Fault]) -> DatasetJson | None:
    """The document with what its files say in place of what is missing or wrong; None if that cannot be guessed."""
    raw = dict(document.raw)
    if any(finding.kind == "json-reader" for finding in findings):
        del raw["overwrite_image_reader_writer"]
    if raw.get("dataset") is not None and list_problems(raw["dataset"]):
        raw["dataset"] = {case: raw["dataset"][case] for case in _sound_entries(raw["dataset"])}
        if not raw["dataset"]:
            return None
    try:
        ending: str | None = document.file_ending
    except DatasetError:
        ending = None
    guessed = _guessed_ending(folder, raw.get("dataset"))
    if guessed is not None and (ending is None or _is_of_no_file(ending, folder, raw)):
        if ending is not None:
            findings[:] = [finding for finding in findings if finding.kind != "json-file-ending"]
            found = f"file_ending is {short(ending)}, but no image ends in it"
            repair = f'write "file_ending": "{guessed}", or convert the images'
            findings.append(Fault("json-file-ending", found, repr(guessed), file=_FILE, repair=repair))
        ending = guessed
    return None if ending is None else DatasetJson({**raw, "file_ending": ending}, document.source)


def _is_of_no_file(ending: str, folder: Path, raw: Mapping[str, Any]) -> bool:
    images = folder / "imagesTr"
    if raw.get("dataset") is not None or not images.is_dir():
        return False
    return not any(path.name.endswith(ending) for path in images.iterdir() if not path.name.startswith("."))


def _sound_entries(entries: Any) -> list[str]:
    if not isinstance(entries, dict):
        return []
    return [case for case, entry in entries.items() if not list_problems({case: entry})]


def _guessed_ending(folder: Path, listed: Mapping[str, Any] | None) -> str | None:
    """The known ending that most images have."""
    images = folder / "imagesTr"
    names = [path.name for path in images.iterdir() if not path.name.startswith(".")] if images.is_dir() else []
    names += [Path(file).name for entry in (listed or {}).values() for file in entry["images"]]
    endings = sorted({ending for _, known in READERS_BY_ENDING for ending in known}, key=len, reverse=True)
    found = ((name, next((ending for ending in endings if name.lower().endswith(ending)), "")) for name in names)
    counts = Counter(name[-len(ending) :] for name, ending in found if ending)
    return counts.most_common(1)[0][0] if counts else None


def _keys(raw: Mapping[str, Any]) -> Iterator[Fault]:
    for key in REQUIRED_KEYS:
        if key in raw:
            continue
        old = key == "channel_names" and "modality" in raw
        repair = 'rename "modality" to "channel_names"' if old else ""
        close = [] if old else difflib.get_close_matches(key, [k for k in raw if k not in REQUIRED_KEYS], 1, 0.6)
        repair = f'rename "{close[0]}"' if close else repair
        yield Fault("json-key-missing", f'it lacks "{key}"', ", ".join(REQUIRED_KEYS), file=_FILE, repair=repair)
    known = (*REQUIRED_KEYS, *_OPTIONAL_KEYS)
    for key in raw:
        close = difflib.get_close_matches(key, _OPTIONAL_KEYS, 1, 0.75) if key not in known else []
        if close and close[0] not in raw:
            yield Fault("json-key-unknown", f'the key "{key}", which nothing reads', f'"{close[0]}"', file=_FILE)


def _channels(document: DatasetJson) -> Iterator[Fault]:
    if "channel_names" in document.raw or "modality" in document.raw:
        try:
            _ = document.channel_names
        except DatasetError as error:
            yield _from(error, "json-channel-names", document)


def _from(error: DatasetError, kind: str, document: DatasetJson) -> Fault:
    """A finding from the error of one property, whose text has the value and what was expected."""
    found, _, expected = str(error).removeprefix(f"{document.source}: ").partition("; expected ")
    return Fault(kind, found, expected, file=_FILE)


def _labels(document: DatasetJson) -> Iterator[Fault]:
    labels = document.raw.get("labels")
    if "labels" not in document.raw:
        return
    if not isinstance(labels, dict) or not labels:
        yield Fault("json-labels", f'"labels" is {short(labels)}', '{"background": 0, name: number, ...}', file=_FILE)
        return
    if all(str(name).isdecimal() and isinstance(value, str) and not _is_label(value) for name, value in labels.items()):
        found = f"labels are in the form of nnU-Net v1, {short(labels)}"
        repair = "turn number and name round, or convert the dataset with nnUNetv2_convert_old_nnUNet_dataset"
        yield Fault("json-labels", found, '{"background": 0, name: number, ...}', file=_FILE, repair=repair)
        return
    wrong = {name: value for name, value in labels.items() if not _is_label(value)}
    for name, value in wrong.items():
        expected = "a whole number from 0 to 65535, or a list of them"
        yield Fault("json-labels", f"the label {name!r} is {short(value)}", expected, file=_FILE)
    yield from _background(labels)
    if not wrong:
        yield from _numbers(document)


def _is_label(value: Any) -> bool:
    try:
        as_label(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _background(labels: Mapping[str, Any]) -> Iterator[Fault]:
    if "background" not in labels:
        close = [name for name in labels if name.casefold().strip() in ("background", "bg", "backgroud", "back ground")]
        repair = f'rename "{close[0]}" to "background"' if close else ""
        yield Fault("json-background", "labels have no background", '"background": 0', file=_FILE, repair=repair)
    elif _is_label(labels["background"]) and as_label(labels["background"]) != 0:
        found = f"background is {short(labels['background'])}"
        yield Fault("json-background", found, "0", file=_FILE, repair="renumber the labels here and in the label files")


def _numbers(document: DatasetJson) -> Iterator[Fault]:
    """Findings about labels that are whole numbers each: gaps, the ignore label, regions."""
    labels = {name: value for name, value in document.labels.items() if name != "ignore"}
    numbers = sorted({n for value in labels.values() for n in (value if isinstance(value, list) else [value])} | {0})
    ignore = document.labels.get("ignore")
    if isinstance(ignore, list) or (ignore is not None and isinstance(document.raw["labels"]["ignore"], str)):
        found = f"ignore is {short(document.raw['labels']['ignore'])}"
        yield Fault("json-ignore", found, "a whole number", file=_FILE, repair="write it as one number")
    elif ignore is not None and ignore != numbers[-1] + 1:
        expected = f"the highest label plus one, {numbers[-1] + 1}"
        yield Fault("json-ignore", f"ignore is {ignore}", expected, file=_FILE)
    gaps = set(range(numbers[-1])) - set(numbers)
    if gaps - {ignore if isinstance(ignore, int) else None}:
        expected = f"consecutive numbers {short(list(range(len(numbers))), 60)}"
        yield Fault("json-label-gap", f"labels are {short(numbers)}", expected, file=_FILE)
    if any(isinstance(value, list) and len(value) > 1 for value in labels.values()):
        yield from _regions(document)
        return
    plain = Counter(value[0] if isinstance(value, list) else value for value in labels.values())
    for number in (number for number, times in plain.items() if times > 1):
        names = [name for name, value in labels.items() if value in (number, [number])]
        yield Fault("json-label-twice", f"label {number} is {' and '.join(names)}", file=_FILE)


def _regions(document: DatasetJson) -> Iterator[Fault]:
    labels = document.labels
    names = list(regions_of(labels))
    expected = f"one label for each of the {len(names)} regions {short(names)}, in their order"
    try:
        order = document.regions_class_order
    except DatasetError as error:
        yield _from(error, "json-region-order", document)
        return
    if order is None:
        found = 'labels are regions, but there is no "regions_class_order"'
        yield Fault("json-region-order", found, expected, file=_FILE)
    elif len(order) != len(names):
        yield Fault("json-region-order", f"regions_class_order is {short(order)}", expected, file=_FILE)
    else:
        table = [row for row in region_table(labels, order) if row.written != row.label]
        if table:
            found = ", ".join(f"label {row.label} ({' and '.join(row.regions)}) as {row.written}" for row in table[:5])
            details = {str(row.label): row.written for row in table}
            found = f"predictions write {found}" + (", ..." if len(table) > 5 else "")
            yield Fault("json-region-written", found, "each label as itself", file=_FILE, details=details)


def _number_and_ending(document: DatasetJson) -> Iterator[Fault]:
    for key, kind, attribute in (
        ("numTraining", "json-num-training", "num_training"),
        ("file_ending", "json-file-ending", "file_ending"),
    ):
        try:
            _ = getattr(document, attribute) if key in document.raw else None
        except DatasetError as error:
            yield _from(error, kind, document)
    known = {ending for _, endings in READERS_BY_ENDING for ending in endings}
    ending = document.raw.get("file_ending")
    if isinstance(ending, str) and ending.startswith(".") and ending.lower() not in known and not _has_reader(document):
        expected = f"one of {', '.join(sorted(known))}"
        repair = "convert the images, or name a reader of your own under overwrite_image_reader_writer"
        found = f"there is no reader for files ending in {short(ending)}"
        yield Fault("json-file-ending", found, expected, file=_FILE, repair=repair)


def _has_reader(document: DatasetJson) -> bool:
    return document.reader_writer_name is not None and not any(True for _ in _reader(document))


def _reader(document: DatasetJson) -> Iterator[Fault]:
    name = document.reader_writer_name
    if name is None:
        return
    try:
        find_reader_writer(name)
    except ExtensionError as error:
        found = str(error).partition(". Searched")[0]
        yield Fault("json-reader", f"overwrite_image_reader_writer: {found}", file=_FILE)


def _file_list(listed: Any) -> Iterator[Fault]:
    for problem in list_problems(listed) if listed is not None else ():
        yield Fault("json-file-list", f'"dataset" has {problem}', LIST_ENTRY, file=_FILE)


def _duplicate_keys(file: Path) -> Iterator[Fault]:
    """JSON readers keep the last of two equal keys and say nothing."""
    found: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found.extend(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        return dict(pairs)

    json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=note)
    for key in dict.fromkeys(found):
        yield Fault("json-duplicate-key", f"the key {short(key)} stands there more than once", file=_FILE)
