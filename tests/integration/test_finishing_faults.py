"""Ensembling, postprocessing, choosing and sharing, stopped at any step or by a full disk: nothing is half-written.

A step is a call that changes the file system. A child process runs the command and is killed, or gets Ctrl-C, at one of
them; then the same command is run again and must leave what an undisturbed one leaves.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Folders
from helpers.crossvalidations import NAME, documents, make_model, make_references

from nnunet_lite.ensembling.ensemble import ensemble_folders
from nnunet_lite.exceptions import StorageError
from nnunet_lite.model_selection.find_best_configuration import find_best_configuration
from nnunet_lite.model_sharing.model_download import download_and_install_from_url
from nnunet_lite.model_sharing.model_export import export_pretrained_model
from nnunet_lite.model_sharing.model_import import install_model_from_zip_file
from nnunet_lite.models.checkpoint import save_checkpoint
from nnunet_lite.postprocessing.remove_connected_components import (
    apply_postprocessing_to_folder,
    determine_postprocessing,
    remove_all_but_largest_component_from_segmentation,
)

STEPS = ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir")  # of the module os
CHOSEN = 4  # steps that are tried of each command
MODELS = [{"plans": "nnUNetPlans", "configuration": name, "trainer": "nnUNetTrainer"} for name in ("2d", "3d_fullres")]
Command = Callable[[Path], object]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def ensemble(place: Path) -> None:
    folders = [place / "results" / NAME / f"nnUNetTrainer__nnUNetPlans__{m['configuration']}" for m in MODELS]
    content = documents()
    validation = [folder / "fold_0" / "validation" for folder in folders]
    ensemble_folders(validation, place / "out", True, 0, content["dataset.json"], content["plans.json"])


def determine(place: Path) -> None:
    content = documents()
    folder = place / "results" / NAME / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0" / "validation"
    determine_postprocessing(
        folder, place / "raw" / NAME / "labelsTr", content["plans.json"], content["dataset.json"], 0
    )


def apply(place: Path) -> None:
    content = documents()
    folder = place / "results" / NAME / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0" / "validation"
    functions = [remove_all_but_largest_component_from_segmentation]
    steps = [{"labels_or_regions": [1, 2]}]
    apply_postprocessing_to_folder(
        folder, place / "out", functions, steps, content["plans.json"], content["dataset.json"], 0
    )


def choose(place: Path) -> None:
    find_best_configuration(NAME, MODELS, num_processes=0, folds=(0, 1))


def export(place: Path) -> None:
    export_pretrained_model(
        NAME, place / "out.zip", ["2d", "3d_fullres"], folds=(0,), strict=False, inference_only=True
    )


def install(place: Path) -> None:
    _elsewhere(place, lambda: install_model_from_zip_file(place / "given.zip"))


def download(place: Path) -> None:
    _elsewhere(place, lambda: download_and_install_from_url((place / "given.zip").as_uri()))


def _elsewhere(place: Path, run: Callable[[], object]) -> None:
    before = os.environ["nnUNet_results"]
    os.environ["nnUNet_results"] = str(place / "elsewhere")
    try:
        run()
    finally:
        os.environ["nnUNet_results"] = before


COMMANDS: dict[str, Command] = {
    function.__name__: function for function in (ensemble, determine, apply, choose, export, install, download)
}


@pytest.fixture
def scene(nnunet_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Two cross-validated models and a zip of them; a call makes everything anew in the same place."""
    made, place = tmp_path / "made", tmp_path / "place"
    content = documents()
    make_references(made / "raw", made / "preprocessed", content)
    references = made / "raw" / NAME / "labelsTr"
    for seed, model in enumerate(MODELS):
        folder = make_model(made / "results", references, model["configuration"], 40, content, seed=seed)
        for fold in (0, 1):
            weights = {"network_weights": {}, "trainer_name": "nnUNetTrainer", "init_args": {}, "optimizer_state": {}}
            save_checkpoint(weights, folder / f"fold_{fold}" / "checkpoint_final.pth")
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(made / name))
    export_pretrained_model(NAME, made / "given.zip", ["2d", "3d_fullres"], folds=(0, 1), strict=False)
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(place / name))

    def anew() -> Path:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(made, place)
        return place

    return anew


