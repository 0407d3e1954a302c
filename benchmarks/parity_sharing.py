"""Models and postprocessing files across the two sides, in both directions.

Each side makes a model with its own trainer (random weights), determines a postprocessing, exports all that as a zip,
and predicts. The other side installs the zip, predicts the same images and applies the same postprocessing; so does
ours with its own `--inference_only` zip, and upstream with the one that ours makes of upstream's model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk
from common import HERE, Bench, Side, remove
from predicted_files import read_labels
from small_models import crop_image, small_plans

DATASET = "Dataset004_Hippocampus"
MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"
MERGED = "crossval_results_folds_0"


def make_model(bench: Bench, side: Side) -> None:
    """A complete model of one fold below the side's nnUNet_results, postprocessing included."""
    recorded, folder = bench.shared / "goldens" / DATASET, side.results / DATASET / MODEL
    remove(side.results / DATASET)
    plans = small_plans(json.loads((recorded / "nnUNetPlans.json").read_text()))
    dataset = json.loads((recorded / "dataset.json").read_text())
    job = {"plans": plans, "dataset_json": dataset, "configuration": "3d_fullres", "folds": [0], "folder": str(folder)}
    jobs = bench.work / f"{side.name}.json"
    jobs.write_text(json.dumps([job]))
    side.run("python", HERE / "drivers" / "random_models.py", side.package, jobs)
    merged = folder / MERGED
    shutil.copytree(recorded / "eval" / "preds", merged)
    for name in ("plans.json", "dataset.json"):
        shutil.copyfile(folder / name, merged / name)
    side.run("nnUNetv2_determine_postprocessing", "-i", merged, "-ref", recorded / "eval" / "gt", "-np", "2")
    shutil.copyfile(recorded / "dataset_fingerprint.json", folder / "dataset_fingerprint.json")
    (folder / "fold_0" / "validation").mkdir(parents=True)
    shutil.copyfile(merged / "summary.json", folder / "fold_0" / "validation" / "summary.json")
    image = sitk.Image([8, 8], sitk.sitkUInt8)
    sitk.WriteImage(image, str(folder / "fold_0" / "progress.png"))


def export(side: Side, results: Path, target: Path, *flags: str) -> Path:
    """A zip of the model below a folder of results."""
    command = ("nnUNetv2_export_model_to_zip", "-d", DATASET, "-o", target, "-c", "3d_fullres", "-f", "0", *flags)
    side.run(*command, nnUNet_results=str(results))
    return target


def install(side: Side, archive: Path, results: Path) -> Path:
    """The model folder that a zip becomes below an empty folder of results."""
    remove(results)
    results.mkdir(parents=True)
    side.run("nnUNetv2_install_pretrained_model_from_zip", archive, nnUNet_results=str(results))
    return results / DATASET / MODEL


def use(bench: Bench, side: Side, model: Path, output: Path) -> dict[str, Path]:
    """Labels of the images by a model, and recorded predictions after its postprocessing."""
    side.predict(bench.work / "images", model, output / "predicted", 1)
    remove(output / "processed")
    recorded = bench.shared / "goldens" / DATASET
    documents = ("-plans_json", model / "plans.json", "-dataset_json", model / "dataset.json", "-np", "2")
    file = model / MERGED / "postprocessing.pkl"
    folders = ("-i", recorded / "eval" / "preds", "-o", output / "processed")
    side.run("nnUNetv2_apply_postprocessing", *folders, "-pp_pkl_file", file, *documents)
    return {f"{file.parent.name}/{file.name}": file for file in sorted(output.glob("*/*.nii.gz"))}


def compare(what: str, expected: dict[str, Path], found: dict[str, Path]) -> None:
    """Say how many label maps are equal, voxel by voxel."""
    if expected.keys() != found.keys() or not expected:
        raise SystemExit(f"{what}: files differ: {sorted(expected.keys() ^ found.keys())}")
    different = {name: int((read_labels(file) != read_labels(found[name])).sum()) for name, file in expected.items()}
    text = ", ".join(f"{name}: {count} voxels differ" for name, count in different.items() if count) or "all equal"
    print(f"{what}: {len(found)} label maps, {text}", flush=True)


def main() -> None:
    """Make, exchange, compare."""
    bench = Bench(
        __doc__,
        ("--cases", {"type": int, "default": 2, "help": "images to predict"}),
        ("--owner", {"choices": ("upstream", "ours"), "help": "only this side's model"}),
    )
    upstream, ours = bench.pair()
    images = bench.work / "images"
    remove(images)
    images.mkdir(parents=True)
    for file in sorted((bench.dataset(DATASET) / "imagesTr").glob("*.nii.gz"))[: bench.args.cases]:
        crop_image(file, images / file.name, 60)
    for owner, guest in ((upstream, ours), (ours, upstream)):
        if bench.args.owner not in (None, owner.name):
            continue
        make_model(bench, owner)
        expected = use(bench, owner, owner.results / DATASET / MODEL, owner.folder / "own")
        archive = export(owner, owner.results, bench.work / f"{owner.name}.zip")
        model = install(guest, archive, guest.folder / "installed")
        compare(f"{owner.name}'s zip in {guest.name}", expected, use(bench, guest, model, guest.folder / "foreign"))
        slim(bench, owner, (upstream, ours), expected)


def slim(bench: Bench, owner: Side, sides: Sequence[Side], expected: dict[str, Path]) -> None:
    """What ours packs with --inference_only of an owner's model, installed by everybody."""
    ours = sides[1]
    whole = bench.work / f"{owner.name}.zip"
    archive = export(ours, owner.results, bench.work / f"{owner.name}_slim.zip", "--inference_only")
    print(f"{archive.name}: {archive.stat().st_size / whole.stat().st_size:.0%} of {whole.name}")
    for side in sides:
        model = install(side, archive, side.folder / "installed")
        found = use(bench, side, model, side.folder / "foreign")
        compare(f"{owner.name}'s model, --inference_only zip, in {side.name}", expected, found)


if __name__ == "__main__":
    main()
