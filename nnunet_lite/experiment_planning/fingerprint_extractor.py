"""DatasetFingerprintExtractor: what planning needs to know about the images of a dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_lite.exceptions import DatasetError, PlansError
from nnunet_lite.experiment_planning.case_examination import CaseReport, Questions
from nnunet_lite.experiment_planning.intensity_statistics import pooled_properties, summary_size
from nnunet_lite.experiment_planning.kept_reports import KeptReports
from nnunet_lite.experiment_planning.verify_dataset_integrity import (
    Examination,
    Survey,
    conclude,
    examine,
    log_warnings,
    survey_dataset,
    verify_dataset_integrity,
    with_comparison,
)
from nnunet_lite.paths import nnUNet_preprocessed
from nnunet_lite.plans.faults import faults_as_error
from nnunet_lite.plans.fingerprint import DatasetFingerprint
from nnunet_lite.plans.raw_dataset import RawDataset, maybe_convert_to_dataset_name, raw_folder
from nnunet_lite.utilities.files import load_json, save_json
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.parts import WHOLE

_FINGERPRINT = "dataset_fingerprint.json"
_SOURCES = "dataset_fingerprint_sources.json"

_UPSTREAMS_STEPS = ("analyze_case", "collect_foreground_intensities")  # its extractor's methods that ours has not


class DatasetFingerprintExtractor:
    """Extracts dataset_fingerprint.json of a raw dataset.

    Args:
        dataset_name_or_id: of a dataset in nnUNet_raw.
        num_processes: background processes (default: nnUNet_def_n_proc); 0 works in this one.
        verbose: log more.
        show_progress: show a progress bar.
        max_ram: bytes that cases examined at the same time may need by estimate.
    """

    def __init__(
        self,
        dataset_name_or_id: int | str,
        num_processes: int | None = None,
        verbose: bool = False,
        *,
        show_progress: bool = True,
        max_ram: int | None = None,
    ) -> None:
        self.dataset_name = maybe_convert_to_dataset_name(dataset_name_or_id)
        self.input_folder = str(raw_folder(self.dataset_name))
        self.num_processes = num_processes
        self.verbose = verbose
        self.show_progress = show_progress
        self.max_ram = max_ram
        ignored = [name for name in _UPSTREAMS_STEPS if hasattr(self, name)]
        if ignored:
            logger.warning(
                "%s defines %s, which is not called here: a fingerprint extractor overrides run",
                type(self).__name__,
                " and ".join(ignored),
            )
        self.part = WHOLE  # of the dataset's cases: the one that `run` examines

    def run(self, overwrite_existing: bool = False, check_dataset_integrity: bool = False) -> dict[str, Any]:
        """Extract the fingerprint, or load it if it is there already; returns the content of the file.

        Cases that were examined before this process or another part was interrupted are not examined again. The
        fingerprint is made as soon as no case is missing; until then the result is empty and a message names the parts.

        Args:
            overwrite_existing: extract anew (of a part: its cases).
            check_dataset_integrity: check the dataset in the same pass over its files.

        Raises:
            DatasetError: some cases are broken; lists all of them, and nothing is written.
        """
        target = nnUNet_preprocessed / self.dataset_name / _FINGERPRINT
        existing = None if overwrite_existing else _load_existing(target)
        if existing is None:
            return self._extract(target, overwrite_existing, check_dataset_integrity)
        if check_dataset_integrity:
            verify_dataset_integrity(
                self.input_folder, self.num_processes, show_progress=self.show_progress, max_ram=self.max_ram
            )
        _warn_if_stale(target, RawDataset.scan(self.input_folder))
        return existing

    def _extract(self, target: Path, anew: bool, check: bool) -> dict[str, Any]:
        dataset, findings, questions = self._survey(check)
        kept = KeptReports(target.parent, _sources(dataset), self.part)
        if anew and self.part.is_whole:
            kept.remove()
        known = {} if anew else kept.read(questions)
        part = replace(dataset, cases={case.identifier: case for case in self.part.of(dataset.cases.values())})
        done = sum(name in known for name in part.cases)
        if done:
            logger.info("%s: %d of %d cases are examined already", dataset.name, done, len(part.cases))
        examination = examine(
            part,
            findings,
            questions,
            self.num_processes,
            "Extracting dataset fingerprint",
            self.show_progress and done < len(part.cases),
            self.max_ram,
            known,
            lambda name, report: kept.add(name, report, questions),
        )
        if check:
            conclude(part, with_comparison(part, examination) if self.part.is_whole else examination)
        else:
            log_warnings(examination.findings)
        if examination.faults:
            raise faults_as_error(dataset.name, examination.faults, len(part.cases))
        return self._merge(dataset, target, kept, {**known, **examination.reports}, check)

    def _survey(self, check_dataset_integrity: bool) -> Survey:
        """The dataset before its images are opened; without the check, only what makes it unusable is looked for."""
        if check_dataset_integrity:
            survey = survey_dataset(self.input_folder)
            size = summary_size(len(survey.dataset.cases))
            return survey._replace(questions=survey.questions._replace(summary_size=size))
        dataset = RawDataset.scan(self.input_folder)
        if dataset.faults and not dataset.cases:
            raise faults_as_error(dataset.name, dataset.faults, 0)
        return Survey(dataset, dataset.findings, _questions(dataset))

    def _merge(
        self, dataset: RawDataset, target: Path, kept: KeptReports, reports: dict[str, CaseReport], check: bool
    ) -> dict[str, Any]:
        """Make the fingerprint if no part is missing any more; whichever parts find that out write the same file.

        Cases of different parts are compared here, if all of them were checked.
        """
        if not self.part.is_whole:
            reports = {**kept.read(_questions(dataset)), **reports}
        if all(name in reports for name in dataset.cases):
            in_order = {name: reports[name] for name in dataset.cases}
            checked = all(report.label_counts is not None for report in in_order.values())
            if check and checked and not self.part.is_whole:
                log_warnings(with_comparison(dataset, Examination(in_order, [])).findings)
            return _write(dataset, target, kept, in_order)
        if _differing(target, dataset) == []:  # another part was last, and has removed the reports
            return dict(load_json(target))
        logger.info("%s", kept.what_is_missing(dataset.name, reports))
        return {}


def complete_fingerprint(dataset_name: str) -> None:
    """Make a fingerprint of which all parts are there, but which nobody has put together.

    Nothing is done where there is a fingerprint, or no trace of one.

    Raises:
        PlansError: parts are missing; names them.
    """
    target = nnUNet_preprocessed / dataset_name / _FINGERPRINT
    if target.is_file() or not KeptReports(target.parent, {}, WHOLE).exist:
        return
    dataset = RawDataset.load(dataset_name)
    kept = KeptReports(target.parent, _sources(dataset), WHOLE)
    reports = kept.read(_questions(dataset))
    if not all(name in reports for name in dataset.cases):
        raise PlansError(kept.what_is_missing(dataset.name, reports))
    _write(dataset, target, kept, reports)


def _questions(dataset: RawDataset) -> Questions:
    """What the fingerprint asks of every case."""
    return Questions(dataset.dataset_json.num_input_channels, None, summary_size(len(dataset.cases)), False)


def _write(dataset: RawDataset, target: Path, kept: KeptReports, reports: dict[str, CaseReport]) -> dict[str, Any]:
    fingerprint = _fingerprint(dataset, [reports[name] for name in dataset.cases])
    save_json({"cases": kept.sources}, target.with_name(_SOURCES))
    save_json(fingerprint, target)
    kept.remove()
    return fingerprint


def _fingerprint(dataset: RawDataset, reports: list[CaseReport]) -> dict[str, Any]:
    """Content of dataset_fingerprint.json (nnU-Net v2 2.8.1 behaviour); cases in the dataset's order."""
    intensities = {}
    for channel in range(dataset.dataset_json.num_input_channels):
        try:
            intensities[str(channel)] = pooled_properties([report.intensities[channel] for report in reports])
        except DatasetError as error:
            raise DatasetError(f"{dataset.name}: {error}") from error
    return {
        "foreground_intensity_properties_per_channel": intensities,
        "median_relative_size_after_cropping": float(np.median([report.relative_size for report in reports])),
        "shapes_after_crop": [list(report.shape_after_crop) for report in reports],
        "spacings": [list(report.spacing) for report in reports],
    }


