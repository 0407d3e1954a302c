"""Integrity check of raw datasets: everything that is wrong, of every case, in one list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from nnunet_lite.configuration import num_processes_default
from nnunet_lite.exceptions import DatasetError
from nnunet_lite.experiment_planning.case_examination import CaseReport, Questions, examine_case
from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter
from nnunet_lite.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.raw_dataset import Fault, RawCase, RawDataset, faults_as_error
from nnunet_lite.utilities.files import PathLike
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.parallel import Task, describe, run_tasks

_EXAMPLES = 5  # images that may be tried to choose a reader


class Examination(NamedTuple):
    """Reports of all cases in the dataset's order, and every fault of the dataset and its cases."""

    reports: dict[str, CaseReport]
    faults: list[Fault]


def verify_dataset_integrity(
    folder: PathLike, num_processes: int | None = None, *, show_progress: bool = True, max_ram: int | None = None
) -> None:
    """Check dataset.json, file names and every image and label map of a raw dataset.

    Warns about label maps that are all background and about origins and directions that differ.

    Args:
        folder: DatasetXXX_NAME in nnUNet_raw.
        num_processes: background processes (default: nnUNet_def_n_proc); 0 works in this one.
        show_progress: show a progress bar.
        max_ram: bytes that cases examined at the same time may need by estimate.

    Raises:
        DatasetError: lists all faults, a line each.
    """
    dataset = RawDataset.scan(folder)
    faults = find_faults(dataset)
    questions = Questions(dataset.dataset_json.num_input_channels, allowed_labels(dataset), 0)
    conclude(
        dataset,
        examine(dataset, faults, questions, num_processes, "Verifying dataset integrity", show_progress, max_ram),
    )


def conclude(dataset: RawDataset, examination: Examination) -> None:
    """Log the warnings; raise DatasetError if there are faults, else say that the dataset is fine."""
    for report in examination.reports.values():
        for warning in report.warnings:
            logger.warning("%s", warning)
    if examination.faults:
        raise faults_as_error(dataset.name, examination.faults, len(dataset.cases))
    logger.info("%s: no faults found in %d cases", dataset.name, len(dataset.cases))


def find_faults(dataset: RawDataset) -> list[Fault]:
    """What is wrong with dataset.json and the file names, without opening any image.

    Raises:
        DatasetError: dataset.json is such that images cannot be checked against it (lists the rest, too).
    """
    faults = [*_faults_of_document(dataset), *dataset.faults]
    if any(fault.kind == "dataset.json" for fault in faults):
        raise faults_as_error(dataset.name, faults, len(dataset.cases))
    return faults


def _faults_of_document(dataset: RawDataset) -> Iterator[Fault]:
    document = dataset.dataset_json
    missing = document.missing_keys
    if missing:
        hint = '; rename "modality" to "channel_names"' if "modality" in document.raw else ""
        yield Fault("", "dataset.json", f"{document.source} lacks {', '.join(missing)}{hint}")
    checks: dict[str, Callable[[], object]] = {
        "channel_names": lambda: document.channel_names,
        "labels": lambda: _require_sound_labels(dataset),
        "numTraining": lambda: document.num_training,
    }
    for key, check in checks.items():
        try:
            value = None if key in missing else check()
        except DatasetError as error:
            yield Fault("", "dataset.json", str(error))
        else:
            if key == "numTraining" and value is not None and dataset.cases and value != len(dataset.cases):
                examples = ", ".join(list(dataset.cases)[:_EXAMPLES])
                yield Fault(
                    "",
                    "numTraining",
                    f"dataset.json says numTraining {value}, but there are "
                    f"{len(dataset.cases)} training cases ({examples}, ...)",
                )


def _require_sound_labels(dataset: RawDataset) -> None:
    labels = allowed_labels(dataset)
    expected = list(range(len(labels)))
    if list(labels) != expected:
        raise DatasetError(
            f"labels of dataset.json are {list(labels)}, expected consecutive numbers {expected}; renumber them in "
            "dataset.json and in the label files"
        )


def allowed_labels(dataset: RawDataset) -> tuple[int, ...]:
    """Sorted labels that may occur in label maps, the ignore label among them. Raises DatasetError."""
    document = dataset.dataset_json
    manager = LabelManager(document.labels, document.regions_class_order)
    ignore = manager.ignore_label
    return tuple(sorted({*manager.all_labels, *([] if ignore is None else [ignore])}))


def examine(
    dataset: RawDataset,
    faults: list[Fault],
    questions: Questions,
    num_processes: int | None,
    description: str,
    show_progress: bool,
    max_ram: int | None,
    note: Callable[[str, CaseReport], None] | None = None,
) -> Examination:
    """Look at every case whose files are all there, in background processes, and collect what was found.

    `note` is called with each report as soon as it is there.
    """
    faults = list(faults)
    broken = {fault.case for fault in faults}
    cases = [case for case in dataset.cases.values() if case.identifier not in broken and case.label is not None]
    if not cases:
        return Examination({}, faults)
    reader = choose_reader(dataset)
    tasks = [Task(case.identifier, examine_case, (case, reader, questions), _memory(reader, case)) for case in cases]
    tasks.sort(key=lambda task: task.memory, reverse=True)
    processes = num_processes_default() if num_processes is None else num_processes
    reports: dict[str, CaseReport] = {}
    for outcome in run_tasks(tasks, processes, description=description, show_progress=show_progress, max_ram=max_ram):
        if outcome.error is None:
            reports[outcome.name] = outcome.value
            if note is not None:
                note(outcome.name, outcome.value)
        else:
            reports[outcome.name] = CaseReport([Fault(outcome.name, "failed", describe(outcome.error))], [])
    in_order = {case.identifier: reports[case.identifier] for case in cases}
    return Examination(in_order, faults + [fault for report in in_order.values() for fault in report.faults])


def choose_reader(dataset: RawDataset) -> type[BaseReaderWriter]:
    """Reader of the dataset, tried on its first image that can be read at all.

    Raises:
        DatasetError: there is no reader for the file ending.
    """
    for case in list(dataset.cases.values())[:_EXAMPLES]:
        if Path(case.images[0]).is_file():
            try:
                return determine_reader_writer_from_dataset_json(dataset.dataset_json.raw, case.images[0])
            except DatasetError as error:
                logger.debug("%s", error)
    return determine_reader_writer_from_dataset_json(dataset.dataset_json.raw)


def _memory(reader: type[BaseReaderWriter], case: RawCase) -> int:
    """Estimated bytes for examining a case; 0 if its first image cannot be read, which its examination will say."""
    try:
        channels, *shape = reader().read_header(case.images[0]).shape
    except DatasetError:
        return 0
    voxels = 1
    for edge in shape:
        voxels *= edge
    return voxels * (4 * channels * len(case.images) + 12)
