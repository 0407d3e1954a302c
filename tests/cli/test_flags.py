"""The command line is frozen: nnU-Net v2's flags in one table (spec 01, 8; 02, 10.1; 03, 9), our own in a second.

A row of the first table: spelling, how often it takes a value, an example, what the example must become, the default.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from typing import Any

import pytest

REQUIRED = "required"
FLAG = 0

_INTS, _STRINGS = (["4", "5"], [4, 5]), (["a", "b"], ["a", "b"])
_INT, _STRING, _FLOAT = (["7"], 7), (["word"], "word"), (["0.25"], 0.25)

DATASETS = ("-d", "+", *_INTS, REQUIRED)
NP = ("-np", None, *_INT, 8)
TARGET_SPACING = ("-overwrite_target_spacing", "+", ["3", "1", "1"], ["3", "1", "1"], None)
CONFIGURATIONS = ("-c", "+", *_STRINGS, ["2d", "3d_fullres", "3d_lowres"])

_PLANNING = [
    ("-pl", None, *_STRING, "ExperimentPlanner"),
    ("-gpu_memory_target", None, *_FLOAT, None),
    ("-preprocessor_name", None, *_STRING, "DefaultPreprocessor"),
    TARGET_SPACING,
    ("-overwrite_plans_name", None, *_STRING, None),
]
_PREDICTION = [
    ("-i", None, *_STRING, REQUIRED),
    ("-o", None, *_STRING, REQUIRED),
    ("-f", "+", ["0", "all"], ["0", "all"], [0, 1, 2, 3, 4]),
    ("-step_size", None, *_FLOAT, 0.5),
    ("--disable_tta", FLAG),
    ("--verbose", FLAG),
    ("--save_probabilities", FLAG),
    ("--continue_prediction", FLAG),
    ("-chk", None, *_STRING, "checkpoint_final.pth"),
    ("-npp", None, *_INT, 3),
    ("-nps", None, *_INT, 3),
    ("-prev_stage_predictions", None, *_STRING, None),
    ("-device", None, ["cpu"], "cpu", "cuda"),
    ("--disable_progress_bar", FLAG),
    ("--not_on_device", FLAG),
]
_EVALUATION = [
    ("gt_folder", None, *_STRING, REQUIRED),
    ("pred_folder", None, *_STRING, REQUIRED),
    ("-o", None, *_STRING, None),
    NP,
    ("--chill", FLAG),
]

_PRETRAINED = [
    ("-n", None, *_STRING, REQUIRED),
    ("--pretraining_name", None, *_STRING, REQUIRED),
    ("-pc", None, *_STRING, REQUIRED),
    ("--pretrained_checkpoint", None, *_STRING, REQUIRED),
    ("-np", None, *_INT, 4),
    ("--verbose", FLAG),
    ("--overwrite_pp", FLAG),
]

UPSTREAM: dict[str, list[tuple[Any, ...]]] = {
    "planning:extract_fingerprint_entry": [
        DATASETS,
        ("-fpe", None, *_STRING, "DatasetFingerprintExtractor"),
        NP,
        ("--verify_dataset_integrity", FLAG),
        ("--clean", FLAG),
        ("--verbose", FLAG),
        ("--no_pbar", FLAG),
    ],
    "planning:plan_experiment_entry": [DATASETS, *_PLANNING],
    "planning:preprocess_entry": [
        DATASETS,
        ("-plans_name", None, *_STRING, "nnUNetPlans"),
        CONFIGURATIONS,
        ("-np", "+", *_INTS, None),
        ("--verbose", FLAG),
        ("--no_pbar", FLAG),
    ],
    "planning:plan_and_preprocess_entry": [
        DATASETS,
        ("-fpe", None, *_STRING, "DatasetFingerprintExtractor"),
        ("-npfp", None, *_INT, 8),
        ("--verify_dataset_integrity", FLAG),
        ("--no_pp", FLAG),
        ("--clean", FLAG),
        *_PLANNING,
        CONFIGURATIONS,
        ("-np", "+", *_INTS, None),
        ("--verbose", FLAG),
        ("--no_pbar", FLAG),
    ],
    "planning:move_plans_between_datasets_entry": [
        ("-s", None, ["4"], 4, REQUIRED),
        ("-t", None, ["Dataset005_A"], "Dataset005_A", REQUIRED),
        ("-sp", None, *_STRING, REQUIRED),
        ("-tp", None, *_STRING, None),
    ],
    "planning:preprocess_like_nnssl_entry": [
        ("-d", None, ["4"], 4, REQUIRED),
        *_PRETRAINED,
        ("-am", None, ["fixed"], "fixed", "default_nnunet"),
        ("--adaptation_mode", None, ["no_resample"], "no_resample", "default_nnunet"),
        ("-os", "+", ["3", "1", "1"], [3.0, 1.0, 1.0], None),
        ("--override_spacing", "+", ["3", "1", "1"], [3.0, 1.0, 1.0], None),
    ],
    "planning:plan_like_dynamic_entry": [
        ("-d", None, ["4"], 4, REQUIRED),
        *_PRETRAINED,
        ("-pl", None, *_STRING, "nnUNetPlans"),
        ("--plans_identifier", None, *_STRING, "nnUNetPlans"),
    ],
    "training:train_entry": [
        ("dataset_name_or_id", None, *_STRING, REQUIRED),
        ("configuration", None, *_STRING, REQUIRED),
        ("fold", None, ["all"], "all", REQUIRED),
        ("-tr", None, *_STRING, "nnUNetTrainer"),
        ("-p", None, *_STRING, "nnUNetPlans"),
        ("-pretrained_weights", None, *_STRING, None),
        ("-num_gpus", None, *_INT, 1),
        ("--npz", FLAG),
        ("--c", FLAG),
        ("--val", FLAG),
        ("--val_best", FLAG),
        ("--disable_checkpointing", FLAG),
        ("-device", None, ["cpu"], "cpu", "cuda"),
    ],
    "pretrained_training:train_pretrained_entry": [
        ("dataset_name_or_id", None, *_STRING, REQUIRED),
        ("configuration", None, *_STRING, REQUIRED),
        ("fold", None, ["all"], "all", REQUIRED),
        ("-tr", None, *_STRING, "PretrainedTrainer"),
        ("-p", None, *_STRING, REQUIRED),
        ("--from_scratch", FLAG),
        ("-num_gpus", None, *_INT, 1),
        ("--npz", FLAG),
        ("--c", FLAG),
        ("--val", FLAG),
        ("--val_best", FLAG),
        ("--disable_checkpointing", FLAG),
        ("-device", None, ["cpu"], "cpu", "cuda"),
        ("-overwrite_ckpt_path", None, *_STRING, None),
    ],
    "inference:predict_entry": [
        *_PREDICTION,
        ("-d", None, ["4"], 4, REQUIRED),
        ("-p", None, *_STRING, "nnUNetPlans"),
        ("-tr", None, *_STRING, "nnUNetTrainer"),
        ("-c", None, *_STRING, REQUIRED),
        ("-num_parts", None, *_INT, 1),
        ("-part_id", None, *_INT, 0),
    ],
    "inference:predict_from_modelfolder_entry": [*_PREDICTION, ("-m", None, *_STRING, REQUIRED)],
    "evaluation:evaluate_folder_entry": [
        *_EVALUATION,
        ("-djfile", None, *_STRING, REQUIRED),
        ("-pfile", None, *_STRING, REQUIRED),
    ],
    "evaluation:evaluate_simple_entry": [
        *_EVALUATION,
        ("-l", "+", *_INTS, REQUIRED),
        ("-il", None, *_INT, None),
    ],
    "model_selection:accumulate_crossval_results_entry": [
        ("dataset_name_or_id", None, ["4"], 4, REQUIRED),
        ("-c", None, *_STRING, REQUIRED),
        ("-o", None, *_STRING, None),
        ("-f", "+", *_INTS, [0, 1, 2, 3, 4]),
        ("-p", None, *_STRING, "nnUNetPlans"),
        ("-tr", None, *_STRING, "nnUNetTrainer"),
    ],
    "model_selection:find_best_configuration_entry": [
        ("dataset_name_or_id", None, ["4"], 4, REQUIRED),
        ("-p", "+", *_STRINGS, ["nnUNetPlans"]),
        ("-c", "+", *_STRINGS, ["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"]),
        ("-tr", "+", *_STRINGS, ["nnUNetTrainer"]),
        NP,
        ("-f", "+", *_INTS, [0, 1, 2, 3, 4]),
        ("--disable_ensembling", FLAG),
        ("--no_overwrite", FLAG),
    ],
    "postprocessing:determine_postprocessing_entry": [
        ("-i", None, *_STRING, REQUIRED),
        ("-ref", None, *_STRING, REQUIRED),
        ("-plans_json", None, *_STRING, None),
        ("-dataset_json", None, *_STRING, None),
        NP,
        ("--remove_postprocessed", FLAG),
    ],
    "postprocessing:apply_postprocessing_entry": [
        ("-i", None, *_STRING, REQUIRED),
        ("-o", None, *_STRING, REQUIRED),
        ("-pp_pkl_file", None, *_STRING, REQUIRED),
        NP,
        ("-plans_json", None, *_STRING, None),
        ("-dataset_json", None, *_STRING, None),
    ],
    "postprocessing:ensemble_entry": [
        ("-i", "+", *_STRINGS, REQUIRED),
        ("-o", None, *_STRING, REQUIRED),
        NP,
        ("--save_npz", FLAG),
    ],
    "model_sharing:export_model_to_zip_entry": [
        ("-d", None, ["4"], 4, REQUIRED),
        ("-o", None, *_STRING, REQUIRED),
        ("-c", "+", *_STRINGS, ["3d_lowres", "3d_fullres", "2d", "3d_cascade_fullres"]),
        ("-tr", None, *_STRING, "nnUNetTrainer"),
        ("-p", None, *_STRING, "nnUNetPlans"),
        ("-f", "+", ["0", "all"], [0, "all"], [0, 1, 2, 3, 4]),
        ("-chk", "+", *_STRINGS, ["checkpoint_final.pth"]),
        ("--not_strict", FLAG),
        ("--exp_cv_preds", FLAG),
    ],
    "model_sharing:install_model_from_zip_entry": [("zip", None, *_STRING, REQUIRED)],
    "model_sharing:download_model_by_url_entry": [("url", None, *_STRING, REQUIRED)],
    "conversion:convert_msd_dataset_entry": [
        ("-i", None, *_STRING, REQUIRED),
        ("-overwrite_id", None, *_INT, None),
        NP,
    ],
    "conversion:convert_old_dataset_entry": [
        ("input_folder", None, *_STRING, REQUIRED),
        ("output_dataset_name", None, *_STRING, REQUIRED),
    ],
    "overlays:plot_overlay_pngs_entry": [
        ("-d", None, ["4"], 4, REQUIRED),
        ("-o", None, *_STRING, REQUIRED),
        NP,
        ("-channel_idx", None, *_INT, 0),
        ("--use_raw", FLAG),
        ("-p", None, *_STRING, "nnUNetPlans"),
        ("-c", None, *_STRING, None),
        ("-overlay_intensity", None, *_FLOAT, 0.6),
    ],
}

PARTS = {"-num_parts", "-part_id"}  # spelled as upstream spells them for prediction
_TRAINING = {
    "--epochs",
    "--iterations",
    "--lr",
    "--batch-size",
    "--seed",
    "--deterministic",
    "--precision",
    "--overwrite",
}
OURS: dict[str, set[str]] = {  # long flags whose defaults change nothing
    "planning:extract_fingerprint_entry": {"--max-ram", *PARTS},
    "planning:plan_experiment_entry": {"--dry-run"},
    "planning:preprocess_entry": {"--max-ram", *PARTS},
    "planning:plan_and_preprocess_entry": {"--max-ram", *PARTS},
    "planning:move_plans_between_datasets_entry": {"--overwrite"},
    "planning:preprocess_like_nnssl_entry": set(),
    "planning:plan_like_dynamic_entry": set(),
    "training:train_entry": {*_TRAINING, "--previous-stage-trainer"},
    "pretrained_training:train_pretrained_entry": _TRAINING,
    "inference:predict_entry": {"--precision", "--max-ram"},
    "inference:predict_from_modelfolder_entry": {"--c", "--precision", "--max-ram", *PARTS},
    "evaluation:evaluate_folder_entry": {"--metrics", "--nsd_tolerance", "--csv"},
    "evaluation:evaluate_simple_entry": {"--metrics", "--nsd_tolerance", "--csv"},
    "model_selection:accumulate_crossval_results_entry": set(),
    "model_selection:find_best_configuration_entry": {"--compute_missing", "-device"},
    "postprocessing:determine_postprocessing_entry": {"--plans_json", "--dataset_json"},
    "postprocessing:apply_postprocessing_entry": {"--pp_pkl_file", "--plans_json", "--dataset_json"},
    "postprocessing:ensemble_entry": set(),
    "model_sharing:export_model_to_zip_entry": {"--inference_only"},
    "model_sharing:install_model_from_zip_entry": {"--overwrite"},
    "model_sharing:download_model_by_url_entry": {"--sha256", "--overwrite"},
    "conversion:convert_msd_dataset_entry": {"--max-ram"},
    "conversion:convert_old_dataset_entry": set(),
    "overlays:plot_overlay_pngs_entry": {"--contours", "--legend", "--overwrite", "--max-ram"},
}
NEUTRAL = (None, False, "auto")
ROWS = [
    pytest.param(command, row, id=f"{command.split(':')[1]} {row[0]}")
    for command, rows in UPSTREAM.items()
    for row in rows
]


class _Caught(Exception):
    """Carries a command's parser out of the command."""


