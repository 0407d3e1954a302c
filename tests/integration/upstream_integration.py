"""Upstream's integration test, run with the console commands: from raw images to evaluated, postprocessed ensembles.

    python tests/integration/upstream_integration.py nnUNet_raw/Dataset004_Hippocampus --work /tmp/integration

From the first cases of a dataset of two labels it makes Dataset999 (as it is), 998 (two slices of three are to be
ignored), 997 (the labels as regions) and 996 (regions, and slices to be ignored). 3d_lowres and 3d_cascade_fullres are
added to the plans, the networks are made small. Each of the four configurations is trained in all folds with a trainer
of one short epoch and `--npz`; the best configuration is determined and predicted with by the very commands that are
printed; the cascade likewise; an ensemble is made, postprocessed and evaluated by hand. After every stage its files and
the values in them are checked. Every command, its time and its exit code are written to WORK/commands.txt.

`--package nnunetv2` and the PATH of another installation run the same commands of upstream.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk

CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
LOWRES, CASCADE = "3d_lowres", "3d_cascade_fullres"
TRAINER = "nnUNetTrainerIntegration"
TRAINER_MODULE = """import torch

from {package}.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerIntegration(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 1
        self.num_iterations_per_epoch = {iterations}
        self.num_val_iterations_per_epoch = 2
"""


class Variant(NamedTuple):
    """One of the four datasets."""

    dataset_id: int
    name: str
    regions: bool
    ignore: bool

    @property
    def dataset(self) -> str:
        """Name of the dataset's folder."""
        return f"Dataset{self.dataset_id}_{self.name}"


VARIANTS = {
    variant.dataset_id: variant
    for variant in (
        Variant(996, "IntegrationTest_Hippocampus_regions_ignore", regions=True, ignore=True),
        Variant(997, "IntegrationTest_Hippocampus_regions", regions=True, ignore=False),
        Variant(998, "IntegrationTest_Hippocampus_ignore", regions=False, ignore=True),
        Variant(999, "IntegrationTest_Hippocampus", regions=False, ignore=False),
    )
}
IGNORED = 3  # the value of the ignore label; the labels are 1 and 2
TEST_CASES = 3


class Failure(Exception):
    """A command failed or left something wrong behind."""


def require(condition: bool, what: object) -> None:
    """Raise Failure unless something holds."""
    if not condition:
        raise Failure(str(what))


class Workplace:
    """The folders of a run, and its commands."""

    def __init__(self, work: Path, device: str, package: str, iterations: int, timeout: float) -> None:
        self.raw, self.preprocessed, self.results, self.outputs = (
            work / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "outputs")
        )
        self.device, self.timeout = device, timeout
        self.log = work / "commands.txt"
        trainers = work / "trainers"
        for folder in (self.raw, self.preprocessed, self.results, self.outputs, trainers):
            folder.mkdir(parents=True, exist_ok=True)
        module = TRAINER_MODULE.format(package=package, iterations=iterations)
        (trainers / "integration_trainer.py").write_text(module)
        self.environment = {"nnUNet_def_n_proc": "2", **os.environ}
        for name in ("raw", "preprocessed", "results"):
            self.environment[f"nnUNet_{name}"] = str(work / f"nnUNet_{name}")
        self.environment["nnUNet_extTrainer"] = str(trainers)

    def run(self, command: str) -> str:
        """Run a console command; returns what it printed.

        Raises:
            Failure: it ended with another code than 0 (the end of its output is part of the message).
        """
        words = shlex.split(command)
        if words[0] in ("nnUNetv2_train", "nnUNetv2_predict"):
            words += ["-device", self.device]
        environment = dict(self.environment)
        if words[0] == "nnUNetv2_train":  # upstream's planning does not work with it
            environment.setdefault("nnUNet_n_proc_DA", "0")
        begin = time.monotonic()
        try:
            done = subprocess.run(
                words,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self.timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failure(str(error)) from error
        line = f"{time.monotonic() - begin:7.1f} s  exit code {done.returncode}  {shlex.join(words)}"
        with self.log.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)
        require(done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-4000:]}")
        return done.stdout


