"""benchmarks/large_slide.py at a small size: in bands and as a whole, from a file of each kind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "large_slide.py"


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        (".png", []),
        pytest.param(".tif", ["--spacing", "1.3"], marks=pytest.mark.slow),
        pytest.param(".nii.gz", ["--spacing", "0.8", "--workers", "1"], marks=pytest.mark.slow),
    ],
)
def test_a_small_slide(ending: str, options: list[str], tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    small = ["--size", "150", "--patch", "32", "--features", "2", "--classes", "3", "--ending", ending]
    both = [] if ending == ".png" else ["--whole-sums-too"]
    command = [sys.executable, str(SCRIPT), *small, *options, *both, "--work", str(tmp_path / "work")]
    run = subprocess.run(
        [*command, "--json", str(output)], capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(output.read_text())["results"]
    assert [row["bands"] for row in results] == ([True] if ending == ".png" else [True, False])
    assert all(row["labels"] in (2, 3) and row["seconds"] > 0 for row in results)
    assert len({row["checksum"] for row in results}) == 1
    if ending == ".png":
        assert set(results[0]["phases"]) >= {"read", "read and preprocess", "network", "reduce", "write", "whole"}
    assert (tmp_path / "work" / "predicted" / f"slide{ending}").is_file()
