"""Reports of examined cases, kept on disk until the fingerprint of the whole dataset can be made of them.

So a fingerprint that was interrupted is continued, and several machines can share one dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnunet_lite.experiment_planning.case_examination import CaseReport, Questions
from nnunet_lite.experiment_planning.intensity_statistics import IntensitySummary
from nnunet_lite.plans.faults import Fault
from nnunet_lite.utilities.journal import Journal
from nnunet_lite.utilities.parts import Part

_FORMAT = 2  # raise it when reports change for the same case
_EXAMPLES = 5  # cases named in a message

Sources = Mapping[str, Sequence[Sequence[Any]]]  # of every case its files: name, size, time


class KeptReports:
    """Reports without faults of the cases of one dataset, in `.nnunet_lite/fingerprint.*.journal`.

    Args:
        folder: of the dataset in nnUNet_preprocessed.
        sources: a report of a case whose files have changed since does not count.
        part: that this process examines.
    """

    def __init__(self, folder: Path, sources: Sources, part: Part) -> None:
        self._journal = Journal(folder / ".nnunet_lite", "fingerprint", part)
        self.sources = sources
        self._part = part

    @property
    def exist(self) -> bool:
        """Whether an extraction was interrupted or is being done in parts."""
        return self._journal.num_parts > 0

    def read(self, questions: Questions) -> dict[str, CaseReport]:
        """Reports that answer these questions, from all parts."""
        found = {}
        for entry in self._journal.read():
            current = self.sources.get(entry["case"])
            if entry["format"] != _FORMAT or current is None or entry["files"] != current:
                continue
            before = Questions(*entry["questions"])
            if questions in (before, before._replace(labels=None, is_check=False)):
                found[entry["case"]] = _from_plain(entry["report"])
        return found

    def add(self, case: str, report: CaseReport, questions: Questions) -> None:
        """Keep a report, unless it tells of a fault, which will have been mended before it is looked at again."""
        if not any(finding.is_fault for finding in report.findings):
            self._journal.append(
                {
                    "format": _FORMAT,
                    "case": case,
                    "files": self.sources[case],
                    "questions": tuple(questions),
                    "report": _to_plain(report),
                }
            )

    def remove(self) -> None:
        """Remove the reports of all parts."""
        self._journal.remove()

    def what_is_missing(self, dataset: str, reports: Mapping[str, CaseReport]) -> str:
        """One line: which parts and cases lack a report, and what to do."""
        cases = list(self.sources)
        missing = [case for case in cases if case not in reports]
        count = self._part.num_parts if not self._part.is_whole else max(1, self._journal.num_parts)
        parts = sorted({number % count for number, case in enumerate(cases) if case not in reports})
        examples = ", ".join(missing[:_EXAMPLES]) + (", ..." if len(missing) > _EXAMPLES else "")
        what = f"{len(missing)} of {len(cases)} cases ({examples})"
        command = f"nnUNetv2_extract_fingerprint -d {dataset}"
        if count == 1:
            return f"{dataset}: its fingerprint lacks {what}; continue with {command}"
        numbers = ", ".join(str(part) for part in parts)
        return (
            f"{dataset}: its fingerprint lacks part_id {numbers} of num_parts {count}, {what}; run {command} "
            f"-num_parts {count} -part_id {parts[0]}{' and the others' if len(parts) > 1 else ''}, or without these "
            "two flags for all that is missing"
        )


def _to_plain(report: CaseReport) -> dict[str, Any]:
    return {
        **report._asdict(),
        "findings": [asdict(finding) for finding in report.findings],
        "label_counts": None if report.label_counts is None else list(report.label_counts.items()),
        "intensities": [tuple(summary) for summary in report.intensities],
    }


def _from_plain(content: dict[str, Any]) -> CaseReport:
    counts = content["label_counts"]
    return CaseReport(
        **{
            **content,
            "findings": [Fault(**finding) for finding in content["findings"]],
            "label_counts": None if counts is None else dict(counts),
            "intensities": tuple(IntensitySummary(*summary) for summary in content["intensities"]),
        }
    )
