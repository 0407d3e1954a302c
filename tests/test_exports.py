"""The public names of the package: all resolve, and none costs anything before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nnunet_lite


@pytest.mark.parametrize("name", nnunet_lite.__all__)
def test_every_exported_name_resolves(name):
    value = getattr(nnunet_lite, name)
    assert value is not None
    assert getattr(value, "__name__", name) == name


def test_exported_names_are_listed_and_nothing_else():
    assert dir(nnunet_lite) == sorted(nnunet_lite.__all__)
    assert len(set(nnunet_lite.__all__)) == len(nnunet_lite.__all__)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="nnUNetPredicter"):
        _ = nnunet_lite.nnUNetPredicter


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, nnunet_lite; print(*{'torch', 'numpy', 'SimpleITK', 'scipy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