def visible(place: Path) -> dict[str, bytes]:
    """Content of every file that is not hidden and in no hidden folder."""
    files = ((file.relative_to(place), file) for file in sorted(place.rglob("*")) if file.is_file())
    return {str(name): content(file) for name, file in files if not any(part[0] == "." for part in name.parts)}


def content(file: Path) -> bytes:
    """What is in a file; of a complete zip, in which the time stands, its members."""
    if not zipfile.is_zipfile(file):
        return file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        return repr([(member.filename, archive.read(member)) for member in archive.infolist()]).encode()


def hidden(place: Path) -> list[str]:
    return [str(file.relative_to(place)) for file in place.rglob(".*")]


@contextlib.contextmanager
def counting(strike: int | None, blow: Callable[[], object]) -> Iterator[list[int]]:
    """Count the steps; the one of this number is not done, `blow` is."""
    done = [0]
    kept = {name: getattr(os, name) for name in STEPS}

    def stepping(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            done[0] += 1
            if done[0] - 1 == strike:
                blow()
            return function(*args, **options)

        return step

    for name, function in kept.items():
        setattr(os, name, stepping(function))
    try:
        yield done
    finally:
        for name, function in kept.items():
            setattr(os, name, function)


def in_a_child(run: Callable[[], object], strike: int, blow: Callable[[], object]) -> None:
    """Run in a forked process that ends without tidying up what the command itself does not."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException), counting(strike, blow):
            run()
        os._exit(0)
    os.waitpid(child, 0)


def ctrl_c() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("blow", [lambda: os._exit(9), ctrl_c], ids=["killed", "Ctrl-C"])
def test_stopped_anywhere(scene: Callable[[], Path], name: str, blow: Callable[[], object]) -> None:
    command = COMMANDS[name]
    place = scene()
    before = visible(place)
    with counting(None, ctrl_c) as steps:
        command(place)
    after = visible(place)
    assert after != before and not hidden(place / "results")
    for strike in random.Random(0).sample(range(steps[0]), min(CHOSEN, steps[0])):
        place = scene()
        in_a_child(lambda place=place: command(place), strike, blow)
        left = visible(place)
        odd = [file for file, text in left.items() if text not in (before.get(file), after.get(file))]
        assert not odd, f"stopped at step {strike}: half-written {odd}"
        command(place)
        assert visible(place) == after, f"stopped at step {strike}, run again"
        assert not [file for file in hidden(place) if not file.endswith(".downloads")], f"stopped at step {strike}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[Path, int], None]]:
    """Put an empty folder on a memory disk of a few KiB (needs the right to mount)."""
    libc = ctypes.CDLL(None, use_errno=True)
    mounted: list[Path] = []

    def mount(folder: Path, kib: int) -> None:
        folder.mkdir(parents=True)
        if not hasattr(libc, "mount") or libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, f"size={kib}k".encode()):
            pytest.skip("mounting a small disk is not permitted here")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        libc.umount2(bytes(folder), 2)


@pytest.mark.parametrize(
    ("name", "folder"), [("ensemble", "out"), ("apply", "out"), ("install", "elsewhere"), ("download", "elsewhere")]
)
def test_full_disk(scene: Callable[[], Path], small_disk: Callable[[Path, int], None], name: str, folder: str) -> None:
    place = scene()
    COMMANDS[name](place)
    complete = visible(place / folder)
    place = scene()
    small_disk(place / folder, 8)
    (place / folder / ".filling").write_bytes(bytes(4096))
    with pytest.raises(StorageError, match="No space left|has room for"):
        COMMANDS[name](place)
    left = visible(place / folder)
    assert all(text == complete[file] for file, text in left.items()) and len(left) < len(complete)
