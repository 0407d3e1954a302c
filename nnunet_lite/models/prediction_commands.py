"""The commands that predict with chosen models, from the content of inference_information.json; here or elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from shlex import quote
from typing import Any

from nnunet_lite.configuration import num_processes_default
from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.models.model_names import model_folder_name
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.files import PathLike, load_json

FILES = ("postprocessing_file", "some_plans_file")
_INPUT, _OUTPUT, _PROCESSED, _PREVIOUS = "INPUT_FOLDER", "OUTPUT_FOLDER", "OUTPUT_FOLDER_PP", "OUTPUT_FOLDER_PREV_STAGE"


def moved_information(information: Mapping[str, Any], folder: Path, place: Path) -> dict[str, Any]:
    """The same inference_information.json for models that will lie elsewhere, ours or upstream's.

    Args:
        information: its content, with the paths of the machine it was made on.
        folder: where the models lie now, DatasetXXX_NAME.
        place: where they will lie; the paths named become those there.

    Raises:
        KeyError, TypeError, AttributeError, IndexError, ArgumentError: no such content.
    """
    best = dict(information["best_model_or_ensemble"])
    sender = str(information["dataset_name_or_id"])
    for key in FILES:
        relative = str(best.get(f"{key}_relative") or _below_dataset(str(best[key]), (sender, folder.name)))
        best[f"{key}_relative"] = _inside(relative)
    if not (folder / best["some_plans_file_relative"]).is_file():  # upstream and earlier exports do not pack it
        first = best["selected_model_or_models"][0]
        model = model_folder_name(first["trainer"], first["plans_identifier"], first["configuration"])
        best["some_plans_file_relative"] = _inside(f"{model}/plans.json")
    best |= {key: str(place / best[f"{key}_relative"]) for key in FILES}
    return {**information, "dataset_name_or_id": folder.name, "best_model_or_ensemble": best}


def _below_dataset(path: str, names: tuple[str, ...]) -> str:
    """The part of a path of another machine that follows the dataset's name, else model (or ensembles) and onwards."""
    parts = (PureWindowsPath if "\\" in path else PurePosixPath)(path).parts
    for start in range(len(parts) - 1, 0, -1):
        if parts[start - 1] in names or parts[start - 1].startswith("Dataset"):
            return "/".join(parts[start:])
    return "/".join(parts[-3:])


def _inside(relative: str) -> str:
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts:
        raise ArgumentError(f"{relative} leads out of the folder of its dataset")
    return path.as_posix()


def inference_instructions(
    information: Mapping[str, Any], dataset_folder: Path | None = None, plans: PathLike | None = None
) -> str:
    """The commands, with words of explanation (spec 03, 6.4).

    Args:
        information: content of inference_information.json.
        dataset_folder: where it lies; the files it names are looked up there if they are not where it says.
        plans: where to read the plans, if not yet where the information says.
    """
    best = information["best_model_or_ensemble"]
    models = best["selected_model_or_models"]
    plans_file, postprocessing = (
        _located(best, key, dataset_folder) for key in ("some_plans_file", "postprocessing_file")
    )
    lines = ["***Run inference like this:***", ""]
    if len(models) > 1:
        lines += ["An ensemble won: predict with each of its models, then average them with nnUNetv2_ensemble", ""]
    folders = []
    for number, model in enumerate(models, 1):
        folders.append(_OUTPUT if len(models) == 1 else f"{_OUTPUT}_MODEL_{number}")
        previous = _previous_stage(model, plans_file if plans is None else Path(plans))
        if previous is not None:
            lines.append(_predict(information, {**model, "configuration": previous}, _PREVIOUS))
        words = [_predict(information, model, folders[-1])]
        words += [f"-prev_stage_predictions {_PREVIOUS}"] if previous is not None else []
        words += ["--save_probabilities"] if len(models) > 1 else []
        lines.append(" ".join(words))
    processes = num_processes_default()
    if len(models) > 1:
        lines += ["", "The models can now be ensembled:", ""]
        lines.append(f"nnUNetv2_ensemble -i {' '.join(folders)} -o {_OUTPUT} -np {processes}")
    lines += ["", "***Once inference is completed, run postprocessing like this:***", ""]
    lines.append(
        f"nnUNetv2_apply_postprocessing -i {_OUTPUT} -o {_PROCESSED} -pp_pkl_file {quote(str(postprocessing))} "
        f"-np {processes} -plans_json {quote(str(plans_file))}"
    )
    return "\n".join(lines) + "\n"


def _predict(information: Mapping[str, Any], model: Mapping[str, str], output: str) -> str:
    folds = " ".join(quote(str(fold)) for fold in information["folds"])
    return (
        f"nnUNetv2_predict -d {information['dataset_name_or_id']} -i {_INPUT} -o {output} -f  {folds} "
        f"-tr {quote(model['trainer'])} -c {quote(model['configuration'])} -p {quote(model['plans_identifier'])}"
    )


def _previous_stage(model: Mapping[str, str], plans_file: Path) -> str | None:
    """The first stage of a cascade."""
    if not plans_file.is_file():
        return None
    plans = PlansManager(load_json(plans_file))
    if model["configuration"] not in plans.available_configurations:
        return None
    previous: str | None = plans.get_configuration(model["configuration"]).previous_stage_name
    return previous


def _located(best: Mapping[str, Any], key: str, dataset_folder: Path | None) -> Path:
    named = Path(best[key])
    relative = best.get(f"{key}_relative")
    if dataset_folder is not None and relative is not None and not named.is_file():
        return dataset_folder / str(relative)
    return named
