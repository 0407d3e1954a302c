"""What a dataset lacks on its way to predictions, with the commands that make it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nnunet_lite.model_selection.accumulate_cv_results import command_for_missing_validation
from nnunet_lite.model_selection.dataset_status import DatasetStatus, ModelStatus
from nnunet_lite.models.model_names import Fold, parse_model_folder_name
from nnunet_lite.plans.raw_dataset import dataset_name_to_id
from nnunet_lite.reporting.markup import Markup, element, joined, table

_MOST = 60


class Missing(NamedTuple):
    """One thing that is not there."""

    what: str
    command: str


def missing_parts(status: DatasetStatus, models: Sequence[ModelStatus], folds: Sequence[Fold] | None) -> list[Missing]:
    """Everything that is missing of the models that are looked at.

    Args:
        status: of the whole dataset.
        models: those the report is about.
        folds: those asked for; None: the cross-validation of each model that is not trained on all cases.
    """
    number = dataset_name_to_id(status.name)
    found = []
    if status.training_cases and not status.fingerprint:
        command = f"nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity"
        found.append(Missing("fingerprint, plans and preprocessed data", command))
    elif status.training_cases and not status.configurations and not status.models:
        found.append(Missing("plans and preprocessed data", f"nnUNetv2_plan_and_preprocess -d {number}"))
    elif status.training_cases:
        found += [
            Missing(f"preprocessed data of {entry.configuration} ({entry.plans})",
                    f"nnUNetv2_preprocess -d {number} -c {entry.configuration} -plans_name {entry.plans}")
            for entry in status.configurations
            if not entry.preprocessed
        ]  # fmt: skip
    for model in models:
        found += _of_model(model, folds, with_probabilities=len(models) > 1)
    complete = [parse_model_folder_name(model.folder.name) for model in models if model.is_complete]
    if complete and not status.chosen:
        found.append(Missing("a choice of the best model, its postprocessing", _find_best(number, complete)))
    if not found and folds is None and _is_command(status):  # what a status has an eye for alone
        what = "the next step towards predictions" if status.models else "a trained model"
        found.append(Missing(what, status.next_command))
    return found


def _is_command(status: DatasetStatus) -> bool:
    """Whether what comes next is something to run, and no word on what is finished or to be waited for."""
    return status.next_command.startswith("nnUNetv2_")


def _of_model(model: ModelStatus, folds: Sequence[Fold] | None, with_probabilities: bool) -> list[Missing]:
    there = {fold.fold: fold for fold in model.folds}
    wanted = folds
    if wanted is None:
        wanted = ["all"] if "all" in there and len(there) == 1 else range(model.number_of_folds)
    found = []
    for fold in wanted:
        known = there.get(fold)
        if known is not None and known.state == "in training":
            continue
        name = f"fold {fold} of {model.folder.name}"
        if known is None or known.dice is None:
            what = "validation" if known is not None and known.state == "trained" else "training"
            command = command_for_missing_validation(model.folder, fold, with_probabilities)
            found.append(Missing(f"{what} of {name}", command))
        elif with_probabilities and not known.probabilities and fold != "all":
            command = command_for_missing_validation(model.folder, fold, probabilities=True)
            found.append(Missing(f"probabilities of {name}, for ensembles", command))
    return found


def _find_best(number: int, complete: Sequence[tuple[str, str, str]]) -> str:
    trainers, plans, configurations = (sorted({name[part] for name in complete}) for part in range(3))
    words = ["nnUNetv2_find_best_configuration", str(number), "-c", *configurations]
    words += ["-tr", *trainers] if trainers != ["nnUNetTrainer"] else []
    words += ["-p", *plans] if plans != ["nnUNetPlans"] else []
    return " ".join(words)


def missing_section(status: DatasetStatus, missing: Sequence[Missing]) -> Markup:
    """A table of what is missing, and the next command."""
    rows = [[entry.what, element("code", entry.command)] for entry in missing[:_MOST]]
    rest = len(missing) - _MOST
    finished = status.next_command.startswith("finished")
    nothing = "Nothing is missing." if finished else "Nothing is missing of the models and folds of this report."
    return joined(
        element("p", f"Faults: {status.fault}", class_="warning") if status.fault else None,
        table(["missing", "command"], rows, "Missing parts") if rows else element("p", nothing),
        element("p", f"{rest} further parts are missing.", class_="note") if rest > 0 else None,
        element("p", "Next: ", element("code", status.next_command)),
    )
