"""All metrics of all cases as a table for spreadsheets: one row per case and class."""

from __future__ import annotations

import codecs
import csv
import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_lite.evaluation.additional_metrics import ADDITIONAL
from nnunet_lite.evaluation.metrics import LabelOrRegion
from nnunet_lite.evaluation.summary import label_or_region_to_key
from nnunet_lite.utilities.files import PathLike, write_bytes
from nnunet_lite.utilities.logging import logger

_HEADER = b"case,class,"  # of a table of ours
_BEGIN_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def table_path(summary_file: PathLike) -> Path:
    """Where the table of a summary.json lies: beside it, ending in .csv."""
    return Path(summary_file).with_suffix(".csv")


def save_metrics_table(
    results: dict[str, Any], output_file: PathLike, file_ending: str, names: Mapping[LabelOrRegion, str] | None = None
) -> None:
    """Write results as CSV: case, class, its name if it is known, every metric; what is undefined is an empty cell.

    Commas between cells, decimal points, UTF-8; text beyond ASCII is announced by a byte order mark, as Excel needs it.
    Names that a spreadsheet would take for formulas get an apostrophe before them.

    Args:
        results: as `compute_metrics_on_folder` returns them.
        file_ending: what to leave out of the files' names.
        names: class -> name, as in dataset.json.
    """
    more = results.get(ADDITIONAL, {})
    tolerances = more.get("nsd_tolerance_mm", {})
    extra = more.get("metric_per_case", [{"metrics": {}}] * len(results["metric_per_case"]))
    rows = []
    for case, additional in zip(results["metric_per_case"], extra, strict=True):
        name = os.path.basename(case["prediction_file"]).removesuffix(file_ending)
        for entry, values in case["metrics"].items():
            row = {"case": _text(name), "class": label_or_region_to_key(entry)}
            if names:
                row["name"] = _text(names.get(entry, ""))
            row.update(values, **additional["metrics"].get(entry, {}))
            if entry in tolerances:
                row["nsd_tolerance_mm"] = tolerances[entry]
            rows.append({column: _cell(value) for column, value in row.items()})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(column for row in rows for column in row)), restval="")
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue()
    write_bytes(content.encode("utf-8" if content.isascii() else "utf-8-sig"), output_file)


def remove_outdated_table(summary_file: PathLike) -> None:
    """Remove the table of results that a new summary.json has replaced, and say so; other files of its name stay."""
    table = table_path(summary_file)
    try:
        with table.open("rb") as file:
            if not file.read(len(_HEADER) + 3).removeprefix(codecs.BOM_UTF8).startswith(_HEADER):
                return
        table.unlink()
    except OSError:  # there is none, most often
        if table.is_file():
            logger.warning(
                "%s belongs to earlier results than %s and cannot be removed", table, os.fspath(summary_file)
            )
        return
    logger.warning("Removed %s, a table of earlier results; --csv writes that of these", table)


def _cell(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else value


def _text(name: str) -> str:
    """A name that is no formula; an apostrophe tells spreadsheets so."""
    return f"'{name}" if name.startswith(_BEGIN_FORMULAS) else name
