"""Commands that compare trained models by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lite.cli import arguments as flags
from nnunet_lite.cli.command import command, make_parser
from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.utilities.wording import counted

if TYPE_CHECKING:
    from nnunet_lite.model_selection.find_best_configuration import Candidate


@command
def accumulate_crossval_results_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_accumulate_crossval_results."""
    parser = make_parser(
        "nnUNetv2_accumulate_crossval_results",
        "Put the validation segmentations of all folds of a model into one folder and evaluate them there.",
        flags.DATASET_POSITION,
        flags.CONFIGURATION,
        flags.ACCUMULATED_OUTPUT,
        flags.CROSSVALIDATION_FOLDS,
        flags.PLANS,
        flags.TRAINER,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.evaluation.summary import load_summary_json
    from nnunet_lite.model_selection.accumulate_cv_results import accumulate_cv_results, merged_folder
    from nnunet_lite.models.model_names import get_output_folder

    model = Path(get_output_folder(args.dataset_name_or_id, args.tr, args.p, args.c))
    output = merged_folder(model, args.f) if args.o is None else Path(args.o)
    if args.o is not None and output.is_dir() and any(output.iterdir()):
        raise ArgumentError(f"-o {output} is not empty; name a new folder, or leave -o out")
    accumulate_cv_results(model, output, args.f)
    summary = load_summary_json(output / "summary.json")
    dice, cases = summary["foreground_mean"]["Dice"], counted(len(summary["metric_per_case"]), "case")
    print(f"Mean foreground Dice {dice:.4f} ({cases}): {output}")


@command
def find_best_configuration_entry(argv: Sequence[str] | None = None) -> None:
    """nnUNetv2_find_best_configuration."""
    parser = make_parser(
        "nnUNetv2_find_best_configuration",
        "Compare models and pairs of them by cross-validation, and print how to predict with the best.",
        flags.DATASET_POSITION,
        flags.SEVERAL_PLANS,
        flags.COMPARED_CONFIGURATIONS,
        flags.TRAINERS,
        flags.PROCESSES,
        flags.CROSSVALIDATION_FOLDS,
        flags.NO_ENSEMBLING,
        flags.NO_OVERWRITE,
        flags.COMPUTE_MISSING,
        flags.DEVICE,
    )
    args = parser.parse_args(argv)
    from nnunet_lite.model_selection.find_best_configuration import find_best_configuration
    from nnunet_lite.model_selection.inference_instructions import inference_instructions

    models = [
        {"plans": plans, "configuration": configuration, "trainer": trainer}
        for trainer in args.tr
        for configuration in args.c
        for plans in args.p
    ]

    def validate(candidate: Candidate, fold: int | str, probabilities: bool) -> None:
        _validate(candidate, fold, probabilities, args.device)

    information = find_best_configuration(
        args.dataset_name_or_id,
        models,
        not args.disable_ensembling,
        args.np,
        not args.no_overwrite,
        args.f,
        make_missing=validate if args.compute_missing else None,
    )
    for name, score in information["all_results"].items():
        print(f"{score:.4f}  {name}")
    best = information["best_model_or_ensemble"]
    before, after = best["result_on_crossval_pre_pp"], best["result_on_crossval_post_pp"]
    print(f"\nMean foreground Dice of the best: {before:.4f}, after postprocessing {after:.4f}\n")
    print(inference_instructions(information), end="")


def _validate(candidate: Candidate, fold: int | str, probabilities: bool, device: str) -> None:
    """Make the validation of a trained fold; one that is not trained is left to the message at the end."""
    if not (candidate.folder / f"fold_{fold}" / "checkpoint_final.pth").is_file():
        return
    from nnunet_lite.training.overrides import trainer_and_overrides
    from nnunet_lite.training.run_training import run_training
    from nnunet_lite.utilities.device import resolve_device

    trainer, overrides = trainer_and_overrides(candidate.trainer)
    print(f"Validating {candidate.identifier}, fold {fold}")
    run_training(
        candidate.folder.parent.name,
        candidate.configuration,
        fold,
        trainer,
        candidate.plans,
        export_validation_probabilities=probabilities,
        only_run_validation=True,
        device=resolve_device(device),
        **overrides._asdict(),
    )
