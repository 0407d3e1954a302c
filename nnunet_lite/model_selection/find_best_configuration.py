"""Which model, or which two averaged, segments best by cross-validation; and how to predict with it.

Upstream's module and function names (nnU-Net v2 2.8.1 behaviour, spec 03, 6.4).
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_lite.ensembling.ensemble import ensemble_crossvalidations
from nnunet_lite.evaluation.summary import load_summary_json
from nnunet_lite.exceptions import ArgumentError, DatasetError, PathError
from nnunet_lite.model_selection.accumulate_cv_results import (
    accumulate_cv_results,
    command_for_missing_validation,
    evaluate_crossvalidation,
    merged_folder,
    reference_folder,
    require_model,
    validation_cases,
)
from nnunet_lite.model_selection.inference_instructions import write_inference_information
from nnunet_lite.models.model_names import Fold, folds_tuple_to_string, get_output_folder, parse_model_folder_name
from nnunet_lite.paths import nnUNet_preprocessed, nnUNet_results
from nnunet_lite.plans.plans_manager import PlansManager, available_plans
from nnunet_lite.plans.raw_dataset import dataset_name_to_id, maybe_convert_to_dataset_name
from nnunet_lite.postprocessing.remove_connected_components import determine_postprocessing
from nnunet_lite.training.splits import NUMBER_OF_FOLDS
from nnunet_lite.utilities.files import load_json, subdirs, subfiles
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.temporary_names import remove_abandoned_files
from nnunet_lite.utilities.wording import counted

_EXAMPLES = 5  # models named in a message

default_trained_models = tuple(
    {"plans": "nnUNetPlans", "configuration": configuration, "trainer": "nnUNetTrainer"}
    for configuration in ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
)


class Candidate(NamedTuple):
    """A trained model that takes part."""

    trainer: str
    plans: str
    configuration: str
    folder: Path

    @property
    def identifier(self) -> str:
        """Trainer__Plans__Configuration."""
        return self.folder.name


class Entry(NamedTuple):
    """A model or ensemble with its cross-validation predictions and their mean foreground Dice."""

    name: str
    members: tuple[Candidate, ...]
    folder: Path
    score: float
    score_of_present: float  # without classes that never occur, for which Dice is NaN


MakeMissing = Callable[[Candidate, Fold, bool], None]  # model, fold, with probabilities


def find_best_configuration(
    dataset_name_or_id: int | str,
    allowed_trained_models: Sequence[Mapping[str, str]] = default_trained_models,
    allow_ensembling: bool = True,
    num_processes: int | None = None,
    overwrite: bool = True,
    folds: Sequence[Fold] = (0, 1, 2, 3, 4),
    *,
    make_missing: MakeMissing | None = None,
) -> dict[str, Any]:
    """Compare models and pairs of them, determine the postprocessing of the best, and write how to predict with it.

    Writes `crossval_results_folds_*` into each model, `ensembles` beside the models, and there
    `inference_information.json` and `inference_instructions.txt`. Classes that occur nowhere make the mean Dice NaN:
    such a score is kept as it is, but compared without them.

    Args:
        allowed_trained_models: dicts with `plans`, `configuration`, `trainer`; configurations that the plans do not
            have are left out.
        allow_ensembling: try every pair, which needs the probabilities of the validation (`--npz`).
        num_processes: background processes.
        overwrite: False keeps segmentations that an earlier call has put together.
        folds: numbers, or `all`.
        make_missing: called for each validation that is missing, instead of ending with the commands that make it.

    Returns:
        What inference_information.json holds.

    Raises:
        PathError: models, validations or probabilities are missing: all of them, with the commands that make them.
        DatasetError: nothing to compare, or cases or labels that do not belong together.
    """
    dataset_name = maybe_convert_to_dataset_name(dataset_name_or_id)
    candidates = _candidates(dataset_name, allowed_trained_models)
    ensembling = allow_ensembling and len(candidates) > 1
    _complete(candidates, folds, ensembling, make_missing)
    entries = [_single(candidate, folds, num_processes, overwrite) for candidate in candidates]
    if ensembling:
        references = reference_folder(dataset_name)
        entries += [
            _pair(first, second, folds, references, num_processes, overwrite)
            for first, second in combinations(candidates, 2)
        ]
    best = _best(entries)
    logger.info("Best by cross-validation: %s, mean foreground Dice %.4f", best.name, best.score_of_present)
    determine_postprocessing(
        best.folder,
        reference_folder(dataset_name),
        best.folder / "plans.json",
        best.folder / "dataset.json",
        num_processes,
        keep_postprocessed_files=True,
        expect_all="all" in folds or len(folds) >= NUMBER_OF_FOLDS,
    )
    processed = load_summary_json(best.folder / "postprocessed" / "summary.json")
    information = {
        "all_results": {entry.name: entry.score for entry in entries},
        "best_model_or_ensemble": {
            "postprocessing_file": str(best.folder / "postprocessing.pkl"),
            "result_on_crossval_post_pp": processed["foreground_mean"]["Dice"],
            "result_on_crossval_pre_pp": best.score,
            "selected_model_or_models": [
                {"configuration": m.configuration, "plans_identifier": m.plans, "trainer": m.trainer}
                for m in best.members
            ],
            "some_plans_file": str(best.folder / "plans.json"),
        },
        "considered_models": [
            {"configuration": one.configuration, "plans": one.plans, "trainer": one.trainer} for one in candidates
        ],
        "dataset_name_or_id": dataset_name,
        "ensembling_allowed": allow_ensembling,
        "folds": list(folds),
    }
    target = Path(os.fspath(nnUNet_results), dataset_name)
    remove_abandoned_files(target)
    write_inference_information(information, target)
    return information


def _candidates(dataset_name: str, models: Sequence[Mapping[str, str]]) -> list[Candidate]:
    """The models to compare; configurations that were not planned are left out.

    Raises:
        PathError: a model that is planned is not trained.
        DatasetError: none is left.
    """
    found, missing, left_out = [], [], []
    for model in models:
        plans = nnUNet_preprocessed / dataset_name / f"{model['plans']}.json"
        known = PlansManager(load_json(plans)).available_configurations if plans.is_file() else []
        if model["configuration"] not in known:
            left_out.append((plans, model["configuration"]))
            continue
        folder = Path(get_output_folder(dataset_name, model["trainer"], model["plans"], model["configuration"]))
        try:
            require_model(folder)
        except PathError as error:
            missing.append(str(error))
        found.append(Candidate(model["trainer"], model["plans"], model["configuration"], folder))
    if missing:
        others = _others_trained(dataset_name, models)
        there = f"; trained are {', or '.join(others)}" if others else ""
        raise PathError("\n".join([*missing, f"or leave it out: name the others with -c, -p and -tr{there}"]))
    if not found:
        raise DatasetError(_nothing_planned(dataset_name, models))
    for plans, configuration in left_out:
        logger.info("%s has no configuration %s: it is left out", plans, configuration)
    return found


def _others_trained(dataset_name: str, models: Sequence[Mapping[str, str]]) -> list[str]:
    """Flags that name what other trainers, or this one with other settings, have trained of this dataset."""
    asked = {(model["trainer"], model["plans"]) for model in models}
    folder = Path(os.fspath(nnUNet_results), dataset_name)
    there: dict[tuple[str, str], list[str]] = {}
    for name in subdirs(folder, join=False) if folder.is_dir() else []:
        with suppress(ArgumentError):  # no model
            trainer, plans, configuration = parse_model_folder_name(name)
            if (trainer, plans) not in asked:
                there.setdefault((trainer, plans), []).append(configuration)
    return [f"-tr {trainer} -p {plans} -c {' '.join(names)}" for (trainer, plans), names in there.items()][:_EXAMPLES]


def _nothing_planned(dataset_name: str, models: Sequence[Mapping[str, str]]) -> str:
    wanted = sorted({f"{model['plans']}, {model['configuration']}" for model in models})
    folder = Path(nnUNet_preprocessed / dataset_name)
    plans = available_plans(folder) if folder.is_dir() else []
    if not plans:
        number = dataset_name_to_id(dataset_name)
        return f"{dataset_name} is not planned yet (no plans in {folder}): nnUNetv2_plan_and_preprocess -d {number}"
    there = [f"{name} ({', '.join(PlansManager(folder / f'{name}.json').available_configurations)})" for name in plans]
    return (
        f"No model of {dataset_name} to compare: asked for {' or '.join(wanted)}, planned are in {folder}: "
        f"{', '.join(there)}; name them with -p and -c"
    )


def _complete(
    candidates: Sequence[Candidate], folds: Sequence[Fold], probabilities: bool, make_missing: MakeMissing | None
) -> None:
    """Raise PathError for validations that are missing, all of them with their commands; or make them."""
    missing = [
        (candidate, fold, with_probabilities)
        for candidate in candidates
        for fold in folds
        for with_probabilities in [_missing_of(candidate, fold, probabilities)]
        if with_probabilities is not None
    ]
    if make_missing is not None:
        for candidate, fold, with_probabilities in missing:
            make_missing(candidate, fold, with_probabilities)
        missing = [entry for entry in missing if _missing_of(entry[0], entry[1], probabilities) is not None]
    if missing:
        lines = [f"  {command_for_missing_validation(one.folder, fold, npz)}" for one, fold, npz in missing]
        advice = " (or compare single models alone: --disable_ensembling)" if probabilities else ""
        text = f"{counted(len(missing), 'validation')} missing or without probabilities. Run{advice}:"
        raise PathError("\n".join([text, *lines, "--compute_missing does it for folds that are trained"]))


def _missing_of(candidate: Candidate, fold: Fold, probabilities: bool) -> bool | None:
    """None if the validation of a fold is there; else whether it has to write probabilities."""
    validation = candidate.folder / f"fold_{fold}" / "validation"
    if not (validation / "summary.json").is_file():
        return probabilities
    if not probabilities:
        return None
    ending = load_json(candidate.folder / "dataset.json")["file_ending"]
    cases = [name[: -len(ending)] for name in subfiles(validation, ending, join=False)]
    return True if any(not (validation / f"{case}.npz").is_file() for case in cases) else None


def _single(candidate: Candidate, folds: Sequence[Fold], num_processes: int | None, overwrite: bool) -> Entry:
    merged = merged_folder(candidate.folder, folds)
    accumulate_cv_results(candidate.folder, merged, folds, num_processes, overwrite)
    return _entry(candidate.identifier, (candidate,), merged)


def _pair(
    first: Candidate,
    second: Candidate,
    folds: Sequence[Fold],
    references: Path,
    num_processes: int | None,
    overwrite: bool,
) -> Entry:
    name = "___".join(("ensemble", first.identifier, second.identifier, folds_tuple_to_string(folds)))
    folder = first.folder.parent / "ensembles" / name
    if overwrite and folder.is_dir():  # it may hold the cases of another split
        shutil.rmtree(folder)
    ensemble_crossvalidations([first.folder, second.folder], folder, folds, num_processes, overwrite)
    plans_manager, dataset_json = PlansManager(load_json(folder / "plans.json")), load_json(folder / "dataset.json")
    cases = validation_cases(first.folder, folds, dataset_json["file_ending"])
    evaluate_crossvalidation(folder, references, plans_manager, dataset_json, num_processes, cases)
    return _entry(name, (first, second), folder)


def _entry(name: str, members: tuple[Candidate, ...], folder: Path) -> Entry:
    summary = load_summary_json(folder / "summary.json")
    present = [
        values["Dice"] for entry, values in summary["mean"].items() if entry != 0 and not math.isnan(values["Dice"])
    ]
    score = float(summary["foreground_mean"]["Dice"])
    return Entry(name, members, folder, score, sum(present) / len(present) if present else math.nan)


def _best(entries: Sequence[Entry]) -> Entry:
    """The highest score, the first of equal ones; scores are compared without the classes that never occur."""
    if any(math.isnan(entry.score) for entry in entries):
        logger.warning("Some classes occur nowhere, so that mean Dice is NaN: models are compared by the other classes")
    return max(entries, key=_rank)


def _rank(entry: Entry) -> float:
    return -math.inf if math.isnan(entry.score_of_present) else entry.score_of_present
