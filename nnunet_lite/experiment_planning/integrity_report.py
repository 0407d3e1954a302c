"""A checked dataset for people (grouped, counted, the first cases of each kind) and for programs (everything)."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.experiment_planning.case_comparison import voxels_per_label
from nnunet_lite.experiment_planning.document_check import sound_labels
from nnunet_lite.experiment_planning.region_table import TableRow, region_table, table_lines
from nnunet_lite.experiment_planning.verify_dataset_integrity import DatasetCheck
from nnunet_lite.plans.faults import KINDS, Fault

SCHEMA = 1  # raised when a key is renamed or removed; new keys may come at any time
_SHOWN = 5  # findings of one kind on the terminal
_WIDEST = 44  # of the column with the file


def as_document(checks: Sequence[DatasetCheck]) -> dict[str, Any]:
    """Content of the file that --json writes; documentation/dataset-format.md describes it."""
    return {
        "schema": SCHEMA,
        "sound": not any(check.examination.faults for check in checks),
        "datasets": [_dataset(check) for check in checks],
    }


def _dataset(check: DatasetCheck) -> dict[str, Any]:
    findings, faults = check.examination.findings, check.examination.faults
    counted = voxels_per_label(check.examination.reports)
    return {
        "name": check.dataset.name,
        "folder": str(check.dataset.folder),
        "cases": len(check.dataset.cases),
        "examined_cases": len(check.examination.reports),
        "faults": len(faults),
        "warnings": len(findings) - len(faults),
        "findings": [_finding(finding) for finding in findings],
        "labels": {str(label): {"voxels": voxels, "cases": cases} for label, (voxels, cases) in counted.items()},
        "regions": [row._asdict() for row in _regions(check)],
    }


def _finding(finding: Fault) -> dict[str, Any]:
    return {
        "severity": "fault" if finding.is_fault else "warning",
        "kind": finding.kind,
        "case": finding.case or None,
        "file": finding.file or None,
        "found": finding.found,
        "expected": finding.expected or None,
        "repair": finding.advice,
        "details": dict(finding.details),
    }


def _regions(check: DatasetCheck) -> list[TableRow]:
    """The table of a dataset with regions; empty for plain labels and for regions that are wrong."""
    document = check.dataset.dataset_json
    manager = sound_labels(document)
    if manager is None or not manager.has_regions:
        return []
    return region_table(document.labels, manager.regions_class_order or ())


def as_text(check: DatasetCheck, shown: int = _SHOWN) -> str:
    """The report of one dataset for a terminal.

    Args:
        check: the checked dataset.
        shown: findings listed of each kind; the others are counted.
    """
    findings = check.examination.findings
    lines = [headline(check)]
    for is_fault, heading in ((True, "Faults"), (False, "Warnings")):
        chosen = [finding for finding in findings if finding.is_fault == is_fault]
        if chosen:
            lines += ["", heading, *_groups(chosen, shown)]
    rows = _regions(check)
    if rows:
        lines += ["", "Regions: what becomes of each label", *(f"  {line}" for line in table_lines(rows))]
    return "\n".join(lines)


def headline(check: DatasetCheck) -> str:
    """One line: how many cases, faults and warnings."""
    faults = check.examination.faults
    broken = len({fault.case for fault in faults if fault.case})
    affected = f" in {broken} case{_s(broken)}" if broken else ""
    warnings = len(check.examination.findings) - len(faults)
    cases = len(check.dataset.cases)
    found = f"{len(faults)} fault{_s(len(faults))}{affected}" if faults else "no faults"
    return f"{check.dataset.name}: {cases} case{_s(cases)}, {found}, {warnings or 'no'} warning{_s(warnings)}"


def _s(number: int) -> str:
    return "" if number == 1 else "s"


def _groups(findings: Sequence[Fault], shown: int) -> Iterator[str]:
    groups: defaultdict[str, list[Fault]] = defaultdict(list)
    for finding in findings:
        groups[finding.kind].append(finding)
    for kind, members in sorted(groups.items(), key=lambda group: list(KINDS).index(group[0])):
        yield f"  {KINDS[kind].title} ({len(members)}) [{kind}]"
        width = min(_WIDEST, max(len(_place(finding)) for finding in members[:shown]))
        for finding in members[:shown]:
            expected = f"; expected {finding.expected}" if finding.expected else ""
            yield from _wrapped(_place(finding), width, finding.found + expected)
        if len(members) > shown:
            cases = [finding.case for finding in members[shown:] if finding.case]
            names = f": {', '.join(cases[:shown])}{', ...' if len(cases) > shown else ''}" if cases else ""
            yield f"    and {len(members) - shown} more{names}"
        for advice in dict.fromkeys(finding.advice for finding in members[:shown]):
            if advice != "see the message":
                yield from textwrap.wrap(advice, 110, initial_indent="    -> ", subsequent_indent="       ")


def _place(finding: Fault) -> str:
    return finding.file or finding.case


def _wrapped(place: str, width: int, text: str) -> Iterator[str]:
    """A row of two columns; a long second one continues below itself."""
    first = f"    {place:<{width}}  "
    rest = " " * (width + 6)
    if len(place) > width:
        yield first.rstrip()
        first = rest
    yield from textwrap.wrap(
        text, 118, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def as_error(checks: Sequence[DatasetCheck]) -> DatasetError:
    """The one line with which the command ends after its report."""
    lines = [headline(check) for check in checks if check.examination.faults]
    return DatasetError("; ".join(lines))