def make_dataset(source: Path, raw: Path, variant: Variant, number_of_cases: int) -> None:
    """Write a variant of the first cases of a dataset of the labels 1 and 2; some more become test cases."""
    document = json.loads((source / "dataset.json").read_text())
    ending = document["file_ending"]
    folder = raw / variant.dataset
    if folder.is_dir():
        shutil.rmtree(folder)
    cases = sorted(file.name[: -len(ending)] for file in (source / "labelsTr").glob(f"*{ending}"))
    require(len(cases) >= number_of_cases + TEST_CASES, f"{source} has only {len(cases)} cases")
    for number, case in enumerate(cases[: number_of_cases + TEST_CASES]):
        part = "Tr" if number < number_of_cases else "Ts"
        for kind in ("images", "labels"):
            (folder / f"{kind}{part}").mkdir(parents=True, exist_ok=True)
        for channel in range(len(document["channel_names"])):
            image = f"{case}_{channel:04d}{ending}"
            shutil.copyfile(source / "imagesTr" / image, folder / f"images{part}" / image)
        _write_labels(source / "labelsTr" / f"{case}{ending}", folder / f"labels{part}" / f"{case}{ending}", variant)
    labels: dict[str, Any] = {"background": 0, "anterior": 1, "posterior": 2}
    if variant.regions:
        labels = {"background": 0, "hippocampus": [1, 2], "posterior": 2}
        document["regions_class_order"] = [1, 2]
    if variant.ignore:
        labels["ignore"] = IGNORED
    document.update(labels=labels, numTraining=number_of_cases)
    (folder / "dataset.json").write_text(json.dumps(document, indent=4))


def _write_labels(source: Path, target: Path, variant: Variant) -> None:
    image = sitk.ReadImage(str(source))
    labels = sitk.GetArrayFromImage(image).astype(np.uint8)
    if variant.ignore:
        annotated = labels[::3].copy()
        labels[:] = IGNORED
        labels[::3] = annotated
    written = sitk.GetImageFromArray(labels)
    written.CopyInformation(image)
    sitk.WriteImage(written, str(target), True)


def add_lowres_and_cascade(plans_file: Path) -> None:
    """Add a coarser 3d_lowres and a cascade on it to the plans, and make all networks small."""
    plans = json.loads(plans_file.read_text())
    configurations = plans["configurations"]
    for configuration in configurations.values():
        architecture = configuration["architecture"]["arch_kwargs"]
        architecture["features_per_stage"] = [min(4 * 2**stage, 32) for stage in range(architecture["n_stages"])]
        configuration["batch_size"] = 2
    full = configurations["3d_fullres"]
    divisors = np.prod(full["architecture"]["arch_kwargs"]["strides"], axis=0)
    coarser = 1.25
    shape = np.array(full["median_image_size_in_voxels"]) / coarser
    patch = np.maximum(np.ceil(shape / divisors), 4) * divisors
    configurations[LOWRES] = {
        "inherits_from": "3d_fullres",
        "data_identifier": f"{plans['plans_name']}_{LOWRES}",
        "spacing": [value * coarser for value in full["spacing"]],
        "median_image_size_in_voxels": shape.round().tolist(),
        "patch_size": [int(min(size, most)) for size, most in zip(patch, full["patch_size"], strict=True)],
        "next_stage": CASCADE,
    }
    configurations[CASCADE] = {"inherits_from": "3d_fullres", "previous_stage": LOWRES}
    plans_file.write_text(json.dumps(plans, indent=4))


def write_splits(preprocessed: Path, cases: Sequence[str], folds: int) -> None:
    """A cross-validation of fewer folds than the five that training makes by itself."""
    splits = [
        {"train": [case for case in cases if case not in cases[fold::folds]], "val": list(cases[fold::folds])}
        for fold in range(folds)
    ]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))