@pytest.fixture
def parser_of(monkeypatch):
    """The parser that a command builds; nothing of the command runs."""
    for variable in ("nnUNet_def_n_proc", "nnUNet_npp", "nnUNet_nps"):
        monkeypatch.delenv(variable, raising=False)

    def build(command: str) -> argparse.ArgumentParser:
        module, name = command.split(":")
        entry = getattr(importlib.import_module(f"nnunet_lite.cli.{module}"), name)
        with monkeypatch.context() as patch:

            def catch(self, *_):
                raise _Caught(self)

            patch.setattr(argparse.ArgumentParser, "parse_args", catch)
            with pytest.raises(_Caught) as caught:
                entry([])
        return caught.value.args[0]

    return build


def _action(parser: argparse.ArgumentParser, flag: str) -> argparse.Action:
    return next(action for action in parser._actions if flag in (action.option_strings or [action.dest]))


def _words(value: Any) -> Any:
    """Values as text, so that 4 and "4" (a dataset id, a fold) count as the same."""
    if isinstance(value, (list, tuple)):
        return [str(entry) for entry in value]
    return None if value is None else str(value)


@pytest.mark.parametrize(("command", "row"), ROWS)
def test_upstreams_flags_types_and_defaults(command, row, parser_of):
    parser = parser_of(command)
    flag, nargs, *rest = row
    action = _action(parser, flag)
    if nargs == FLAG:
        assert (action.nargs, action.const, action.default, action.required) == (0, True, False, False)
        return
    words, expected, default = rest
    assert action.nargs == nargs
    assert action.required == (default == REQUIRED)
    parsed = [parser._get_value(action, word) for word in words]
    assert _words(parsed if nargs else parsed[0]) == _words(expected)
    if default != REQUIRED:
        assert _words(action.default) == _words(default)
    if isinstance(expected, (int, float)):
        assert isinstance(parsed[0], (int, float))


