"""Load and augment training samples in one process and one thread, through the trainer of each side.

Both processes live through the run and take turns, a few batches at a time, so that other work on the machine meets
both alike; on a busy machine CPU seconds tell more. Seconds are per sample. Both read the same preprocessed cases
(ours).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

from common import HERE, MIB, Bench, Side

TORSO, HIPPOCAMPUS = "Dataset900_Torso", "Dataset004_Hippocampus"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLOSC_NTHREADS"), "1")


class Case(NamedTuple):
    """What is loaded; samples in all, of which each side makes `turn` at a time, in batches of the planned size."""

    dataset: str
    configuration: str
    batch_size: int
    samples: int
    turn: int
    trainer: str = "nnUNetTrainer"

    def __str__(self) -> str:
        trainer = self.trainer.removeprefix("nnUNetTrainer")
        words = (self.dataset, self.configuration, trainer, f"in batches of {self.batch_size}")
        return " ".join(word for word in words if word)


CASES = {
    "default": [
        Case(HIPPOCAMPUS, "3d_fullres", 9, 1260, 90),
        Case(HIPPOCAMPUS, "2d", 366, 3660, 366),
        Case(TORSO, "3d_fullres", 2, 120, 4),
        Case(TORSO, "2d", 29, 870, 58),
    ],
    "batches": [
        *(Case(HIPPOCAMPUS, "3d_fullres", size, 960, 96) for size in (1, 4, 12)),
        *(Case(TORSO, "2d", size, 720, 48) for size in (1, 4, 12)),
    ],
    "cascade": [Case(TORSO, "3d_cascade_fullres", 2, 60, 4)],
    "da5": [
        Case(HIPPOCAMPUS, "3d_fullres", 9, 720, 90, "nnUNetTrainerDA5"),
        Case(HIPPOCAMPUS, "2d", 366, 2196, 366, "nnUNetTrainerDA5"),
        Case(TORSO, "3d_fullres", 2, 60, 4, "nnUNetTrainerDA5"),
        Case(TORSO, "2d", 29, 348, 58, "nnUNetTrainerDA5"),
    ],
}


class Loader:
    """A process that makes batches when asked to."""

    def __init__(self, side: Side, case: Case) -> None:
        folder = side.preprocessed / case.dataset
        documents = (folder / "nnUNetPlans.json", folder / "dataset.json")
        self.process = subprocess.Popen(
            [
                *map(str, (side.python, HERE / "drivers" / "augment_samples.py", side.package, *documents)),
                *(case.configuration, case.trainer, str(case.batch_size)),
            ],
            env={**side.environment, **ONE_THREAD, "nnUNet_n_proc_DA": "0", "nnUNet_compile": "f"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(side.folder / "augmentation.log").open("w"),
            text=True,
            start_new_session=True,
        )
        self.log = side.folder / "augmentation.log"
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.bytes = 0

    def turn(self, batches: int, warm: bool = False) -> None:
        """Make this many batches; those made for warming up do not count."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{batches}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.process.args}\nended:\n{self.log.read_text()[-4000:]}")
        found = json.loads(answer)
        self.bytes = found["bytes"]
        if not warm:
            self.seconds += found["seconds"]
            self.cpu += found["cpu"]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


def provide(bench: Bench, name: str, preprocessed: Path | None) -> None:
    """Preprocessed cases of a dataset in both sides' folders, made by ours where none are given."""
    if preprocessed is not None:
        source = preprocessed.resolve() / name
    else:
        source = bench.ours.preprocessed / name
        if not (source / "nnUNetPlans_2d").is_dir():
            bench.documents(name, "dataset_fingerprint.json", "nnUNetPlans.json")
            bench.ours.run("nnUNetv2_preprocess", "-d", name[7:10], "-c", "2d", "3d_fullres", "-np", "2")
    for side in bench.sides:
        target = side.preprocessed / name
        if target.resolve() == source.resolve():
            continue
        if target.is_dir() and not target.is_symlink():  # documents that planning left there
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        target.symlink_to(source)


def provide_previous_stage(bench: Bench, case: Case) -> None:
    """The reference segmentations as the previous stage's predictions."""
    from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2

    folder = bench.ours.preprocessed / case.dataset / "nnUNetPlans_3d_fullres"
    dataset = nnUNetDatasetBlosc2(folder)
    for side in bench.sides:
        stage = side.results / case.dataset / f"{case.trainer}__nnUNetPlans__3d_lowres"
        target = stage / "predicted_next_stage" / case.configuration
        target.mkdir(parents=True, exist_ok=True)
        for name in dataset.identifiers:
            if not (target / f"{name}.b2nd").exists():
                labels = dataset.load_arrays(name)[1][0].clip(0).astype("uint8")
                nnUNetDatasetBlosc2.save_seg(labels, target / name)


def compare(bench: Bench, case: Case) -> None:
    """Let both sides take turns; adds mean, median and memory."""
    loaders = {side.name: Loader(side, case) for side in bench.sides}
    batches = max(1, case.turn // case.batch_size)
    try:
        for loader in loaders.values():
            loader.turn(batches, warm=True)
        for _ in range(round(case.samples * bench.args.share) // (batches * case.batch_size) or 1):
            for loader in loaders.values():
                loader.turn(batches)
    finally:
        for loader in loaders.values():
            loader.close()
    for what, statistic, kind in (("mean", mean, "seconds"), ("median", median, "seconds"), ("mean, CPU", mean, "cpu")):
        values = {name: 1000 * statistic(getattr(one, kind)) / case.batch_size for name, one in loaders.items()}
        bench.row(f"one sample {case}, {what}", values, "ms")
    bench.row(f"one sample {case}, memory", {name: one.bytes / MIB for name, one in loaders.items()}, "MiB")


def main() -> None:
    """Measure and print."""
    options: dict[str, Any] = {"nargs": "+", "choices": list(CASES), "default": list(CASES)}
    bench = Bench(
        __doc__,
        ("--what", {**options, "help": "groups of rows (default: all)"}),
        ("--configurations", {"nargs": "+", "help": "only these configurations"}),
        ("--datasets", {"nargs": "+", "help": "only these datasets"}),
        ("--preprocessed", {"type": Path, "help": "nnUNet_preprocessed made by ours, only read"}),
        ("--share", {"type": float, "default": 1.0, "help": "of the samples (default: %(default)s)"}),
        repeats=1,
    )
    for case in [case for what in bench.args.what for case in CASES[what]]:
        if bench.args.configurations and case.configuration not in bench.args.configurations:
            continue
        if bench.args.datasets and case.dataset not in bench.args.datasets:
            continue
        provide(bench, case.dataset, bench.args.preprocessed)
        if case.configuration == "3d_cascade_fullres":
            provide_previous_stage(bench, case)
        compare(bench, case)
    bench.finish()


if __name__ == "__main__":
    main()