def _load_existing(target: Path) -> dict[str, Any] | None:
    """An existing fingerprint, or None if there is none or it cannot be used."""
    if not target.is_file():
        return None
    try:
        return DatasetFingerprint.from_file(target).raw
    except PlansError as error:
        logger.warning("%s; it is extracted anew", error)
        return None


def _sources(dataset: RawDataset) -> dict[str, list[list[Any]]]:
    """What the fingerprint is made from: of every case its files, their sizes and times."""
    return {
        case.identifier: [_description(file) for file in (*case.images, case.label) if file is not None]
        for case in dataset.cases.values()
    }


def _description(file: str) -> list[Any]:
    path = Path(file)
    if not path.is_file():
        return [path.name, 0, 0]
    state = path.stat()
    return [path.name, state.st_size, int(state.st_mtime)]


def _differing(target: Path, dataset: RawDataset) -> list[str] | None:
    """Cases that were added, removed or modified since their fingerprint was made; None if that is not known."""
    recorded = target.with_name(_SOURCES)
    if not (target.is_file() and recorded.is_file()):
        return None
    before, now = load_json(recorded).get("cases", {}), _sources(dataset)
    return sorted(case for case in {*before, *now} if before.get(case) != now.get(case))


def _warn_if_stale(target: Path, dataset: RawDataset) -> None:
    """Warn if the dataset has changed since its fingerprint was extracted."""
    differing = _differing(target, dataset)
    if differing is None:
        changed = len(load_json(target)["spacings"]) != len(dataset.cases)
        what = f"it now has {len(dataset.cases)} cases"
    else:
        changed = bool(differing)
        what = f"{len(differing)} cases were added, removed or modified: {', '.join(differing[:5])}"
    if changed:
        logger.warning(
            "%s has changed since its fingerprint was extracted (%s); use --clean to extract it anew",
            dataset.name,
            what,
        )
