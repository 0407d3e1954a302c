"""What becomes of each label of the label files: which regions it belongs to, and which label a prediction writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class TableRow(NamedTuple):
    """One label of the label files."""

    label: int
    regions: tuple[str, ...]  # that hold it, in their order: all of them are painted, the last one stays
    painted: tuple[int, ...]  # what each of these regions paints
    written: int  # what a perfect prediction of these voxels holds in the end


def region_table(labels: Mapping[str, int | list[int]], order: Sequence[int]) -> list[TableRow]:
    """A row for each label but the ignore label, ascending (spec 01, 2.4: regions are painted in their order).

    Args:
        labels: of dataset.json; regions are its entries other than background and ignore.
        order: regions_class_order, one label for each region.
    """
    regions = regions_of(labels)
    rows = []
    for label in sorted({0, *(member for members in regions.values() for member in members)}):
        painting = zip(regions.items(), order, strict=True)
        holding = [(name, paint) for (name, members), paint in painting if label in members]
        painted = tuple(paint for _, paint in holding)
        rows.append(TableRow(label, tuple(name for name, _ in holding), painted, painted[-1] if painted else 0))
    return rows


def regions_of(labels: Mapping[str, int | list[int]]) -> dict[str, tuple[int, ...]]:
    """Name -> labels of every region, in their order: all entries but background and ignore."""
    entries = {name: tuple(value) if isinstance(value, list) else (value,) for name, value in labels.items()}
    return {name: members for name, members in entries.items() if name != "ignore" and set(members) != {0}}


def table_lines(rows: Sequence[TableRow]) -> list[str]:
    """The table for a terminal."""
    cells = [("label in the files", "belongs to", "painted one after the other", "written")]
    for row in rows:
        regions = " and ".join(row.regions) or "background"
        mark = "" if row.written == row.label else "   <- another label"
        cells.append((str(row.label), regions, " ".join(map(str, row.painted)) or "-", f"{row.written}{mark}"))
    widths = [max(len(line[column]) for line in cells) for column in range(3)]
    return ["  ".join([*(line[c].ljust(widths[c]) for c in range(3)), line[3]]) for line in cells]
