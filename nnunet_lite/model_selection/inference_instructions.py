"""The commands that predict with what find_best_configuration chose, as a text and as data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_lite.models.prediction_commands import FILES, inference_instructions
from nnunet_lite.utilities.files import PathLike, save_json, write_text

__all__ = ["inference_instructions", "print_inference_instructions", "write_inference_information"]


def write_inference_information(information: Mapping[str, Any], dataset_folder: Path) -> None:
    """Write inference_information.json and inference_instructions.txt below nnUNet_results.

    Beside upstream's absolute paths stand those relative to that folder, which hold where models are copied to.
    """
    best = dict(information["best_model_or_ensemble"])
    for key in FILES:
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
