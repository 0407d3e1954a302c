"""nnUNetv2_predict_from_modelfolder on a GPU where there is one, else on the CPU, ours in several precisions.

The checkpoint recorded from upstream on cases of Dataset004, and a network of full size with random weights on one case
of the torso phantom (25 classes). After each, the seconds of our phases, one after the other in one process: what is
above the network's own time is what the rest costs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from common import HERE, Bench, Measurement, Side, remove

from nnunet_lite.configuration import BANDED_PREDICTION_BYTES
from nnunet_lite.utilities.device import resolve_device

SMALL, LARGE = "Dataset004_Hippocampus", "Dataset900_Torso"
PRECISIONS = ("float32", "bf16", "fp16")
OF_DEVICE = {"cuda": ("fp16", "bf16"), "cpu": ("float32", "bf16"), "mps": ("float32",)}  # without --precisions


def images_of(bench: Bench, name: str, cases: int) -> Path:
    """A folder with the images of the first cases."""
    folder = bench.work / f"images_{name}"
    remove(folder)
    folder.mkdir()
    for file in sorted((bench.dataset(name) / "imagesTr").iterdir())[:cases]:
        shutil.copyfile(file, folder / file.name)
    return folder


def random_model(bench: Bench) -> Path:
    """The model folder of the phantom: recorded plans, random weights, made by our trainer and kept in --work."""
    folder = bench.work / "random_model"
    if not (folder / "fold_0" / "checkpoint_final.pth").is_file():
        recorded = bench.shared / "goldens" / LARGE
        plans, dataset = (json.loads((recorded / f"{name}.json").read_text()) for name in ("nnUNetPlans", "dataset"))
        job = {"plans": plans, "dataset_json": dataset, "configuration": "3d_fullres", "folds": [0], "folder": folder}
        jobs = bench.work / "random_model.json"
        jobs.write_text(json.dumps([job], default=str))
        driver = str(HERE / "drivers" / "random_models.py")
        environment = {**os.environ, **bench.ours.environment}
        subprocess.run([str(bench.ours.python), driver, bench.ours.package, str(jobs)], env=environment, check=True)
    return folder


def compare(bench: Bench, what: str, model: Path, images: Path, workers: int, flags: Sequence[str]) -> None:
    """Lines of one task: upstream beside ours in each precision, all repeats in turn."""
    device = resolve_device(bench.args.device).type
    precisions = bench.args.precisions or OF_DEVICE[device]
    found: dict[str, list[Measurement]] = {"upstream": [], **{precision: [] for precision in precisions}}

    def predict(side: Side, *more: str) -> Measurement:
        return side.predict(images, model, side.folder / "predictions", workers, *flags, *more, device=device)

    for _ in range(bench.args.repeats):
        for side in bench.sides:
            if side is bench.ours:
                for precision in precisions:
                    found[precision].append(predict(side, "--precision", precision))
            else:
                found["upstream"].append(predict(side))
    for precision in precisions:
        both = {"upstream": found["upstream"], "ours": found[precision]}
        bench.add(f"{what}, ours in {precision}", both, memory=True)
        if bench.ours in bench.sides:
            seconds = phases(bench, model, images, (*flags, "--precision", precision, "-device", device))
            for phase, value in seconds.items():
                bench.row(f"{what}, ours in {precision}, one process: {phase}", {"ours": value})


def phases(bench: Bench, model: Path, images: Path, flags: Sequence[str]) -> dict[str, float]:
    """Seconds of each phase of our prediction in one process; `network` is what the tiles alone take."""
    output = bench.ours.folder / "predictions"
    remove(output)
    driver = ("python", HERE / "drivers" / "predict_with_phases.py", str(BANDED_PREDICTION_BYTES))
    folders = ("-i", images, "-o", output, "-m", model, "-f", "0", "-npp", "0", "-nps", "0")
    found = bench.ours.run(*driver, *folders, "--disable_progress_bar", *flags)
    seconds: dict[str, float] = json.loads(found.output.strip().splitlines()[-1])
    del seconds["VmHWM MiB"]
    return seconds


def main() -> None:
    """Measure; `--datasets small` leaves the phantom out, which takes upstream six minutes."""
    bench = Bench(
        __doc__,
        ("--cases", {"type": int, "default": 5, "help": "of Dataset004 (default: %(default)s)"}),
        ("--datasets", {"nargs": "+", "default": ["small", "large"], "choices": ("small", "large")}),
        ("--device", {"default": "auto", "help": "of both sides: auto, cpu, cuda, mps (default: %(default)s)"}),
        ("--precisions", {"nargs": "+", "choices": PRECISIONS, "help": "of ours (default: two that fit the device)"}),
        repeats=1,
    )
    if "small" in bench.args.datasets:
        model = bench.shared / "goldens" / SMALL / "predictions" / "model"
        images = images_of(bench, SMALL, bench.args.cases)
        for what, flags in (("without mirroring", ["--disable_tta"]), ("with mirroring", [])):
            compare(bench, f"predict {bench.args.cases} cases of {SMALL}, {what}", model, images, 2, flags)
    if "large" in bench.args.datasets:
        what = f"predict one case of {LARGE}, 25 classes, without mirroring"
        compare(bench, what, random_model(bench), images_of(bench, LARGE, 1), 1, ["--disable_tta"])
    bench.finish()


if __name__ == "__main__":
    main()
