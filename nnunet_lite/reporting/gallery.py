"""Which cases are drawn, from which files, in background processes where that pays."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_lite.configuration import usable_processes
from nnunet_lite.evaluation.metrics import LabelOrRegion
from nnunet_lite.exceptions import nnUNetError
from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter
from nnunet_lite.paths import nnUNet_preprocessed, nnUNet_raw
from nnunet_lite.plans.case_files import RawCase
from nnunet_lite.plans.dataset_json import DatasetJson
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.plans.raw_dataset import RawDataset
from nnunet_lite.reporting.case_pictures import PictureTask, draw_case
from nnunet_lite.reporting.case_results import CaseResult, Results, worst_and_median
from nnunet_lite.reporting.gallery_section import DrawnCase, gallery_section
from nnunet_lite.reporting.markup import Markup, element, joined
from nnunet_lite.utilities.parallel import Task, run_tasks
from nnunet_lite.utilities.wording import describe

WORST, MEDIAN = 10, 3  # cases that are drawn
_BYTES_PER_VOXEL = 12  # image as float32, labels, what is foreground, what is wrong
_WORTHWHILE = 30_000_000  # voxels of all cases from which on starting processes pays


class Gallery(NamedTuple):
    """Whose cases are drawn."""

    dataset: str
    results: Results
    names: Mapping[LabelOrRegion, str]
    channel: int = 0
    num_processes: int | None = None


class _Files(NamedTuple):
    """Where images and references lie."""

    cases: Mapping[str, RawCase]
    references: Path | None  # copies made by preprocessing
    ending: str


def make_gallery(gallery: Gallery, model: Path) -> Markup:
    """The ten worst and three median cases; a case that cannot be drawn says why.

    Args:
        model: folder with plans.json and dataset.json, which name the reader and the ignore label.
    """
    worst, median = worst_and_median(gallery.results.cases, WORST, MEDIAN)
    if not worst and not median:
        return element("p", "No case has a Dice.", class_="note")
    try:
        document = DatasetJson.from_file(model / "dataset.json")
        plans = PlansManager(model / "plans.json")
        reader = plans.image_reader_writer_class
        ignore = plans.get_label_manager(document.raw).ignore_label
        files = _files(gallery.dataset, str(document.file_ending))
    except (nnUNetError, OSError) as error:
        return element("p", f"The cases cannot be drawn: {describe(error)}", class_="warning")
    cases = [*worst, *median]
    tasks = [
        _task_or_fault(case, gallery, files, reader, ignore, at_errors=number < len(worst))
        for number, case in enumerate(cases)
    ]
    drawn = _draw(cases, tasks, gallery.num_processes)
    groups = [
        (_title("worst", len(worst), "slices with most errors"), drawn[: len(worst)]),
        (_title("median", len(median), "slices with most foreground"), drawn[len(worst) :]),
    ]
    note = None
    if any(not isinstance(task, str) and task.image is None for task in tasks):
        words = "Images that are not in nnUNet_raw cannot be shown: of these cases the outlines alone are drawn."
        note = element("p", words, class_="note")
    heading = element("p", f"Of {gallery.results.name}, before postprocessing, by the mean Dice of a case's classes.")
    return joined(heading, note, gallery_section(groups, gallery.results.classes, gallery.names))


def _title(which: str, number: int, slices: str) -> str:
    return f"{'Case' if number == 1 else f'{number} cases'} with the {which} Dice ({slices})"


def _files(dataset: str, ending: str) -> _Files:
    cases: Mapping[str, RawCase] = {}
    if nnUNet_raw.is_set() and (nnUNet_raw / dataset / "dataset.json").is_file():
        try:
            cases = RawDataset.scan(nnUNet_raw / dataset).cases
        except nnUNetError:
            cases = {}
    references = None
    if nnUNet_preprocessed.is_set():
        folder = Path(os.fspath(nnUNet_preprocessed)) / dataset / "gt_segmentations"
        references = folder if folder.is_dir() else None
    return _Files(cases, references, ending)


def _task_or_fault(case: CaseResult, *arguments: Any, at_errors: bool) -> PictureTask | str:
    """`_task`; a file that cannot even be looked for, as one with a name that is too long, is why nothing is drawn."""
    try:
        return _task(case, *arguments, at_errors=at_errors)
    except OSError as error:
        return describe(error)


def _task(
    case: CaseResult,
    gallery: Gallery,
    files: _Files,
    reader: type[BaseReaderWriter],
    ignore_label: int | None,
    *,
    at_errors: bool,
) -> PictureTask | str:
    """What is drawn of a case, or why nothing is."""
    raw = files.cases.get(case.name)
    reference = None if raw is None or raw.label is None else Path(raw.label)
    if (reference is None or not reference.is_file()) and files.references is not None:
        reference = files.references / f"{case.name}{files.ending}"
    if reference is None or not reference.is_file():
        return "its reference is neither in nnUNet_raw nor in nnUNet_preprocessed"
    if not case.prediction.is_file():
        return f"its prediction {case.prediction} is not there any more"
    image, channel = _image_and_channel(raw, gallery.channel, reader)
    classes = tuple(gallery.results.classes)
    return PictureTask(reader, image, channel, str(reference), str(case.prediction), classes, ignore_label, at_errors)


def _image_and_channel(raw: RawCase | None, channel: int, reader: type[BaseReaderWriter]) -> tuple[str | None, int]:
    """The file that holds a channel, and its number in there; one file may hold all."""
    images = [] if raw is None else [file for file in raw.images if Path(file).is_file()]
    if not images:
        return None, 0
    if len(images) == 1:
        return images[0], channel
    return images[min(channel, len(images) - 1)], 0


def _draw(
    cases: Sequence[CaseResult], tasks: Sequence[PictureTask | str], num_processes: int | None
) -> list[DrawnCase]:
    """All cases in order; small ones are drawn in this process, which is faster than to start others."""
    voxels = [0 if isinstance(task, str) else _voxels(task) for task in tasks]
    jobs = [
        Task(str(number), draw_case, (task,), _BYTES_PER_VOXEL * size)
        for number, (task, size) in enumerate(zip(tasks, voxels, strict=True))
        if not isinstance(task, str)
    ]
    jobs.sort(key=lambda job: job.memory, reverse=True)
    processes = usable_processes(num_processes) if sum(voxels) > _WORTHWHILE else 0
    outcomes = {
        int(outcome.name): outcome
        for outcome in run_tasks(jobs, processes, description="Drawing", show_progress=processes > 0)
    }
    drawn = []
    for number, (case, task) in enumerate(zip(cases, tasks, strict=True)):
        if isinstance(task, str):
            drawn.append(DrawnCase(case, (), task))
        elif outcomes[number].error is not None:
            drawn.append(DrawnCase(case, (), describe(outcomes[number].error)))
        else:
            drawn.append(DrawnCase(case, outcomes[number].value))
    return drawn


def _voxels(task: PictureTask) -> int:
    """0 if the header cannot be read, which drawing will say."""
    try:
        return math.prod(task.reader().read_header(task.reference).shape[1:])
    except nnUNetError:
        return 0
