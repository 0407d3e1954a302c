"""The commands that predict with what find_best_configuration chose, as a text and as data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from nnunet_lite.configuration import num_processes_default
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.files import PathLike, load_json, save_json, write_text

_INPUT, _OUTPUT, _PROCESSED, _PREVIOUS = "INPUT_FOLDER", "OUTPUT_FOLDER", "OUTPUT_FOLDER_PP", "OUTPUT_FOLDER_PREV_STAGE"


def write_inference_information(information: Mapping[str, Any], dataset_folder: Path) -> None:
    """Write inference_information.json and inference_instructions.txt below nnUNet_results.

    Beside upstream's absolute paths stand those relative to that folder, which hold where models are copied to.
    """
    best = dict(information["best_model_or_ensemble"])
    for key in ("postprocessing_file", "some_plans_file"):
        best[f"{key}_relative"] = Path(best[key]).relative_to(dataset_folder).as_posix()
    complete = {**information, "best_model_or_ensemble": best}
    save_json(complete, dataset_folder / "inference_information.json")
    write_text(inference_instructions(complete, dataset_folder), dataset_folder / "inference_instructions.txt")


def print_inference_instructions(
    inference_info_dict: Mapping[str, Any], instructions_file: PathLike | None = None
) -> str:
    """The instructions that belong to an inference_information.json; written to a file if one is given."""
    text = inference_instructions(inference_info_dict)
    if instructions_file is not None:
        write_text(text, instructions_file)
    return text


def inference_instructions(information: Mapping[str, Any], dataset_folder: Path | None = None) -> str:
    """The commands, with words of explanation (spec 03, 6.4).

    Args:
        information: content of inference_information.json.
        dataset_folder: where it lies; the files it names are looked up there if they are not where it says.
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
        previous = _previous_stage(model, plans_file)
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
    folds = " ".join(map(str, information["folds"]))
    return (
        f"nnUNetv2_predict -d {information['dataset_name_or_id']} -i {_INPUT} -o {output} -f  {folds} "
        f"-tr {model['trainer']} -c {model['configuration']} -p {model['plans_identifier']}"
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
