"""What can be wrong with a raw dataset: the kinds of faults and warnings, and one finding of such a kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nnunet_lite.exceptions import DatasetError

_LISTED = 5  # findings of one kind that an error message lists


class Kind(NamedTuple):
    """A kind of finding: whether it stops the work, what it is called, what usually repairs it."""

    is_fault: bool
    title: str
    repair: str


def _fault(title: str, repair: str) -> Kind:
    return Kind(True, title, repair)


def _warning(title: str, repair: str) -> Kind:
    return Kind(False, title, repair)


# The identifiers stand in users' scripts (--json): never rename one. What upstream lets pass is a warning.
KINDS: dict[str, Kind] = {
    # dataset.json
    "json-missing": _fault("dataset.json is missing", "write it; documentation/dataset-format.md shows one"),
    "json-unreadable": _fault("dataset.json cannot be read", "correct it; a JSON checker shows the place"),
    "json-duplicate-key": _warning("a key of dataset.json stands there twice, the last one counts", "delete one"),
    "json-key-missing": _fault("required keys of dataset.json are missing", "add it"),
    "json-key-unknown": _warning("keys of dataset.json that look misspelt", "correct the spelling"),
    "json-channel-names": _fault("channel_names cannot be used", 'number the channels "0", "1", ... without gaps'),
    "json-labels": _fault("labels cannot be used", "give each name a whole number, or a list of them (a region)"),
    "json-background": _fault("background is not label 0", 'write "background": 0 into labels'),
    "json-ignore": _fault("the ignore label is wrong", "renumber it in dataset.json and in the label files"),
    "json-label-gap": _fault("labels are not consecutive", "renumber them in dataset.json and in the label files"),
    "json-label-twice": _warning("two names have the same label", "keep one name"),
    "json-region-order": _fault("regions_class_order does not fit the regions", "give one label for each region"),
    "json-region-written": _warning(
        "regions_class_order writes other labels than the label files hold",
        "order the regions from large to small, each with the label of the part that only it has",
    ),
    "json-num-training": _fault("numTraining is not the number of training cases", "correct numTraining"),
    "json-file-ending": _fault("file_ending cannot be used", 'name the ending of all files, such as ".nii.gz"'),
    "json-reader": _warning("the reader named in dataset.json is unknown and passed over", "correct or delete it"),
    "json-file-list": _fault(
        'entries of "dataset" cannot be used', 'write case: {"images": [file, ...], "label": file}'
    ),
    # files
    "folder-missing": _fault("a folder is missing", "create it and put the files there"),
    "no-cases": _fault(
        "there are no training cases", "name the files CASE_0000.ending and give the ending as file_ending"
    ),
    "image-name": _fault("images are misnamed", "rename them to CASE_CHANNEL.ending, the channel with 4 digits"),
    "image-ending": _warning("images with another ending are passed over", "convert them, or move them elsewhere"),
    "image-missing": _fault("channels are missing", "add the file, or remove the case"),
    "label-missing": _fault("label maps are missing", "add the file, or move the case's images to imagesTs"),
    "label-surplus": _warning("label maps without an image", "add the images, or remove the label map"),
    "file-missing": _fault("listed files are missing", 'add the file, or correct "dataset" in dataset.json'),
    "file-broken-link": _fault("links that lead nowhere", "renew the link, or put the file itself there"),
    "file-irregular": _warning("folders or devices named as images are passed over", "put the file itself there"),
    "file-hidden": _warning("hidden files are passed over", "delete them; nnU-Net v2 itself takes them for cases"),
    "file-shared": _warning("one file is used more than once", "correct the list if that is not meant"),
    "case-name": _fault("case names that cannot be used", "rename the files of this case"),
    "name-clash": _warning(
        "names that differ in upper and lower case only", "rename one: Windows and macOS take them for one file"
    ),
    # images
    "image-unreadable": _fault("images cannot be read", "replace the file with an intact copy"),
    "image-not-finite": _fault("images hold NaN or infinity", "give these voxels a value, such as the background's"),
    "image-constant": _warning("images are constant", "check the export; a constant channel teaches nothing"),
    "image-duplicate": _warning(
        "images are identical", "remove all but one: copies in training and validation mislead"
    ),
    "channel-count": _fault("wrong number of channels", "add or remove files, or correct channel_names"),
    "channel-shape": _fault("channels of a case differ in shape", "resample all channels onto one voxel grid"),
    "channel-spacing": _fault("channels of a case differ in spacing", "resample all channels onto one voxel grid"),
    "channel-origin": _warning("channels of a case differ in origin", "check that they lie on each other"),
    "channel-direction": _warning("channels of a case differ in direction", "check that they lie on each other"),
    "spacing-not-positive": _fault("spacings are not positive", "correct the header of the file"),
    "spacing-outlier": _warning("spacings far from those of most cases", "check the header: wrong unit, swapped axes?"),
    "size-outlier": _warning("sizes far from those of most cases", "check that it shows the same region as the others"),
    "dimension-mixture": _warning("2D and 3D images in one dataset", "keep one kind"),
    # label maps
    "label-unreadable": _fault("label maps cannot be read", "replace the file with an intact copy"),
    "label-channels": _fault("label maps with several channels", "store one whole number per voxel"),
    "label-not-integer": _fault("label maps hold values that are no whole numbers", "store each voxel's label number"),
    "label-values": _fault(
        "label maps hold values that dataset.json does not list", "add them to labels, or correct the label map"
    ),
    "label-empty": _warning("label maps hold background only", "check that the annotation was exported"),
    "label-never": _warning("labels that occur in no case", "remove them from dataset.json if that is not meant"),
    "label-shape": _fault("label map and image differ in shape", "resample the label map onto the image's grid"),
    "label-spacing": _fault(
        "label map and image differ in spacing", "copy the image's header to the label map if they fit, else resample"
    ),
    "label-origin": _warning("label map and image differ in origin", "check that they lie on each other"),
    "label-direction": _warning("label map and image differ in direction", "check that they lie on each other"),
    # work
    "reader-warning": _warning("what the reader remarked", "see the message"),
    "case-failed": _fault("cases could not be examined", "see the message"),
}


@dataclass(frozen=True)
class Fault:
    """One finding, a fault or a warning; `case` and `file` are empty if it concerns the dataset as a whole."""

    kind: str
    found: str
    expected: str = ""
    case: str = ""
    file: str = ""
    repair: str = ""  # better advice than that of the kind
    details: Mapping[str, Any] = field(default_factory=dict)  # numbers for programs, such as voxels per label

    @property
    def is_fault(self) -> bool:
        """Whether it must be repaired; else it is a warning."""
        return KINDS[self.kind].is_fault

    @property
    def advice(self) -> str:
        """What to do about it."""
        return self.repair or KINDS[self.kind].repair

    @property
    def message(self) -> str:
        """File, finding, expectation and advice in one line."""
        expected = f", expected {self.expected}" if self.expected else ""
        advice = "" if self.advice == "see the message" else f"; {self.advice}"
        return f"{self.file + ': ' if self.file else ''}{self.found}{expected}{advice}"

    def __str__(self) -> str:
        return f"{self.case}: {self.message}" if self.case else self.message


def faults_as_error(dataset: str, faults: Sequence[Fault], num_cases: int) -> DatasetError:
    """One error for everything that is wrong: the fault itself if it is alone, else a summary and a line for each.

    Of each kind a few are listed and the others counted, so that the message stays readable.
    """
    if len(faults) == 1:
        return DatasetError(f"{dataset}: {faults[0]}")
    broken = len({fault.case for fault in faults if fault.case})
    affected = f" ({broken} of {num_cases} cases are affected)" if broken else ""
    summary = f"{dataset} has {len(faults)} faults{affected}; correct them:"
    return DatasetError("\n  ".join([summary, *abridged(faults)]))


def abridged(findings: Sequence[Fault]) -> list[str]:
    """A line for each finding, but of one kind no more than a few; then how many more there are of it."""
    totals, seen = Counter(finding.kind for finding in findings), Counter[str]()
    lines = []
    for finding in findings:
        seen[finding.kind] += 1
        if seen[finding.kind] <= _LISTED:
            lines.append(str(finding))
    more = {kind: total - _LISTED for kind, total in totals.items() if total > _LISTED}
    lines += [f"and {number} more: {KINDS[kind].title}" for kind, number in more.items()]
    if more:
        lines.append("nnUNetv2_check_dataset --json FILE writes all of them")
    return lines
