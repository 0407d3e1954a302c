"""What comes after training, the same files through both sides, every file they write compared.

accumulate_crossval_results, find_best_configuration (with its ensemble and postprocessing), ensemble --save_npz and
apply_postprocessing, on synthetic cross-validations of Dataset004 (labels), of a coarse torso phantom (24
labels) and of regions derived from Dataset114; and, with --results, on models that were really trained.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import SimpleITK as sitk
from common import Bench, Side, remove
from same_files import differences
from synthetic_predictions import references_of, regions_from_lesions, write_crossvalidation

EXPECTED = (  # ends of lines: what is different on purpose
    "ensembled/plans.json",  # ours: so that postprocessing finds them
    "_relative is added by ours",  # ours: holds where a model is copied to
    *(f"postprocessed/{name}" for name in ("plans.json", "dataset.json", "postprocessing.json", "postprocessing.pkl")),
)  # upstream copies whatever lies in the folder
_STRIDE = 4


class Subject(NamedTuple):
    """A dataset with two or more cross-validated models of one plans file and trainer."""

    dataset: str
    models: list[Path]
    folds: list[str]

    @property
    def names(self) -> tuple[str, str]:
        """Trainer and plans."""
        trainer, plans, _ = self.models[0].name.split("__")
        return trainer, plans

    @property
    def configurations(self) -> list[str]:
        """Of the models."""
        return [model.name.split("__")[2] for model in self.models]


def small_torso(bench: Bench) -> str:
    """Every fourth voxel of each label map of the phantom, so that all labels are left, as a dataset of its own."""
    source, name = bench.dataset("Dataset900_Torso"), "Dataset901_CoarseTorso"
    target = bench.raw / name
    remove(target)
    (target / "labelsTr").mkdir(parents=True)
    shutil.copyfile(source / "dataset.json", target / "dataset.json")
    for file in references_of(source):
        image = sitk.ReadImage(str(file))[::_STRIDE, ::_STRIDE, ::_STRIDE]
        sitk.WriteImage(image, str(target / "labelsTr" / file.name))
    return name


def lesion_regions(bench: Bench) -> str:
    """Dataset114 with a rim around each lesion, as two regions."""
    name = "Dataset914_LesionRegions"
    regions_from_lesions(bench.dataset("Dataset114_BrainNRRD"), bench.raw / name)
    return name


def synthetic(bench: Bench, dataset: str, cases: int, golden: str) -> Subject:
    """Two models without weights, cross-validated."""
    raw = bench.raw / dataset
    plans = json.loads((bench.shared / "goldens" / golden / "nnUNetPlans.json").read_text())
    plans["dataset_name"] = dataset
    content = json.loads((raw / "dataset.json").read_text())
    folds, models = min(5, cases), []
    for seed, configuration in enumerate(("2d", "3d_fullres"), 1):
        model = bench.work / "models" / dataset / f"nnUNetTrainer__nnUNetPlans__{configuration}"
        remove(model)
        write_crossvalidation(references_of(raw, cases), model, plans, content, seed, folds)
        models.append(model)
    return Subject(dataset, models, [str(fold) for fold in range(folds)])


def trained(results: Path) -> list[Subject]:
    """Models below an nnUNet_results, grouped by dataset, trainer and plans."""
    groups: dict[tuple[str, str, str], list[Path]] = {}
    for model in sorted(results.glob("Dataset*/*__*__*")):
        trainer, plans, _ = model.name.split("__")
        groups.setdefault((model.parent.name, trainer, plans), []).append(model)
    return [
        Subject(dataset, models, sorted(fold.name[5:] for fold in models[0].glob("fold_*")))
        for (dataset, _, _), models in groups.items()
    ]


def install(side: Side, subject: Subject, raw: Path) -> None:
    """Copies of the models and the documents where a side looks for them."""
    results, preprocessed = side.results / subject.dataset, side.preprocessed / subject.dataset
    for folder in (results, preprocessed):
        remove(folder)
        folder.mkdir(parents=True)
    for model in subject.models:
        shutil.copytree(model, results / model.name)
    shutil.copyfile(subject.models[0] / "plans.json", preprocessed / f"{subject.names[1]}.json")
    shutil.copyfile(raw / "dataset.json", preprocessed / "dataset.json")
    shutil.copytree(raw / "labelsTr", preprocessed / "gt_segmentations")


def run(side: Side, subject: Subject) -> None:
    """All commands, on a side's copy."""
    trainer, plans = subject.names
    processes = {"nnUNet_def_n_proc": "2"}
    who, folds = ("-p", plans, "-tr", trainer), ("-f", *subject.folds)
    results = side.results / subject.dataset
    for configuration in subject.configurations:
        output = ("-o", results / f"accumulated_{configuration}")
        side.run(
            "nnUNetv2_accumulate_crossval_results",
            subject.dataset,
            "-c",
            configuration,
            *who,
            *folds,
            *output,
            **processes,
        )
    side.run(
        "nnUNetv2_find_best_configuration",
        subject.dataset,
        "-c",
        *subject.configurations,
        *who,
        *folds,
        "-np",
        "2",
        **processes,
    )
    members = [results / model.name / f"fold_{subject.folds[0]}" / "validation" for model in subject.models]
    for member, model in zip(members, subject.models, strict=True):
        for name in ("plans.json", "dataset.json"):
            shutil.copyfile(model / name, member / name)
    side.run("nnUNetv2_ensemble", "-i", *members, "-o", results / "ensembled", "-np", "2", "--save_npz")
    best = json.loads((results / "inference_information.json").read_text())["best_model_or_ensemble"]
    flags = ("-pp_pkl_file", best["postprocessing_file"], "-plans_json", best["some_plans_file"], "-np", "2")
    side.run("nnUNetv2_apply_postprocessing", "-i", results / "ensembled", "-o", results / "processed", *flags)


def main() -> None:
    """Run both and compare."""
    bench = Bench(
        __doc__,
        ("--results", {"type": Path, "help": "an nnUNet_results with trained models, validated with --npz"}),
        ("--dataset", {"default": "", "help": "only datasets with this in their name"}),
        ("--cases", {"type": int, "default": 20, "help": "of Dataset004 (default: %(default)s)"}),
    )
    bench.dataset("Dataset004_Hippocampus")
    subjects = (
        trained(bench.args.results)
        if bench.args.results
        else [
            synthetic(bench, "Dataset004_Hippocampus", bench.args.cases, "Dataset004_Hippocampus"),
            synthetic(bench, lesion_regions(bench), 2, "Dataset004_Hippocampus"),
            synthetic(bench, small_torso(bench), 4, "Dataset900_Torso"),
        ]
    )
    upstream, ours = bench.pair()
    for subject in subjects:
        if bench.args.dataset not in subject.dataset:
            continue
        for side in (upstream, ours):
            install(side, subject, bench.raw / subject.dataset)
            run(side, subject)
        trees = [side.results / subject.dataset for side in (upstream, ours)]
        found = differences(trees[0], trees[1], lambda text: text.endswith(EXPECTED))
        number = sum(1 for file in trees[0].rglob("*") if file.is_file())
        print(f"{subject.dataset}: {number} files of upstream, {len(found)} differences", flush=True)
        for text in found:
            print(f"  {text}")


if __name__ == "__main__":
    main()
