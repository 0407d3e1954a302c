"""Commands that predict images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lite.cli import arguments as flags
from nnunet_lite.cli.command import command, make_parser
from nnunet_lite.exceptions import nnUNetError

if TYPE_CHECKING:
    from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor
    from nnunet_lite.inference.prediction_cases import Output, Source
    from nnunet_lite.utilities.parts import Part

_COMMON = (
    flags.STEP_SIZE,
    flags.DISABLE_TTA,
    flags.VERBOSE,
    flags.SAVE_PROBABILITIES,
    flags.CHECKPOINT,
    flags.PREDICTION_PREPROCESSING,
    flags.PREDICTION_EXPORT,
    flags.PREVIOUS_STAGE,
    flags.DEVICE,
    flags.DISABLE_PROGRESS_BAR,
    flags.NOT_ON_DEVICE,
    flags.PRECISION,
    flags.MAX_RAM_OF_PREDICTION,
)

_command = partial(command, after_stop="Stopped. Finished cases are kept; --continue_prediction skips them.")


@_command
def predict_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_predict."""
    parser = make_parser(
        "nnUNetv2_predict",
        "Predict images with a model trained in nnUNet_results.",
        flags.INPUT,
        flags.OUTPUT,
        flags.DATASET,
        flags.PLANS,
        flags.TRAINER,
        flags.CONFIGURATION,
        flags.FOLDS,
        flags.CONTINUE_PREDICTION,
        flags.NUM_PARTS,
        flags.PART_ID,
        *_COMMON,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.models.trained_model import TrainedModel
    from nnunet_lite.plans.raw_dataset import maybe_convert_to_dataset_name

    dataset = maybe_convert_to_dataset_name(args.d)
    _predict(args, TrainedModel.find(dataset, args.tr, args.p, args.c).folder, args.num_parts, args.part_id)


@_command
def predict_from_modelfolder_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_predict_from_modelfolder."""
    parser = make_parser(
        "nnUNetv2_predict_from_modelfolder",
        "Predict images with a model folder that lies anywhere.",
        flags.INPUT,
        flags.OUTPUT,
        flags.MODEL_FOLDER,
        flags.FOLDS,
        flags.CONTINUE_PREDICTION_ALIAS,
        flags.NUM_PARTS,
        flags.PART_ID,
        *_COMMON,
    )
    args = parser.parse_args(argv)
    _predict(args, args.m, args.num_parts, args.part_id)


def _predict(args: argparse.Namespace, model_folder: str | Path, num_parts: int, part_id: int) -> None:
    """What both commands do."""
    from nnunet_lite.utilities.parts import check_part

    part = check_part(num_parts, part_id)
    predictor = _predictor(args, model_folder)
    stage = predictor.configuration_manager.previous_stage_name
    if stage is None or args.prev_stage_predictions is not None:
        _predict_files(args, predictor, args.i, args.o, args.save_probabilities, args.prev_stage_predictions, part)
    else:
        _predict_cascade(args, predictor, model_folder, stage, part)


def _predict_cascade(
    args: argparse.Namespace, predictor: nnUNetPredictor, model_folder: str | Path, stage: str, part: Part
) -> None:
    """Predict with the first stage of a cascade, into a folder inside the output folder, then with the second."""
    from nnunet_lite.inference.output_conflicts import refuse_foreign_folder
    from nnunet_lite.inference.prediction_cases import output_folder
    from nnunet_lite.inference.previous_stage import cases_without, find_previous_stage, previous_stage_output
    from nnunet_lite.utilities.logging import logger
    from nnunet_lite.utilities.parts import WHOLE

    model = find_previous_stage(model_folder, stage, args.f, args.chk)
    source, target, failed = args.i, args.o, None
    ending = predictor.dataset_json["file_ending"]
    folder = output_folder(args.o, ending)
    if folder is not None:  # now, not when the first stage is done
        refuse_foreign_folder(folder, predictor.dataset_json, predictor.plans_manager.plans)
    output = previous_stage_output(args.o, ending, stage)
    logger.info("First stage of the cascade: %s, predictions go to %s", model, output)
    try:
        _predict_files(args, _predictor(args, model), source, output, False, None, part)
    except nnUNetError as error:
        if not error.failed_cases:
            raise
        source, target = cases_without(error.failed_cases, source, target, predictor.dataset_json, part)
        if not source:
            raise
        failed, part = error.with_traceback(None), WHOLE  # which leads to the first stage's network
        logger.warning("%s: %s", stage, error)
    logger.info("Second stage of the cascade")
    _predict_files(args, predictor, source, target, args.save_probabilities, output, part)
    if failed is not None:
        raise failed


def _predictor(args: argparse.Namespace, model_folder: str | Path) -> nnUNetPredictor:
    """A predictor of a model, as the flags say."""
    from nnunet_lite.inference.predict_from_raw_data import nnUNetPredictor
    from nnunet_lite.utilities.device import resolve_device, set_num_threads
    from nnunet_lite.utilities.memory import parse_size

    device = resolve_device(args.device)
    set_num_threads(device)
    predictor = nnUNetPredictor(
        args.step_size,
        True,
        not args.disable_tta,
        not args.not_on_device,
        device,
        args.verbose,
        args.verbose,
        not args.disable_progress_bar,
        precision=args.precision,
        max_ram=None if args.max_ram is None else parse_size(args.max_ram),
    )
    predictor.initialize_from_trained_model_folder(model_folder, args.f, args.chk)
    return predictor


def _predict_files(
    args: argparse.Namespace,
    predictor: nnUNetPredictor,
    source: Source,
    output: Output,
    save_probabilities: bool,
    previous: str | Path | None,
    part: Part,
) -> None:
    predictor.predict_from_files(
        source,
        output,
        save_probabilities,
        not args.continue_prediction,
        args.npp,
        args.nps,
        previous,
        part.num_parts,
        part.part_id,
    )