class Integration:
    """One dataset from raw images to evaluated predictions."""

    def __init__(self, place: Workplace, variant: Variant, folds: int, configurations: Sequence[str]) -> None:
        self.place, self.variant, self.folds, self.configurations = place, variant, folds, configurations
        self.raw = place.raw / variant.dataset
        self.preprocessed = place.preprocessed / variant.dataset
        self.results = place.results / variant.dataset
        self.outputs = place.outputs / str(variant.dataset_id)
        self.folds_flag = "-f " + " ".join(map(str, range(folds)))
        self.cases = sorted(file.name[: -len(".nii.gz")] for file in (self.raw / "labelsTr").glob("*.nii.gz"))
        self.test_cases = sorted(file.name[: -len(".nii.gz")] for file in (self.raw / "labelsTs").glob("*.nii.gz"))

    def plan_and_preprocess(self) -> None:
        """Plan, edit the plans, preprocess what was added."""
        number = self.variant.dataset_id
        self.place.run(f"nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity -c 2d 3d_fullres")
        add_lowres_and_cascade(self.preprocessed / "nnUNetPlans.json")
        self.place.run(f"nnUNetv2_preprocess -d {number} -c {LOWRES}")
        for configuration in ("2d", "3d_fullres", LOWRES):
            folder = self.preprocessed / f"nnUNetPlans_{configuration}"
            names = {file.name for file in folder.iterdir()}
            for case in self.cases:
                require({f"{case}.b2nd", f"{case}_seg.b2nd", f"{case}.pkl"} <= names, f"{folder}: {case} is incomplete")
        if self.folds != 5:
            write_splits(self.preprocessed, self.cases, self.folds)

    def trainings(self) -> Iterator[list[str]]:
        """The commands that train; those of one list may run at the same time."""
        number = self.variant.dataset_id
        for stage in ([name for name in self.configurations if name != CASCADE], [CASCADE]):
            yield [
                f"nnUNetv2_train {number} {configuration} {fold} -tr {TRAINER} --npz"
                for configuration in stage
                if configuration in self.configurations
                for fold in range(self.folds)
            ]

    def check_trainings(self) -> None:
        """Every fold has its checkpoint, and a validation with probabilities of each case exactly once."""
        for configuration in self.configurations:
            model = self.results / f"{TRAINER}__nnUNetPlans__{configuration}"
            validated: list[str] = []
            for fold in range(self.folds):
                folder = model / f"fold_{fold}"
                for name in ("checkpoint_final.pth", "progress.png", "debug.json", "validation/summary.json"):
                    require((folder / name).is_file(), f"{folder / name} is missing")
                cases = sorted(file.name[: -len(".nii.gz")] for file in (folder / "validation").glob("*.nii.gz"))
                self.check_predictions(folder / "validation", cases, self.raw / "labelsTr", probabilities=True)
                self.check_summary(folder / "validation" / "summary.json", len(cases))
                validated += cases
            require(sorted(validated) == self.cases, f"{model}: validated were {sorted(validated)}")

    def check_predictions(
        self, folder: Path, cases: Sequence[str], references: Path, probabilities: bool = False
    ) -> None:
        """Segmentations of exactly these cases, with their geometry, legal values and, if asked for, probabilities."""
        found = sorted(file.name[: -len(".nii.gz")] for file in folder.glob("*.nii.gz"))
        require(found == sorted(cases) and bool(cases), f"{folder} holds {found}, not {sorted(cases)}")
        for case in cases:
            image, reference = (sitk.ReadImage(str(place / f"{case}.nii.gz")) for place in (folder, references))
            for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
                ours, theirs = getattr(image, name)(), getattr(reference, name)()
                require(np.allclose(ours, theirs, atol=1e-4), f"{folder}/{case}: {name} {ours}, not {theirs}")
            labels = sitk.GetArrayFromImage(image)
            values = set(np.unique(labels).tolist())
            require(values <= {0, 1, 2}, f"{folder}/{case}: values {values}")
            if probabilities:
                self._check_probabilities(folder / f"{case}.npz", labels)

    def _check_probabilities(self, file: Path, labels: np.ndarray) -> None:
        """One channel per label or region, and the segmentation that follows from them."""
        with np.load(file) as content:
            array = content["probabilities"].astype(np.float32)
        channels = 2 if self.variant.regions else 3
        require(array.shape == (channels, *labels.shape), f"{file}: shape {array.shape}, labels {labels.shape}")
        require(bool(np.isfinite(array).all()) and array.min() >= 0 and array.max() <= 1.001, f"{file}: values")
        if self.variant.regions:
            expected = np.where(array[1] > 0.5, 2, np.where(array[0] > 0.5, 1, 0))
        else:
            require(bool(np.allclose(array.sum(0), 1, atol=2e-2)), f"{file}: probabilities do not sum to one")
            expected = array.argmax(0)
        same = float((expected == labels).mean())
        require(same > 0.99, f"{file}: only {same:.3f} of the voxels are what the probabilities say")
        require(file.with_suffix(".pkl").is_file(), f"{file.with_suffix('.pkl')} is missing")

    def check_summary(self, file: Path, cases: int) -> float:
        """An evaluation of so many cases by the labels or regions; returns the mean Dice."""
        summary = json.loads(file.read_text())
        classes = {"(1, 2)", "2"} if self.variant.regions else {"1", "2"}
        require(set(summary["mean"]) == classes, f"{file}: classes {set(summary['mean'])}")
        require(
            len(summary["metric_per_case"]) == cases, f"{file}: {len(summary['metric_per_case'])} cases, not {cases}"
        )
        dice = float(summary["foreground_mean"]["Dice"])
        require(0 <= dice <= 1, f"{file}: Dice {dice}")
        return dice

    def find_best_configuration(self, configurations: Sequence[str], more: str = "") -> Path:
        """Choose among configurations, then do what the printed instructions say; returns the last output folder."""
        number = self.variant.dataset_id
        command = f"nnUNetv2_find_best_configuration {number} -c {' '.join(configurations)} -tr {TRAINER}"
        printed = self.place.run(" ".join(filter(None, (command, self.folds_flag, more))))
        information = json.loads((self.results / "inference_information.json").read_text())
        scores = information["all_results"]
        pairs = 0 if more else math.comb(len(configurations), 2)
        require(len(scores) == len(configurations) + pairs, f"scores of {sorted(scores)}")
        require(all(0 <= score <= 1 for score in scores.values()), scores)
        best = information["best_model_or_ensemble"]
        require(Path(best["postprocessing_file"]).is_file() and Path(best["some_plans_file"]).is_file(), best)
        merged = Path(best["postprocessing_file"]).parent
        self.check_predictions(merged, self.cases, self.raw / "labelsTr")
        self.check_predictions(merged / "postprocessed", self.cases, self.raw / "labelsTr")
        self.check_summary(merged / "summary.json", len(self.cases))
        after = self.check_summary(merged / "postprocessed" / "summary.json", len(self.cases))
        require(after >= max(scores.values()) - 1e-9, f"Dice {after} after postprocessing, {scores} before")
        instructions = (self.results / "inference_instructions.txt").read_text()
        commands = [line for line in instructions.splitlines() if line.startswith("nnUNetv2_")]
        for line in commands:
            require(line in printed, f"this instruction was written, but not printed: {line}")
        return self._follow(commands, self.outputs / "_".join(["best_of", *configurations]))

    def _follow(self, commands: Sequence[str], output: Path) -> Path:
        """Run instructions as they stand, but for the names of the folders."""
        for line in commands:
            named = line.replace("OUTPUT_FOLDER", str(output)).replace(" INPUT_FOLDER", f" {self.raw / 'imagesTs'}")
            self.place.run(named)
        final = Path(f"{output}_PP")
        for folder in (output, final):
            self.check_predictions(folder, self.test_cases, self.raw / "labelsTs")
        for member in output.parent.glob(f"{output.name}_MODEL_*"):
            self.check_predictions(member, self.test_cases, self.raw / "labelsTs", probabilities=True)
        return final

    def evaluate(self, folder: Path, documents: Path) -> float:
        """Evaluate test predictions; returns the mean Dice."""
        given = f"-djfile {documents / 'dataset.json'} -pfile {documents / 'plans.json'}"
        output = self.outputs / f"{folder.name}.json"
        self.place.run(f"nnUNetv2_evaluate_folder {self.raw / 'labelsTs'} {folder} {given} -o {output}")
        return self.check_summary(output, len(self.test_cases))

    def ensemble_by_hand(self, first: str, second: str) -> float:
        """Predict with two models, average, postprocess and evaluate; returns the mean Dice on the test cases."""
        number, members = self.variant.dataset_id, []
        images = self.raw / "imagesTs"
        for configuration in (first, second):
            previous = ""
            if configuration == CASCADE:
                lowres = self.outputs / "first_stage"
                model = f"-c {LOWRES} -tr {TRAINER} {self.folds_flag}"
                self.place.run(f"nnUNetv2_predict -d {number} -i {images} -o {lowres} {model}")
                previous = f"-prev_stage_predictions {lowres}"
            output = self.outputs / configuration
            model = f"-c {configuration} -tr {TRAINER} {self.folds_flag} --save_probabilities {previous}"
            self.place.run(f"nnUNetv2_predict -d {number} -i {images} -o {output} {model}")
            self.check_predictions(output, self.test_cases, self.raw / "labelsTs", probabilities=True)
            members.append(str(output))
        merged, final = self.outputs / "ensemble", self.outputs / "ensemble_PP"
        self.place.run(f"nnUNetv2_ensemble -i {' '.join(members)} -o {merged} -np 2 --save_npz")
        self.check_predictions(merged, self.test_cases, self.raw / "labelsTs", probabilities=True)
        crossvalidation = next(
            folder
            for folder in (self.results / "ensembles").iterdir()
            if f"__{first}___" in folder.name and f"__{second}___" in folder.name
        )
        references = self.preprocessed / "gt_segmentations"
        self.place.run(f"nnUNetv2_determine_postprocessing -i {crossvalidation} -ref {references} -np 2")
        self.check_predictions(crossvalidation / "postprocessed", self.cases, self.raw / "labelsTr")
        given = f"-pp_pkl_file {crossvalidation / 'postprocessing.pkl'} -np 2"
        documents = f"-plans_json {crossvalidation / 'plans.json'} -dataset_json {crossvalidation / 'dataset.json'}"
        self.place.run(f"nnUNetv2_apply_postprocessing -i {merged} -o {final} {given} {documents}")
        self.check_predictions(final, self.test_cases, self.raw / "labelsTs")
        return self.evaluate(final, crossvalidation)

    def run(self, jobs: int) -> dict[str, float]:
        """Everything; returns Dice of the test cases."""
        self.stage(self.plan_and_preprocess)
        for commands in self.trainings():
            with ThreadPoolExecutor(jobs) as pool:
                trainings = [pool.submit(self.place.run, command) for command in commands]
                try:
                    for training in trainings:
                        training.result()
                except Failure:
                    pool.shutdown(cancel_futures=True)
                    raise
        self.stage(self.check_trainings)
        number = self.variant.dataset_id
        first, last = self.configurations[0], self.configurations[-1]
        self.place.run(f"nnUNetv2_accumulate_crossval_results {number} -c {first} -tr {TRAINER} {self.folds_flag}")
        alone = self.find_best_configuration([last], "--disable_ensembling")
        best = self.find_best_configuration(self.configurations)
        dice = {"ensemble by hand": self.ensemble_by_hand(first, last)}
        documents = self.results / f"{TRAINER}__nnUNetPlans__{first}"
        dice[f"{last} alone"], dice["best"] = self.evaluate(alone, documents), self.evaluate(best, documents)
        self.check_nothing_half_written()
        return dice

    def stage(self, work: Callable[[], None]) -> None:
        """Do something and say what."""
        print(f"Dataset{self.variant.dataset_id}: {work.__name__.replace('_', ' ')}", flush=True)
        work()

    def check_nothing_half_written(self) -> None:
        """No temporary files are left."""
        for root in (self.preprocessed, self.results, self.outputs):
            left = [str(path) for path in root.rglob("*") if ".tmp" in path.name]
            require(not left, f"left behind: {left}")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the datasets one after another."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("source", type=Path, help="raw folder of Dataset004_Hippocampus, or another of the labels 1, 2")
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is made; must not hold a run yet")
    parser.add_argument("--datasets", type=int, nargs="+", choices=sorted(VARIANTS), default=sorted(VARIANTS))
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--cases", type=int, default=20, help="training cases (default: 20)")
    parser.add_argument("--folds", type=int, default=5, help="folds of the cross-validation (default: 5)")
    parser.add_argument("--iterations", type=int, default=5, help="training iterations (default: 5)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at the same time (default: 1)")
    parser.add_argument("--device", default="cpu", help="given to training and prediction (default: cpu)")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one command (default: 1800)")
    parser.add_argument("--package", default="nnunet_lite", help="whose trainer to subclass (default: nnunet_lite)")
    args = parser.parse_args(argv)
    if CASCADE in args.configurations and LOWRES not in args.configurations:
        parser.error(f"{CASCADE} needs {LOWRES}")
    place = Workplace(args.work.absolute(), args.device, args.package, args.iterations, args.timeout)
    if any(place.results.iterdir()):
        parser.error(f"--work {args.work} holds a run already")
    try:
        for number in args.datasets:
            begin = time.monotonic()
            make_dataset(args.source, place.raw, VARIANTS[number], args.cases)
            dice = Integration(place, VARIANTS[number], args.folds, args.configurations).run(args.jobs)
            text = ", ".join(f"{name} {value:.4f}" for name, value in dice.items())
            print(
                f"Dataset{number} passed in {time.monotonic() - begin:.0f} s; Dice of the test cases: {text}",
                flush=True,
            )
    except Failure as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
