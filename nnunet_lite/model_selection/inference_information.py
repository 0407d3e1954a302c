"""inference_information.json, read with care: which models were chosen, which compared."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.models.model_names import model_folder_name, parse_model_folder_name
from nnunet_lite.utilities.files import load_json

FILE = "inference_information.json"


class InferenceInformation(NamedTuple):
    """What nnUNetv2_find_best_configuration left; names are those of model folders."""

    chosen: list[str]  # [] if one of them cannot be read: part of an ensemble is another model
    considered: list[str]  # those that can be read
    content: dict[str, Any]


def read_inference_information(results: Path) -> InferenceInformation | None:
    """The information of a dataset's folder of results; None if there is none, or none that can be read."""
    try:
        content = load_json(results / FILE)
        chosen = [
            (model["trainer"], model["plans_identifier"], model["configuration"])
            for model in content["best_model_or_ensemble"]["selected_model_or_models"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    names = list(_names(chosen))
    return InferenceInformation(names if len(names) == len(chosen) else [], list(_names(_considered(content))), content)


def _considered(content: dict[str, Any]) -> list[tuple[Any, Any, Any]]:
    models = content.get("considered_models")
    keys = ("trainer", "plans", "configuration")
    entries = [model for model in models if isinstance(model, dict)] if isinstance(models, list) else []
    return [(entry.get(keys[0]), entry.get(keys[1]), entry.get(keys[2])) for entry in entries]


def _names(models: Iterable[tuple[Any, Any, Any]]) -> Iterable[str]:
    """Folder names of those models that can have a folder."""
    for parts in models:
        if not all(isinstance(part, str) and part and "/" not in part and "\\" not in part for part in parts):
            continue
        name = model_folder_name(*parts)
        try:
            parse_model_folder_name(name)
        except ArgumentError:
            continue
        yield name
