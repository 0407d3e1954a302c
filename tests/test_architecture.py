"""Imports go down only: from lower floors or the own package, never sideways, never up, not even inside functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nnunet_lite

PACKAGE = Path(nnunet_lite.__file__).parent
FLOORS = (  # lowest first; entries of one line may not import one another
    ("version",),
    ("exceptions", "control_groups"),
    ("configuration", "paths"),
    ("utilities", "compat"),
    ("extensions",),
    ("plans", "imageio"),
    ("preprocessing", "models"),
    ("experiment_planning", "inference", "evaluation"),
    ("training", "postprocessing", "ensembling"),
    ("model_selection", "model_sharing", "dataset_conversion"),
    ("demo", "reporting"),
    ("cli",),
    ("",),  # the package itself hands out names from everywhere
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def _imports(file: Path) -> list[str]:
    """Every module of the package that a file imports, wherever the import stands."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.split(".")[0] == "nnunet_lite"]


def _part(dotted: str) -> str:
    return next(iter(dotted.split(".")[1:]), "")


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down_only(file):
    relative = file.relative_to(PACKAGE).with_suffix("")
    here = "" if relative.parts == ("__init__",) else relative.parts[0]
    for imported in _imports(file):
        there = _part(imported)
        assert there == here or FLOOR_OF.get(there, len(FLOORS)) < FLOOR_OF[here], f"{relative} imports {imported}"


LONGEST_FILE, LONGEST_FUNCTION = 450, 60  # lines; of a function without its docstring


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(file):
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node, clean=False)
            lines = node.end_lineno - node.lineno + 1 - (0 if docstring is None else docstring.count("\n") + 1)
            assert lines <= LONGEST_FUNCTION, f"{node.name}: {lines} lines"


LIGHT = {  # module: what importing it must not bring in
    "nnunet_lite": ("numpy", "torch", "SimpleITK"),
    "nnunet_lite.cli.arguments": ("numpy", "torch", "SimpleITK"),
    "nnunet_lite.plans.plans_manager": ("torch", "SimpleITK", "nibabel", "skimage", "matplotlib"),
    "nnunet_lite.plans.raw_dataset": ("torch", "SimpleITK", "nibabel", "skimage", "matplotlib"),
    "nnunet_lite.models.model_names": ("torch", "SimpleITK", "nibabel", "skimage", "matplotlib"),
    "nnunet_lite.model_selection.find_best_configuration": ("torch", "skimage", "matplotlib"),
    "nnunet_lite.imageio.reader_writer_registry": ("torch", "SimpleITK", "nibabel", "skimage", "matplotlib"),
    "nnunet_lite.imageio.simpleitk_reader_writer": ("torch", "nibabel", "skimage"),
    "nnunet_lite.experiment_planning.fingerprint_extractor": ("torch", "skimage", "matplotlib"),
    "nnunet_lite.experiment_planning.plan_and_preprocess_api": ("torch", "skimage", "matplotlib"),
    "nnunet_lite.evaluation.metrics": ("torch", "SimpleITK", "skimage", "matplotlib"),
    "nnunet_lite.evaluation.evaluate_predictions": ("torch", "skimage", "matplotlib"),
    "nnunet_lite.inference.sliding_window_prediction": ("SimpleITK",),
    "nnunet_lite.training.loss": ("SimpleITK",),
    "nnunet_lite.training.run_training": ("SimpleITK", "nibabel", "skimage", "matplotlib", "torch._dynamo"),
    **{f"nnunet_lite.cli.{file.stem}": ("numpy", "torch", "SimpleITK") for file in (PACKAGE / "cli").glob("[a-z]*.py")},
}


@pytest.mark.parametrize("module", LIGHT)
def test_start_up_stays_light(module):
    code = f"import sys, {module}; print(*sorted(set({LIGHT[module]!r}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == ""
