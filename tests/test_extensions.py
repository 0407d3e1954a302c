"""The one class finder: built in, user's folders, useful misses."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest

from nnunet_lite.exceptions import ExtensionError
from nnunet_lite.extensions import find_class, known_names
from nnunet_lite.utilities.parallel import Task, collect, run_tasks


def test_a_users_class_is_found_and_only_its_file_is_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import a_module_that_is_not_there\nclass Other: ...\n")
    (tmp_path / "mine_for_test.py").write_text("class MyNormalization:\n    value = 5\n")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    found = find_class("normalization", "MyNormalization")
    assert found.value == 5
    assert find_class("normalization", "MyNormalization") is found
    assert pickle.loads(pickle.dumps(found)) is found
    assert "broken" not in sys.modules
    with pytest.raises(ExtensionError, match=r"broken.py cannot be imported: ModuleNotFoundError"):
        find_class("normalization", "Other")


def test_workers_can_import_a_file_in_a_sub_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "down" / "deep_for_test.py"
    file.parent.mkdir(parents=True)
    file.write_text("def run_deep():\n    return 7\nclass DeepTrainer:\n    run = staticmethod(run_deep)\n")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    task = Task("deep", find_class("trainer", "DeepTrainer").run)
    assert collect(run_tasks([task], 1, show_progress=False)) == {"deep": 7}


def test_a_file_named_like_another_module_is_not_mistaken_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("random", "wsgiref", "torch"):  # loaded; importable; a package
        (tmp_path / f"{name}.py").write_text(f"class Trainer_{name}:\n    value = {name!r}\n")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    for name in ("random", "wsgiref", "torch"):
        found = find_class("trainer", f"Trainer_{name}")
        assert found.value == name
        assert find_class("trainer", f"Trainer_{name}") is found
        assert not hasattr(sys.modules.get(name), f"Trainer_{name}")


def test_a_class_in_a_package_may_import_its_neighbours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "my_package_for_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text("VALUE = 7\n")
    (package / "trainers.py").write_text("from .base import VALUE\nclass PackagedTrainer:\n    value = VALUE\n")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    assert find_class("trainer", "PackagedTrainer").value == 7


def test_a_mention_is_not_a_definition(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "uses.py").write_text("from somewhere import Imported\n# class Imported\n")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    with pytest.raises(ExtensionError, match="no trainer called 'Imported'"):
        find_class("trainer", "Imported")


def test_a_miss_lists_where_it_looked_and_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    with pytest.raises(ExtensionError) as error:
        find_class("normalization", "ZScoreNormalisation")
    assert str(tmp_path) in str(error.value)
    assert "there are: ZScoreNormalization" in str(error.value)
    assert "\n" not in str(error.value)


def test_of_many_names_the_closest_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "nowhere"))
    with pytest.raises(ExtensionError) as error:
        find_class("trainer", "nnUNetTrainr_5epochs")
    text = str(error.value)
    assert "the closest are: nnUNetTrainer_5epochs, " in text
    assert text.count("nnUNetTrainer_") == 5
    assert f"(nnUNet_extTrainer: {tmp_path / 'nowhere'} does not exist)" in text


def test_what_of_the_users_folders_cannot_be_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("class MyNormalization: ...\n")
    monkeypatch.setenv("nnUNet_extTrainer", f"{tmp_path / 'nope'}{os.pathsep}{tmp_path}{os.pathsep}{file}")
    with pytest.raises(ExtensionError) as error:
        find_class("normalization", "YourNormalization")
    assert str(error.value).endswith(
        f", {tmp_path} (nnUNet_extTrainer: {tmp_path / 'nope'} does not exist; {file} is a file: name its folder)"
    )
    monkeypatch.delenv("nnUNet_extTrainer")
    with pytest.raises(ExtensionError, match=r"\(no folder of your own: nnUNet_extTrainer is not set\)"):
        find_class("normalization", "YourNormalization")


def test_listed_names_are_of_the_kind() -> None:
    assert "SimpleITKIO" in known_names("reader_writer")
    assert all("Normalization" in name for name in known_names("normalization"))


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        ("nnunetv2.training.x", "replace nnunetv2 by nnunet_lite in its imports"),
        ("batchgeneratorsv2.transforms", "install it: pip install batchgeneratorsv2"),
    ],
)
def test_imports_of_a_trainer_for_upstream(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, advice: str
) -> None:
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)  # as if it were not installed
    (tmp_path / "ported_for_test.py").write_text(f"import {module}\nclass PortedTrainer: ...\n")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    with pytest.raises(ExtensionError, match=r"ported_for_test\.py cannot be imported: ModuleNotFoundError") as error:
        find_class("trainer", "PortedTrainer")
    assert str(error.value).endswith(f"; {advice}")
