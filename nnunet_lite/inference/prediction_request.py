"""What `predict_from_files` was asked for: its cases, which of them are done, and the documents beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nnunet_lite.exceptions import ArgumentError, nnUNetError
from nnunet_lite.inference.data_iterators import CaseToPredict, ModelDocuments
from nnunet_lite.inference.leftovers import remove_leftovers
from nnunet_lite.inference.output_conflicts import (
    ARGUMENTS_FILE,
    refuse_foreign_folder,
    refuse_to_overwrite_input,
)
from nnunet_lite.inference.prediction_cases import find_cases, is_done, output_folder, with_previous_stage
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.device import PRECISIONS
from nnunet_lite.utilities.files import PathLike, load_json, save_json
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.parts import check_part

_RECORD = "nnunet_lite"  # key of predict_from_raw_data_args.json


class RequestedCases(NamedTuple):
    """Cases left to do, and how many are done already."""

    cases: list[CaseToPredict]
    done: int


class ModelOrigin(NamedTuple):
    """Where the weights of a predictor come from."""

    model_folder: PathLike
    folds: Sequence[int | str]
    checkpoint: str

    def record(
        self, use_mirroring: bool, tile_step_size: float, autocast_dtype: torch.dtype | None
    ) -> dict[str, dict[str, Any]]:
        """What decides about the result and is no argument of `predict_from_files`, under a key of ours."""
        names = {dtype: name for name, dtype in PRECISIONS.items()}
        record = {
            "model_folder": str(Path(self.model_folder).absolute()),
            "folds": list(self.folds),
            "checkpoint": self.checkpoint,
            "use_mirroring": use_mirroring,
            "tile_step_size": tile_step_size,
            "precision": names[autocast_dtype],
        }
        return {_RECORD: record}


def requested_cases(arguments: Mapping[str, Any], documents: ModelDocuments) -> RequestedCases:
    """The cases left to do; everything is checked before anything is written.

    Args:
        arguments: of `predict_from_files`, by upstream's names, and the record of the model where it is known; stored
            as `predict_from_raw_data_args.json`.
        documents: of the model.

    Raises:
        ArgumentError, DatasetError: what does not fit.
    """
    part = check_part(arguments["num_parts"], arguments["part_id"])
    ending = documents.dataset_json["file_ending"]
    output = arguments["output_folder_or_list_of_truncated_output_files"]
    previous = arguments["folder_with_segs_from_prev_stage"]
    stage = documents.configuration.previous_stage_name
    if stage is not None and previous is None:
        raise ArgumentError(
            f"This configuration is the second stage of a cascade: predict the same images with {stage} first, "
            "then name that folder with -prev_stage_predictions"
        )
    if stage is None and previous is not None:
        logger.warning("This configuration is not the second stage of a cascade: nothing is read from %s", previous)
    cases = part.of_cases(find_cases(arguments["list_of_lists_or_source_folder"], output, documents.dataset_json))
    if stage is not None and previous is not None:
        cases = [with_previous_stage(case, previous, ending) for case in cases]
    refuse_to_overwrite_input(cases, ending)
    folder = output_folder(output, ending)
    if folder is not None:
        refuse_foreign_folder(folder, documents.dataset_json, documents.plans)
        if not arguments["overwrite"]:
            _warn_of_another_model(folder, arguments.get(_RECORD))
        remove_leftovers(folder)
        save_json(dict(arguments), folder / ARGUMENTS_FILE)
        save_json(documents.dataset_json, folder / "dataset.json", sort_keys=False)
        save_json(documents.plans, folder / "plans.json", sort_keys=False)
    if arguments["overwrite"]:
        return RequestedCases(cases, 0)
    reader = PlansManager(documents.plans).image_reader_writer_class()
    left = [case for case in cases if not is_done(case, ending, reader, arguments["save_probabilities"])]
    if len(left) < len(cases):
        nothing = "" if left else f": nothing to do, they are in {folder}"
        logger.info("%d of %d cases are predicted already%s", len(cases) - len(left), len(cases), nothing)
    return RequestedCases(left, len(cases) - len(left))


def _warn_of_another_model(folder: Path, now: Any) -> None:
    """Say if the cases that are done in a folder were predicted otherwise than the others will be."""
    try:
        before = load_json(folder / ARGUMENTS_FILE)[_RECORD]
    except (nnUNetError, OSError, ValueError, LookupError, TypeError):
        return  # there is none, or it is upstream's
    if not isinstance(before, dict) or not isinstance(now, dict) or before == now:
        return
    differing = [key for key in now if key not in ("model_folder", "folds") and now[key] != before.get(key)]
    logger.warning(
        "%s was predicted with %s; this call asks for %s; finished cases stay as they are",
        folder,
        _described(before, differing),
        _described(now, differing),
    )


def _described(record: Mapping[str, Any], keys: Sequence[str]) -> str:
    """MODEL, folds 0 1, and what else differs."""
    folds = record.get("folds")
    folds = [str(fold) for fold in folds] if isinstance(folds, list) else ["?"]
    words = [str(record.get("model_folder")), f"fold{'s' if len(folds) > 1 else ''} {' '.join(folds)}"]
    return ", ".join([*words, *(f"{key} {record.get(key)}" for key in keys)])
