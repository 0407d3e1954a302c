"""Integrity check of raw datasets: everything that is wrong, of every case, in one list."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nnunet_lite.configuration import usable_processes
from nnunet_lite.exceptions import DatasetError
from nnunet_lite.experiment_planning.case_comparison import compare_cases
from nnunet_lite.experiment_planning.case_examination import CaseReport, Questions, examine_case
from nnunet_lite.experiment_planning.document_check import check_document, readable_labels, usable_document
from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter
from nnunet_lite.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunet_lite.plans.case_files import RawCase
from nnunet_lite.plans.dataset_json import DatasetJson
from nnunet_lite.plans.faults import Fault, abridged, faults_as_error
from nnunet_lite.plans.raw_dataset import RawDataset
from nnunet_lite.utilities.files import PathLike
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.parallel import Task, run_tasks
from nnunet_lite.utilities.wording import counted, describe

_EXAMPLES = 5  # images that may be tried to choose a reader


class Survey(NamedTuple):
    """A dataset before any image is opened, what is wrong with it so far, and what to ask of every case."""

    dataset: RawDataset
    findings: list[Fault]
    questions: Questions


class Examination(NamedTuple):
    """Reports of the examined cases in the dataset's order, and every finding of the dataset and its cases."""

    reports: dict[str, CaseReport]
    findings: list[Fault]

    @property
    def faults(self) -> list[Fault]:
        """Findings that must be repaired."""
        return [finding for finding in self.findings if finding.is_fault]


class DatasetCheck(NamedTuple):
    """A checked dataset and what was found."""

    dataset: RawDataset
    examination: Examination


def verify_dataset_integrity(
    folder: PathLike, num_processes: int | None = None, *, show_progress: bool = True, max_ram: int | None = None
) -> None:
    """Check dataset.json, file names and every image and label map of a raw dataset; warnings are logged.

    Args:
        folder: DatasetXXX_NAME in nnUNet_raw.
        num_processes: background processes (default: nnUNet_def_n_proc); 0 works in this one.
        show_progress: show a progress bar.
        max_ram: bytes that cases examined at the same time may need by estimate.

    Raises:
        DatasetError: lists the faults, a line each.
    """
    check = check_dataset(folder, num_processes, show_progress=show_progress, max_ram=max_ram)
    conclude(check.dataset, check.examination)


def check_dataset(
    folder: PathLike, num_processes: int | None = None, *, show_progress: bool = True, max_ram: int | None = None
) -> DatasetCheck:
    """As `verify_dataset_integrity`, but returns what was found and raises nothing for it."""
    survey = survey_dataset(folder)
    description = "Verifying dataset integrity"
    examination = examine(
        survey.dataset, survey.findings, survey.questions, num_processes, description, show_progress, max_ram
    )
    return DatasetCheck(survey.dataset, with_comparison(survey.dataset, examination))


def with_comparison(dataset: RawDataset, examination: Examination) -> Examination:
    """Add what only shows when all cases of a dataset are compared (warnings)."""
    found = compare_cases(examination.reports, readable_labels(dataset.dataset_json))
    return examination._replace(
        findings=[*examination.findings, *(_with_short_path(finding, dataset.folder) for finding in found)]
    )


def conclude(dataset: RawDataset, examination: Examination) -> None:
    """Log the warnings; raise DatasetError if there are faults, else say that the dataset is fine."""
    log_warnings(examination.findings)
    if examination.faults:
        raise faults_as_error(dataset.name, examination.faults, len(dataset.cases))
    logger.info("%s: no faults found in %s", dataset.name, counted(len(dataset.cases), "case"))


def log_warnings(findings: Sequence[Fault]) -> None:
    """Log a few warnings of each kind, and how many more there are."""
    for line in abridged([finding for finding in findings if not finding.is_fault]):
        logger.warning("%s", line)


def survey_dataset(folder: PathLike) -> Survey:
    """What is wrong with dataset.json and the file names; where dataset.json fails, the files are asked instead."""
    folder = Path(folder)
    document, findings = check_document(folder / "dataset.json")
    usable = None if document is None else usable_document(document, folder, findings)
    if document is None or usable is None:
        nothing = RawDataset(folder.name, folder, document or DatasetJson({}), {}, [])
        return Survey(nothing, findings, Questions(None, None, 0))
    dataset = RawDataset.scan(folder, usable)
    findings += _number_of_cases(document, dataset) + dataset.findings
    return Survey(dataset, findings, Questions(_num_channels(document), allowed_labels(document), 0))