@pytest.mark.parametrize("command", UPSTREAM)
def test_nothing_but_the_tables(command, parser_of):
    found = {name for action in parser_of(command)._actions for name in action.option_strings or [action.dest]}
    assert found - {"-h", "--help"} == {row[0] for row in UPSTREAM[command]} | OURS[command]


@pytest.mark.parametrize("command", OURS)
def test_our_own_flags_are_long_and_change_nothing_unless_given(command, parser_of):
    parser = parser_of(command)
    elsewhere = {row[0]: row[-1] for rows in UPSTREAM.values() for row in rows if not row[0].startswith("--")}
    for flag in OURS[command]:
        if flag in elsewhere:  # upstream has it on another command: the same spelling and default
            assert _action(parser, flag).default == elsewhere[flag]
            continue
        assert flag.startswith("--")
        action = _action(parser, flag)
        is_other_spelling = set(action.option_strings) & {row[0] for row in UPSTREAM[command]}
        assert action.default in NEUTRAL and (is_other_spelling or not action.required)


@pytest.mark.parametrize("command", [name for name in UPSTREAM if name.startswith("inference")])
def test_unambiguous_prefixes_are_accepted(command, parser_of):
    action = _action(parser_of(command), "--continue_prediction")
    assert action.dest == "continue_prediction"
    matched = parser_of(command)._parse_optional("--c")
    assert "continue_prediction" in str(matched)


@pytest.mark.parametrize(
    "command",
    [*UPSTREAM, "demo:demo_entry", "status:status_entry", "reporting:report_entry", "planning:check_dataset_entry"],
)
def test_help_needs_nothing_heavy(command):
    module, name = command.split(":")
    code = (
        f"import sys\nfrom nnunet_lite.cli.{module} import {name}\n"
        f"try:\n    {name}(['-h'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print('heavy:', *sorted({'numpy', 'torch', 'SimpleITK', 'scipy', 'nibabel'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "heavy:"


def test_every_script_of_the_project_is_in_the_tables():
    from importlib.metadata import entry_points

    ours = {
        point.value.removeprefix("nnunet_lite.cli.")
        for point in entry_points(group="console_scripts")
        if point.value.startswith("nnunet_lite.")
    }
    assert ours == {
        *UPSTREAM,
        "demo:demo_entry",
        "status:status_entry",
        "reporting:report_entry",
        "planning:check_dataset_entry",
    }
