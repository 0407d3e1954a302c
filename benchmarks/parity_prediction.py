"""Predictions of one checkpoint by both sides, voxel by voxel: upstream's checkpoint, then one of ours.

Upstream's predictor loads weights strictly, so that a prediction by it is also the proof that ours fit.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from common import Bench, Side, remove

NAME = "Dataset004_Hippocampus"


def predict(side: Side, images: Path, model: Path, output: Path, *flags: str) -> dict[str, np.ndarray]:
    """Label maps by case."""
    side.predict(images, model, output, 1, *flags)
    return {file.name: sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in sorted(output.glob("*.nii.gz"))}


def report(what: str, first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """Share of equal voxels, and how many of them are foreground."""
    assert first.keys() == second.keys() and first, f"{what}: cases differ"
    voxels = sum(array.size for array in first.values())
    foreground = sum(int(np.count_nonzero(array)) for array in first.values())
    different = sum(int(np.count_nonzero(array != second[case])) for case, array in first.items())
    print(
        f"{what}: {1 - different / voxels:.5%} of voxels equal ({different} of {voxels} differ, {foreground} are "
        f"foreground, {len(first)} cases)",
        flush=True,
    )


def main() -> None:
    """Compare."""
    bench = Bench(
        __doc__,
        ("--cases", {"type": int, "default": 20}),
        ("--iterations", {"type": int, "default": 20, "help": "of the training that makes our checkpoint"}),
        repeats=1,
    )
    images = bench.work / "images"
    remove(images)
    images.mkdir()
    for file in sorted((bench.dataset(NAME) / "imagesTr").iterdir())[: bench.args.cases]:
        shutil.copyfile(file, images / file.name)
    model = bench.shared / "goldens" / NAME / "predictions" / "model"
    upstream, ours = bench.pair()
    for flags in ([], ["--disable_tta"]):
        what = "upstream's checkpoint, " + ("no mirroring" if flags else "mirroring")
        theirs = predict(upstream, images, model, upstream.folder / "predictions", *flags)
        for precision in ("float32", "bf16"):
            mine = predict(ours, images, model, ours.folder / "predictions", "--precision", precision, *flags)
            report(f"{what}, ours in {precision}", theirs, mine)

    bench.documents(NAME, "dataset_fingerprint.json", "nnUNetPlans.json", "splits_final.json")
    if not (ours.preprocessed / NAME / "nnUNetPlans_3d_fullres").is_dir():
        ours.run("nnUNetv2_preprocess", "-d", "4", "-c", "3d_fullres", "-np", "2")
    splits = ours.preprocessed / NAME / "splits_final.json"
    first = json.loads(splits.read_text())[0]
    splits.write_text(json.dumps([{"train": first["train"], "val": first["val"][:2]}]))  # a short final validation
    remove(ours.results / NAME)
    ours.run(
        "nnUNetv2_train",
        "4",
        "3d_fullres",
        "0",
        "-device",
        "cpu",
        "--epochs",
        "1",
        "--iterations",
        str(bench.args.iterations),
        nnUNet_def_n_proc="2",
    )
    model = next((ours.results / NAME).glob("*/fold_0/checkpoint_final.pth")).parents[1]
    theirs = predict(upstream, images, model, upstream.folder / "predictions")
    report(
        "our checkpoint, loaded strictly by upstream, mirroring",
        theirs,
        predict(ours, images, model, ours.folder / "predictions", "--precision", "float32"),
    )


if __name__ == "__main__":
    main()
