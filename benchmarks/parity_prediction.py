"""Predictions by both sides, voxel by voxel, on every dataset: labels, probabilities, headers.

Models: upstream's recorded checkpoint, and small networks with random weights, made alternately by upstream's trainer
and by ours; both predictors load weights strictly, so that each row is also the proof that they fit. Each row is
predicted by upstream and by ours, on request also with sums over tiles in float32, and by upstream once more with other
environment variables (`--again OMP_NUM_THREADS=2`, `--again ONEDNN_MAX_CPU_ISA=AVX2`): how far it is from itself.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import small_models as small
from common import HERE, Bench, Side, remove
from predicted_files import Difference

GOLDEN = "Dataset004_Hippocampus"
DATASETS = {
    "004": "Dataset004_Hippocampus",
    "104": "Dataset104_DSB2018",
    "112": "Dataset112_OpenMS",
    "113": "Dataset113_Embryo3D",
    "114": "Dataset114_BrainNRRD",
    "115": "Dataset115_ProstateX",
    "116": "Dataset116_TotalSegCT",
    "900": "Dataset900_Torso",
}
LONGEST_IMAGE_EDGE = 60  # a network has two tiles along an axis then
MODES: dict[str, dict[str, Any]] = {"ours": {}, "float32 sums": {"dtype_of_sums": "float32"}}

Change = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Row:
    """One line: a model and how it is applied.

    Args:
        dataset, configuration: of the model.
        what: what is special about it.
        plans, labels: changes of the documents.
        source: plans file it begins with.
        folds, mirroring, step: of the prediction.
        cases: how many.
        permuted: give images a direction far from the identity.
        previous: what of the first stage's row, for a cascade.
    """

    dataset: str
    configuration: str
    what: str = ""
    plans: tuple[Change, ...] = ()
    labels: tuple[Change, ...] = ()
    source: str = "nnUNetPlans.json"
    folds: tuple[int, ...] = (0,)
    mirroring: bool = True
    step: float = 0.5
    cases: int = 1
    permuted: bool = False
    previous: str | None = None

    @property
    def name(self) -> str:
        """Of its folders."""
        options = ("" if self.mirroring else " no mirroring") + f" step {self.step}" * (self.step != 0.5)
        folds = f" folds {len(self.folds)}" * (len(self.folds) > 1)
        return f"{self.dataset} {self.configuration}{' ' * bool(self.what)}{self.what}{folds}{options}"


def rows() -> list[Row]:
    """Everything that is compared; the model of a line is made by upstream, that of the next by ours, and so on."""
    both = ("2d", "3d_fullres")
    found = [Row("104", "2d", mirroring=mirroring, cases=3) for mirroring in (True, False)]
    for dataset in ("004", "112", "113", "114", "115", "116", "900"):
        found += [
            Row(dataset, configuration, mirroring=mirroring) for configuration in both for mirroring in (True, False)
        ]
    for dataset in ("004", "900"):
        found += [Row(dataset, "3d_fullres", folds=(0, 1), mirroring=mirroring) for mirroring in (True, False)]
    found += [
        Row("104", "2d", folds=(0, 1)),
        Row("115", "2d", folds=(0, 1)),
        Row("004", "3d_fullres", step=1.0),
        Row("900", "3d_fullres", step=1.0, mirroring=False),
        Row("115", "2d", step=1.0),
        Row("004", "3d_fullres", "regions", labels=(small.with_regions,), cases=2),
        Row("900", "3d_fullres", "regions", labels=(small.with_regions,), mirroring=False),
        Row("004", "3d_fullres", "ignore label", labels=(small.with_ignore_label,)),
        Row("104", "2d", "ignore label", labels=(small.with_ignore_label,)),
        Row("004", "3d_fullres", "coarser", plans=(_coarser,)),
        Row("115", "3d_fullres", "coarser", plans=(_coarser,)),
        Row("112", "2d", "finer", plans=(_finer,)),
        Row("004", "3d_fullres", "torch resampling, coarser", plans=(_coarser, small.with_torch_resampling)),
        Row("115", "3d_fullres", "torch resampling, finer", plans=(_finer, small.with_torch_resampling)),
        Row("004", "3d_fullres", "no resampling", plans=(_coarser, small.with_no_resampling)),
        Row("004", "3d_fullres", "transposed", plans=(_transposed, _coarser)),
        Row("115", "2d", "transposed", plans=(_transposed,)),
        Row("004", "3d_fullres", "ResEnc", source="nnUNetResEncUNetMPlans.json", cases=2),
        Row("900", "2d", "ResEnc", source="nnUNetResEncUNetMPlans.json", mirroring=False),
    ]
    for reader in ("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient"):
        change = _reader(reader)
        found += [
            Row("004", "3d_fullres", f"{reader}, permuted", plans=(change, _coarser), permuted=True),
            Row("112", "2d", reader, plans=(change,), mirroring=False),
        ]
    found += [
        Row("900", "3d_lowres"),
        Row("900", "3d_lowres", mirroring=False, folds=(0, 1)),
        Row("900", "3d_cascade_fullres", previous="900 3d_lowres"),
        Row("900", "3d_cascade_fullres", previous="900 3d_lowres", mirroring=False),
    ]
    for dataset in ("112", "113", "114", "116"):
        found += [Row(dataset, "3d_fullres", folds=(0, 1), mirroring=mirroring) for mirroring in (True, False)]
    found += [Row(dataset, "2d", folds=(0, 1), mirroring=False) for dataset in ("104", "115")]
    return found


def _coarser(plans: dict[str, Any]) -> None:
    small.with_spacing(plans, 1.31)


def _finer(plans: dict[str, Any]) -> None:
    small.with_spacing(plans, 0.83)


def _transposed(plans: dict[str, Any]) -> None:
    small.with_transposition(plans, (2, 0, 1))


def _reader(name: str) -> Change:
    return lambda plans: small.with_reader(plans, name)


def images_of(bench: Bench, row: Row) -> dict[str, list[str]]:
    """Cropped copies of the first cases of a dataset: files by case, in channel order."""
    source = bench.dataset(DATASETS[row.dataset]) / "imagesTr"
    folder = bench.work / "images" / f"{row.dataset}{' permuted' * row.permuted}"
    folder.mkdir(parents=True, exist_ok=True)
    documents = json.loads((source.parent / "dataset.json").read_text())
    ending, channels = documents["file_ending"], len(documents["channel_names"])
    if ending == ".png":
        channels = 1
    names = sorted({file.name[: -len(ending) - 5] for file in source.glob(f"*{ending}")})
    if row.dataset == "900":
        names = names[2:]  # not at the spacing of the plans
    found = {}
    for name in names[: row.cases]:
        files = [f"{name}_{channel:04d}{ending}" for channel in range(channels)]
        for file in files:
            if ending in (".png", ".tif"):
                for part in (source / file, source / f"{name}.json"):
                    if part.exists():
                        shutil.copyfile(part, folder / part.name)
            elif not (folder / file).exists():
                small.crop_image(source / file, folder / file, LONGEST_IMAGE_EDGE, row.permuted)
        found[name] = [str(folder / file) for file in files]
    return found


def plans_of(bench: Bench, row: Row) -> dict[str, Any]:
    """Recorded plans, or those that ours makes for a dataset."""
    name = DATASETS[row.dataset]
    recorded = bench.shared / "goldens" / name / row.source
    if recorded.is_file():
        return json.loads(recorded.read_text())
    file = bench.ours.preprocessed / name / row.source
    if not file.is_file():
        bench.dataset(name)
        bench.ours.run("nnUNetv2_plan_and_preprocess", "-d", name, "--no_pp")
    return json.loads(file.read_text())


def model_job(bench: Bench, row: Row) -> dict[str, Any]:
    """What random_models.py needs to make the model of a row."""
    plans = small.small_plans(plans_of(bench, row))
    dataset = json.loads((bench.dataset(DATASETS[row.dataset]) / "dataset.json").read_text())
    for change in row.plans:
        change(plans)
    for change in row.labels:
        change(dataset)
    return {
        "plans": plans,
        "dataset_json": copy.deepcopy(dataset),
        "configuration": row.configuration,
        "folds": list(row.folds),
        "folder": str(bench.work / "models" / row.name),
    }


def prediction_job(bench: Bench, row: Row, who: str, options: dict[str, Any]) -> dict[str, Any]:
    """What predict_jobs.py needs to predict a row; the first stage's labels are upstream's for both sides."""
    cases = images_of(bench, row)
    folder = bench.work / "predictions" / who / row.name
    previous = None if row.previous is None else str(bench.work / "predictions" / "upstream" / row.previous)
    return {
        "model": str(bench.work / "models" / row.name),
        "folds": list(row.folds),
        "mirroring": row.mirroring,
        "step": row.step,
        "cases": list(cases.values()),
        "outputs": [str(folder / case) for case in cases],
        "previous": previous,
        "options": options,
    }


def drive(bench: Bench, side: Side, driver: str, jobs: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Run a driver with jobs in a side's interpreter; what it says goes to a log in the work folder."""
    file = bench.work / f"{name}.json"
    file.write_text(json.dumps(jobs))
    log = file.with_suffix(".log")
    with log.open("w") as stream:
        command = [str(side.python), str(HERE / "drivers" / driver), side.package, str(file)]
        code = subprocess.run(
            command,
            env=side.environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    text = log.read_text()
    if code:
        raise SystemExit(f"{' '.join(command)} ended with code {code}; the last of {log}:\n{text[-3000:]}")
    line = next((line for line in text.splitlines() if line.startswith("RESULT ")), "RESULT []")
    return list(json.loads(line.removeprefix("RESULT ")))


def compare(bench: Bench, row: Row, who: str) -> Difference:
    """Upstream's prediction of a row and ours."""
    ending = json.loads((bench.work / "models" / row.name / "dataset.json").read_text())["file_ending"]
    found = Difference()
    for case in images_of(bench, row):
        paths = [bench.work / "predictions" / side / row.name / case for side in ("upstream", who)]
        found.add(*paths, ending)
    return found


def line_of(row: Row, who: str, maker: str, found: Difference) -> str:
    """A line of the table."""
    geometry = "; ".join(sorted(set(found.geometry))) or "equal"
    return (
        f"| {row.name} | {maker} | {who} | {len(found.labels)} | {found.voxels} | {found.different} "
        f"({found.different_inside}) | {found.agreement:.4%} | {found.margin:.4f} | {found.probability:.1e} | "
        f"{found.over_tolerance} ({found.over_tolerance_inside}) | {geometry} |"
    )


def random_models(bench: Bench, chosen: str) -> None:
    """The table of the random models."""
    upstream, ours = bench.pair()
    everything = rows()
    wanted = [row for row in everything if chosen in row.name]
    wanted = [row for row in everything if row in wanted or any(row.name == other.previous for other in wanted)]
    makers = {row: (upstream, ours)[number % 2] for number, row in enumerate(everything)}
    for side in (upstream, ours):
        mine = [model_job(bench, row) for row in wanted if makers[row] is side]
        missing = [job for job in mine if not any(Path(job["folder"]).glob("fold_*/checkpoint_final.pth"))]
        drive(bench, side, "random_models.py", missing, f"models {side.name}")
    jobs = [prediction_job(bench, row, "upstream", {}) for row in wanted]
    left = [job for job in jobs if not all(Path(f"{output}.npz").is_file() for output in job["outputs"])]
    results = {"upstream": drive(bench, upstream, "predict_jobs.py", left, "predict upstream")}
    modes = {who: (ours, options) for who, options in MODES.items() if who == "ours" or bench.args.float32}
    for variable in bench.args.again:
        changed = dict(entry.split("=", 1) for entry in variable.split(","))
        modes[f"upstream, {variable}"] = (upstream._replace(environment={**upstream.environment, **changed}), {})
    for who, (side, options) in modes.items():
        jobs = [prediction_job(bench, row, who, options) for row in wanted]
        results[who] = drive(bench, side, "predict_jobs.py", jobs, f"predict {who}")
    print(
        "| model, prediction | made by | compared | labels | voxels | differ (inside) | agreement | margin | "
        "probabilities | over 1e-3 (inside) | headers |\n|" + "---|" * 11
    )
    for row in wanted:
        failures = [entry for found in results.values() for entry in found if entry["model"].endswith(f"/{row.name}")]
        if failures:
            print(f"| {row.name} | failed: {failures} |", flush=True)
            continue
        for who in modes:
            print(line_of(row, who, makers[row].name, compare(bench, row, who)), flush=True)


def recorded_model(bench: Bench, cases: int) -> None:
    """Upstream's recorded checkpoint through the commands, in every precision of ours."""
    images = bench.work / "images" / "recorded"
    remove(images)
    images.mkdir(parents=True)
    for file in sorted((bench.dataset(GOLDEN) / "imagesTr").iterdir())[:cases]:
        shutil.copyfile(file, images / file.name)
    model = bench.shared / "goldens" / GOLDEN / "predictions" / "model"
    upstream, ours = bench.pair()
    for flags in ([], ["--disable_tta"]):
        what = "upstream's checkpoint, " + ("no mirroring" if flags else "mirroring")
        theirs = predict(upstream, images, model, upstream.folder / "predictions", *flags)
        for precision in ("float32", "bf16"):
            mine = predict(ours, images, model, ours.folder / "predictions", "--precision", precision, *flags)
            report(f"{what}, ours in {precision}", theirs, mine)


def predict(side: Side, images: Path, model: Path, output: Path, *flags: str) -> dict[str, Any]:
    """Label maps by case."""
    side.predict(images, model, output, 1, *flags)
    return {file.name: sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in sorted(output.glob("*.nii.gz"))}


def report(what: str, first: dict[str, Any], second: dict[str, Any]) -> None:
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
        ("--cases", {"type": int, "default": 20, "help": "predicted with the recorded checkpoint; 0 leaves it out"}),
        ("--float32", {"action": "store_true", "help": "also ours with sums over tiles in float32"}),
        ("--again", {"action": "append", "default": [], "metavar": "VARIABLE=VALUE", "help": "upstream once more"}),
        ("--rows", {"default": "", "help": "only random models whose line has this in its name"}),
        repeats=1,
    )
    if bench.args.cases:
        recorded_model(bench, bench.args.cases)
    random_models(bench, bench.args.rows)


if __name__ == "__main__":
    sys.exit(main())
