"""DatasetFingerprintExtractor: what planning needs to know about the images of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnunet_lite.exceptions import DatasetError, PlansError
from nnunet_lite.experiment_planning.case_examination import CaseReport, Questions
from nnunet_lite.experiment_planning.intensity_statistics import pooled_properties, summary_size
from nnunet_lite.experiment_planning.verify_dataset_integrity import (
    Survey,
    conclude,
    examine,
    log_warnings,
    survey_dataset,
    verify_dataset_integrity,
)
from nnunet_lite.paths import nnUNet_preprocessed
from nnunet_lite.plans.faults import faults_as_error
from nnunet_lite.plans.fingerprint import DatasetFingerprint
from nnunet_lite.plans.raw_dataset import RawDataset, maybe_convert_to_dataset_name, raw_folder
from nnunet_lite.utilities.files import load_json, save_json
from nnunet_lite.utilities.logging import logger

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

    def run(self, overwrite_existing: bool = False, check_dataset_integrity: bool = False) -> dict[str, Any]:
        """Extract the fingerprint, or load it if it is there already; returns the content of the file.

        Args:
            overwrite_existing: extract anew.
            check_dataset_integrity: check the dataset in the same pass over its files.

        Raises:
            DatasetError: some cases are broken; lists all of them, and nothing is written.
        """
        target = nnUNet_preprocessed / self.dataset_name / _FINGERPRINT
        existing = None if overwrite_existing else _load_existing(target)
        if existing is None:
            return self._extract(target, check_dataset_integrity)
        if check_dataset_integrity:
            verify_dataset_integrity(
                self.input_folder, self.num_processes, show_progress=self.show_progress, max_ram=self.max_ram
            )
        _warn_if_stale(target, RawDataset.scan(self.input_folder))
        return existing

    def _extract(self, target: Path, check_dataset_integrity: bool) -> dict[str, Any]:
        dataset, findings, questions = self._survey(check_dataset_integrity)
        sources = _sources(dataset)
        description = "Extracting dataset fingerprint"
        examination = examine(
            dataset, findings, questions, self.num_processes, description, self.show_progress, self.max_ram
        )
        if check_dataset_integrity:
            conclude(dataset, examination)
        else:
            log_warnings(examination.findings)
        if examination.faults:
            raise faults_as_error(dataset.name, examination.faults, len(dataset.cases))
        fingerprint = _fingerprint(dataset, list(examination.reports.values()))
        save_json(sources, target.with_name(_SOURCES))
        save_json(fingerprint, target)
        return fingerprint

    def _survey(self, check_dataset_integrity: bool) -> Survey:
        """The dataset before its images are opened; without the check, only what makes it unusable is looked for."""
        if check_dataset_integrity:
            survey = survey_dataset(self.input_folder)
            size = summary_size(len(survey.dataset.cases))
            return survey._replace(questions=survey.questions._replace(summary_size=size))
        dataset = RawDataset.scan(self.input_folder)
        if dataset.faults and not dataset.cases:
            raise faults_as_error(dataset.name, dataset.faults, 0)
        questions = Questions(dataset.dataset_json.num_input_channels, None, summary_size(len(dataset.cases)), False)
        return Survey(dataset, dataset.findings, questions)


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


def _sources(dataset: RawDataset) -> dict[str, dict[str, list[list[Any]]]]:
    """What the fingerprint was made from: of every case its files, their sizes and times."""
    return {
        "cases": {
            case.identifier: [_description(file) for file in (*case.images, case.label) if file is not None]
            for case in dataset.cases.values()
        }
    }


def _description(file: str) -> list[Any]:
    path = Path(file)
    if not path.is_file():
        return [path.name, 0, 0]
    state = path.stat()
    return [path.name, state.st_size, int(state.st_mtime)]


def _warn_if_stale(target: Path, dataset: RawDataset) -> None:
    """Warn if the dataset has changed since its fingerprint was extracted."""
    recorded = target.with_name(_SOURCES)
    if not recorded.is_file():
        changed = len(load_json(target)["spacings"]) != len(dataset.cases)
        what = f"it now has {len(dataset.cases)} cases"
    else:
        before, now = load_json(recorded).get("cases", {}), _sources(dataset)["cases"]
        differing = sorted(case for case in {*before, *now} if before.get(case) != now.get(case))
        changed = bool(differing)
        what = f"{len(differing)} cases were added, removed or modified: {', '.join(differing[:5])}"
    if changed:
        logger.warning(
            "%s has changed since its fingerprint was extracted (%s); use --clean to extract it anew",
            dataset.name,
            what,
        )