def _number_of_cases(document: DatasetJson, dataset: RawDataset) -> list[Fault]:
    try:
        declared = document.num_training
    except DatasetError:
        return []
    if declared == len(dataset.cases) or not dataset.cases:
        return []
    examples = ", ".join(list(dataset.cases)[:_EXAMPLES]) + (", ..." if len(dataset.cases) > _EXAMPLES else "")
    found = f"numTraining {declared}, but there are {len(dataset.cases)} training cases ({examples})"
    repair = f'write "numTraining": {len(dataset.cases)} if that is all'
    return [Fault("json-num-training", found, file="dataset.json", repair=repair)]


def _num_channels(document: DatasetJson) -> int | None:
    try:
        return document.num_input_channels
    except DatasetError:
        return None


def allowed_labels(document: DatasetJson) -> tuple[int, ...] | None:
    """Sorted labels that may occur in label maps, the ignore label among them; None if dataset.json names none."""
    values = readable_labels(document).values()
    numbers = {number for value in values for number in (value if isinstance(value, list) else [value])}
    return tuple(sorted({0, *numbers})) if numbers else None


def examine(
    dataset: RawDataset,
    findings: Sequence[Fault],
    questions: Questions,
    num_processes: int | None,
    description: str,
    show_progress: bool,
    max_ram: int | None,
    known: Mapping[str, CaseReport] | None = None,
    note: Callable[[str, CaseReport], None] | None = None,
) -> Examination:
    """Look at every case, as far as its files are there, in background processes, and collect what was found in each.

    Args:
        known: reports made before, of cases that need not be looked at again.
        note: called with each new report as soon as it is there.
    """
    existing = [_existing_files(case, findings) for case in dataset.cases.values()]
    cases = {case.identifier: case for case in existing if case.images or case.label is not None}
    if not cases:
        return Examination({}, list(findings))
    try:
        reader = choose_reader(dataset)
    except DatasetError as error:
        is_said = any(finding.kind == "json-file-ending" for finding in findings)
        return Examination({}, [*findings, *([] if is_said else [Fault("json-file-ending", str(error))])])
    incomplete = {finding.case for finding in findings if finding.kind in ("image-missing", "file-missing")}
    uncounted = questions._replace(num_channels=None)
    tasks = [
        Task(name, examine_case, (case, reader, uncounted if name in incomplete else questions), _memory(reader, case))
        for name, case in cases.items()
        if name not in (known or {})
    ]
    tasks.sort(key=lambda task: task.memory, reverse=True)
    processes = usable_processes(num_processes)
    reports = dict(known or {})
    for outcome in run_tasks(tasks, processes, description=description, show_progress=show_progress, max_ram=max_ram):
        if outcome.error is not None:
            reports[outcome.name] = CaseReport([Fault("case-failed", describe(outcome.error), case=outcome.name)])
            continue
        reports[outcome.name] = outcome.value
        if note is not None:
            note(outcome.name, outcome.value)
    in_order = {name: reports[name] for name in cases}
    found = [*findings, *(finding for report in in_order.values() for finding in report.findings)]
    return Examination(in_order, [_with_short_path(finding, dataset.folder) for finding in found])


def _existing_files(case: RawCase, findings: Sequence[Fault]) -> RawCase:
    missing = {finding.file for finding in findings if finding.kind == "file-missing"}
    label = None if case.label in missing else case.label
    return RawCase(case.identifier, [file for file in case.images if file not in missing], label)


def _with_short_path(finding: Fault, folder: Path) -> Fault:
    """Files of the dataset relative to its folder: they are told apart by their ends."""
    file, found = (text.replace(f"{folder}/", "") for text in (finding.file, finding.found))
    return dataclasses.replace(finding, file=file, found=found)


def choose_reader(dataset: RawDataset) -> type[BaseReaderWriter]:
    """Reader of the dataset, tried on its first image that can be read at all.

    Raises:
        DatasetError: there is no reader for the file ending.
    """
    for case in list(dataset.cases.values())[:_EXAMPLES]:
        if case.images and Path(case.images[0]).is_file():
            try:
                return determine_reader_writer_from_dataset_json(dataset.dataset_json.raw, case.images[0])
            except DatasetError as error:
                logger.debug("%s", error)
    return determine_reader_writer_from_dataset_json(dataset.dataset_json.raw)


def _memory(reader: type[BaseReaderWriter], case: RawCase) -> int:
    """Estimated bytes for examining a case; 0 if its first image cannot be read, which its examination will say."""
    if not case.images:
        return 0
    try:
        channels, *shape = reader().read_header(case.images[0]).shape
    except DatasetError:
        return 0
    return math.prod(shape) * (4 * channels * len(case.images) + 12)
