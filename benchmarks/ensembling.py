"""nnUNetv2_ensemble of two members from `.npz`: 5 and 20 cases of Dataset004; on request also the torso phantom.

Two processes each. The peak of 5 and of 20 cases shows whether memory depends on how many there are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from common import Bench, Measurement, Side, remove
from synthetic_predictions import references_of, write_folder


def make_members(bench: Bench, dataset: str, cases: int) -> list[Path]:
    """Two folders of probabilities of the first cases of a dataset."""
    raw = bench.dataset(dataset)
    plans = json.loads((bench.shared / "goldens" / dataset / "nnUNetPlans.json").read_text())
    documents = plans, json.loads((raw / "dataset.json").read_text())
    folders = [bench.work / "members" / f"{dataset}_{cases}_{member}" for member in (1, 2)]
    for member, folder in enumerate(folders, 1):
        if not folder.is_dir():
            write_folder(references_of(raw, cases), folder, *documents, seed=member)
    return folders


def ensemble(side: Side, members: Sequence[Path], *flags: str) -> Measurement:
    """Average into a folder made anew."""
    output = side.folder / "ensembled"
    remove(output)
    return side.run("nnUNetv2_ensemble", "-i", *members, "-o", output, "-np", "2", *flags)


def main() -> None:
    """Measure with two processes."""
    bench = Bench(
        __doc__,
        ("--save-npz", {"action": "store_true", "help": "also with --save_npz"}),
        ("--torso", {"action": "store_true", "help": "also 2 x 1 case of the torso phantom (25 channels, 3 GB)"}),
    )
    work = [("Dataset004_Hippocampus", 5), ("Dataset004_Hippocampus", 20)]
    for dataset, cases in work + [("Dataset900_Torso", 1)] * bench.args.torso:
        members = make_members(bench, dataset, cases)
        for flags in [(), ("--save_npz",)] if bench.args.save_npz else [()]:
            found = bench.alternate(lambda side, members=members, flags=flags: ensemble(side, members, *flags))
            bench.add(" ".join((f"ensemble of 2 x {cases} cases of {dataset}", *flags)), found, memory=True)
    bench.finish()


if __name__ == "__main__":
    main()
