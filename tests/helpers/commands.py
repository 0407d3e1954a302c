"""Run commands as their users do, through the entry functions or as a process, and look at what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

ENTRIES = {
    "nnUNetv2_extract_fingerprint": "planning:extract_fingerprint_entry",
    "nnUNetv2_check_dataset": "planning:check_dataset_entry",
    "nnUNetv2_plan_experiment": "planning:plan_experiment_entry",
    "nnUNetv2_preprocess": "planning:preprocess_entry",
    "nnUNetv2_plan_and_preprocess": "planning:plan_and_preprocess_entry",
    "nnUNetv2_move_plans_between_datasets": "planning:move_plans_between_datasets_entry",
    "nnUNetv2_preprocess_like_nnssl": "planning:preprocess_like_nnssl_entry",
    "nnUNetv2_plan_like_dynamic": "planning:plan_like_dynamic_entry",
    "nnUNetv2_train": "training:train_entry",
    "nnUNetv2_train_pretrained": "pretrained_training:train_pretrained_entry",
    "nnUNetv2_predict": "inference:predict_entry",
    "nnUNetv2_predict_from_modelfolder": "inference:predict_from_modelfolder_entry",
    "nnUNetv2_evaluate_folder": "evaluation:evaluate_folder_entry",
    "nnUNetv2_evaluate_simple": "evaluation:evaluate_simple_entry",
    "nnUNetv2_accumulate_crossval_results": "model_selection:accumulate_crossval_results_entry",
    "nnUNetv2_find_best_configuration": "model_selection:find_best_configuration_entry",
    "nnUNetv2_determine_postprocessing": "postprocessing:determine_postprocessing_entry",
    "nnUNetv2_apply_postprocessing": "postprocessing:apply_postprocessing_entry",
    "nnUNetv2_ensemble": "postprocessing:ensemble_entry",
    "nnUNetv2_export_model_to_zip": "model_sharing:export_model_to_zip_entry",
    "nnUNetv2_install_pretrained_model_from_zip": "model_sharing:install_model_from_zip_entry",
    "nnUNetv2_download_pretrained_model_by_url": "model_sharing:download_model_by_url_entry",
    "nnUNetv2_status": "status:status_entry",
    "nnUNetv2_report": "reporting:report_entry",
    "nnUNetv2_convert_MSD_dataset": "conversion:convert_msd_dataset_entry",
    "nnUNetv2_convert_old_nnUNet_dataset": "conversion:convert_old_dataset_entry",
    "nnUNetv2_plot_overlay_pngs": "overlays:plot_overlay_pngs_entry",
}


def entry_of(command: str) -> Callable[[list[str]], int]:
    """The function behind a console command."""
    module, function = ENTRIES[command].split(":")
    return getattr(import_module(f"nnunet_lite.cli.{module}"), function)


def run(command: str, *arguments: object) -> int:
    """Run a command in this process and return its exit code."""
    try:
        return entry_of(command)([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def succeed(command: str, *arguments: object) -> None:
    """Run a command that must work."""
    assert run(command, *arguments) == 0


def complaint(capfd: pytest.CaptureFixture[str], command: str, *arguments: object) -> str:
    """Run a command that must refuse: exit code 2 and exactly one line on stderr, which is returned."""
    capfd.readouterr()
    code = run(command, *arguments)
    error = capfd.readouterr().err
    lines = [line for line in error.splitlines() if line.strip()]
    assert (code, len(lines)) == (2, 1), f"exit code {code}, on stderr:\n{error}"
    assert "Traceback" not in error
    return lines[0]


def start(command: str, *arguments: object, new_session: bool = False) -> subprocess.Popen[str]:
    """Start a command as a process (or with its children a session) of its own, output to a pipe."""
    module, function = ENTRIES[command].split(":")
    code = f"import sys; from nnunet_lite.cli.{module} import {function}; sys.exit({function}(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=dict(os.environ),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=new_session,
    )


def files_below(*folders: Path) -> dict[str, int]:
    """Every file below the folders and its size."""
    return {
        str(path): path.stat().st_size for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()
    }


def half_written(folder: Path) -> list[str]:
    """Temporary files, empty files and preprocessed cases of which a part is missing."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    left = [path.name for path in files if ".tmp" in path.name or path.stat().st_size == 0]
    for data in (path for path in files if path.suffix == ".b2nd" and not path.name.endswith("_seg.b2nd")):
        parts = [data.with_name(f"{data.stem}_seg.b2nd"), data.with_suffix(".pkl")]
        left += [f"{data.name} without {part.name}" for part in parts if not part.exists()]
    return left
