"""What a prediction does without is not imported: it starts sooner."""

from __future__ import annotations

import subprocess
import sys

import pytest

UNUSED = ("blosc2", "matplotlib", "pandas", "skimage", "torch._dynamo", "timm", "torchvision")


@pytest.mark.parametrize(
    ("modules", "unused"),
    [
        (["nnunet_lite.inference.predict_from_raw_data", "nnunet_lite.preprocessing.default_preprocessor"], UNUSED),
        (
            ["nnunet_lite.inference.data_iterators", "nnunet_lite.preprocessing.default_preprocessor"],
            (*UNUSED, "torch", "SimpleITK"),
        ),
        (["nnunet_lite.cli.inference"], (*UNUSED, "torch", "SimpleITK", "numpy")),
    ],
    ids=["predictor", "preprocessing worker", "command -h"],
)
def test_what_is_not_imported(modules: list[str], unused: tuple[str, ...]) -> None:
    code = f"import sys, {', '.join(modules)}; print(*[name for name in {unused!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
