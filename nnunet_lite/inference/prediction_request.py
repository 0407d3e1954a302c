"""What `predict_from_files` was asked for: its cases, which of them are done, and the documents beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.inference.data_iterators import CaseToPredict, ModelDocuments
from nnunet_lite.inference.leftovers import remove_leftovers
from nnunet_lite.inference.output_conflicts import refuse_to_overwrite_input
from nnunet_lite.inference.prediction_cases import find_cases, is_done, output_folder, with_previous_stage
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.utilities.files import save_json
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.parts import check_part


class RequestedCases(NamedTuple):
    """Cases left to do, and how many are done already."""

    cases: list[CaseToPredict]
    done: int


def requested_cases(arguments: Mapping[str, Any], documents: ModelDocuments) -> RequestedCases:
    """The cases left to do; everything is checked before anything is written.

    Args:
        arguments: of `predict_from_files`, by upstream's names; stored as `predict_from_raw_data_args.json`.
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
        remove_leftovers(folder)
        save_json(dict(arguments), folder / "predict_from_raw_data_args.json")
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
