"""Runs of a prediction to which something happens: what, when and to which process is drawn from a seed."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from helpers.models import write_model
from helpers.prediction_server import PredictionServer, Run

from nnunet_lite.utilities.files import load_json, load_pickle

CASES = ("a", "b", "c")
_LIMIT = 120  # seconds after which a run counts as hanging; fault-free ones take up to ten on a busy machine
_GONE = 20  # seconds in which all children must have ended after their parent
_REMOUNT = 32
_MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"
_CHECKPOINT = Path(_MODEL) / "fold_0" / "checkpoint_final.pth"
_DOCUMENTS = {"dataset.json", "plans.json", "predict_from_raw_data_args.json"}
_CODES = {0, 2, 130, 143, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}


class Report(NamedTuple):
    """What was done in a run and how it ended."""

    seed: int
    faults: list[str]
    options: list[str]
    code: int
    said: str
    seconds: list[float]  # with faults; and until it was completed


class Bench:
    """A tiny model, three cases, and what their prediction must be."""

    def __init__(self, folder: Path, server: PredictionServer) -> None:
        self.folder, self.server = folder, server
        write_model(folder / _MODEL, folds=(0,))
        write_images(folder / "images")
        run = server.start(folder, *self.arguments(folder, folder / "reference", 0, 0), "--save_probabilities")
        assert run.wait(_LIMIT) == 0, run.errors
        self.reference = {file.name: content_of(file) for file in (folder / "reference").iterdir()}
        assert set(self.reference) == _DOCUMENTS | {
            f"{case}{end}" for case in CASES for end in (".nii.gz", ".npz", ".pkl")
        }

    def arguments(self, place: Path, output: Path, npp: int, nps: int) -> list[object]:
        """Of the command, with images and model of `place`."""
        model = ("-i", place / "images", "-o", output, "-m", place / _MODEL, "-f", 0)
        return [*model, "-npp", npp, "-nps", nps, "-device", "cpu", "-step_size", 1, "--disable_tta"]

    def run(self, seed: int) -> Report:
        """One run with faults, then one that completes it; raises AssertionError for whatever must not happen."""
        draw = random.Random(seed)
        place = self.folder / f"run_{seed}"
        for name in ("images", _MODEL):
            shutil.copytree(self.folder / name, place / name)
        npp, nps = draw.choice((0, 0, 1, 2, 3)), draw.choice((0, 0, 0, 1, 2, 3))
        options = [flag for flag in ("--save_probabilities", "--continue_prediction") if draw.random() < 0.5]
        (place / "out").mkdir()
        if draw.random() < 0.3:  # a part was predicted before, without probabilities
            for name in draw.sample(CASES, draw.randint(1, 3)):
                shutil.copy(self.folder / "reference" / f"{name}.nii.gz", place / "out")
        scene = Scene(self, place, draw, 0.3 + 0.8 * (npp > 0) + 3.0 * (nps > 0))
        kinds = draw.sample(FAULTS, 1 + (draw.random() < 0.25))
        with scene.clean_up():
            for kind in kinds:
                kind(scene)
            start = time.monotonic()
            run = self.server.start(place, *self.arguments(place, place / "out", npp, nps), *options)
            scene.play(run)
            try:
                code = run.wait(_LIMIT)
            finally:
                scene.stop()
            errors, seconds = run.errors, time.monotonic() - start
            said = f"seed {seed}: {scene.told}, -npp {npp} -nps {nps} {options}: exit code {code}\n{errors}"
            self._check(place, run, code, said, scene)
            self._complete(place, options, said)
        shutil.rmtree(place)
        return Report(
            seed,
            scene.told,
            [f"-npp {npp}", f"-nps {nps}", *options],
            code,
            errors,
            [round(seconds, 1), round(time.monotonic() - start, 1)],
        )

    def _check(self, place: Path, run: Run, code: int, said: str, scene: Scene) -> None:
        assert run.children_left(_GONE) == [], f"processes are left\n{said}"
        assert code in _CODES, said
        assert "Traceback" not in run.errors, f"{said}\nin the end\n{run.errors}"
        for file in (place / "out").iterdir():
            if file.name.startswith("."):
                assert scene.killed, f"{file.name} is left\n{said}"
            else:
                self._equal(file, said)
        if not scene.killed:
            assert (left := os.listdir(place / "tmp")) == [], f"{left}\n{said}"
        if code == 0:
            asked = {f"{case}.nii.gz" for case in CASES if case not in scene.missing}
            assert asked <= {file.name for file in (place / "out").iterdir()}, said

    def _complete(self, place: Path, options: list[str], said: str) -> None:
        """Put everything right and run once more with --continue_prediction: the fault-free result, nothing else."""
        for name in ("images", _MODEL):
            shutil.rmtree(place / name)
            shutil.copytree(self.folder / name, place / name)
        arguments = [*self.arguments(place, place / "out", 0, 0), *options, "--continue_prediction"]
        run = self.server.start(place, *arguments)
        code = run.wait(_LIMIT)
        said = f"{said}\nagain: exit code {code}\n{run.errors}"
        assert code == 0, said
        endings = (".nii.gz", ".npz", ".pkl") if "--save_probabilities" in options else (".nii.gz",)
        expected = _DOCUMENTS | {f"{case}{ending}" for case in CASES for ending in endings}
        assert (found := set(os.listdir(place / "out"))) == expected, f"{found ^ expected}\n{said}"
        for file in (place / "out").iterdir():
            self._equal(file, said)
        assert (left := os.listdir(place / "tmp")) == [], f"{left}\n{said}"

    def _equal(self, file: Path, said: str) -> None:
        try:
            content = content_of(file)
        except Exception as error:
            raise AssertionError(f"{file.name} cannot be read: {error!r}\n{said}") from error
        if file.name in self.reference and file.name != "predict_from_raw_data_args.json":
            assert equal(content, self.reference[file.name]), f"{file.name} differs\n{said}"


class Scene:
    """What happens to one run; each fault prepares itself or asks to strike at a moment."""

    def __init__(self, bench: Bench, place: Path, draw: random.Random, duration: float) -> None:
        self.bench, self.place, self.draw = bench, place, draw
        self.told: list[str] = []
        self.killed = False  # something could not tidy up
        self.missing: set[str] = set()
        self._duration = duration
        self._strikes: list[tuple[float, Callable[[Run], None]]] = []
        self._mounted: list[Path] = []
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def at_a_moment(self, strike: Callable[[Run], None]) -> float:
        """Let something happen at a random time; returns the time in seconds."""
        moment = self.draw.random() * self._duration
        self._strikes.append((moment, strike))
        return moment

    def play(self, run: Run) -> None:
        """Let everything happen in the background, each at its time."""
        start = time.monotonic()

        def strike_all() -> None:
            for moment, strike in sorted(self._strikes, key=lambda pair: pair[0]):
                if self._over.wait(max(0.0, start + moment - time.monotonic())):
                    return
                strike(run)

        self._thread = threading.Thread(target=strike_all)
        self._thread.start()

    def stop(self) -> None:
        """Nothing happens any more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        for folder in self._mounted:
            _mount(None, folder, _REMOUNT, "size=64m")

    @contextmanager
    def clean_up(self) -> Iterator[None]:
        """Unmount what was mounted, whatever happens."""
        try:
            yield
        finally:
            self.stop()
            for folder in self._mounted:
                _libc().umount2(bytes(folder), 2)

    def small_disk(self, folder: Path, kib: int) -> bool:
        """Put a folder on a disk of this size; False where mounting is not permitted."""
        kept = [(file.name, file.read_bytes()) for file in folder.iterdir()]
        if not _mount(b"tmpfs", folder, 0, f"size={kib}k"):
            return False
        self._mounted.append(folder)
        for name, content in kept:
            try:
                (folder / name).write_bytes(content)
            except OSError:
                (folder / name).unlink(missing_ok=True)
        return True


def signal_to_a_process(scene: Scene) -> None:
    """A signal to a random process of the tree."""
    number = scene.draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP))
    choice, pause = scene.draw.random(), scene.draw.uniform(0.05, 0.6)

    def strike(run: Run) -> None:
        processes = run.processes()
        if not processes:
            return
        pid = processes[int(choice * len(processes))]
        scene.told[position] += f" (struck {'the command' if pid == run.pid else 'a child'} of {len(processes)})"
        scene.killed |= number in (signal.SIGKILL, signal.SIGTERM)
        _send(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(pause)
            _send(pid, signal.SIGCONT)

    position = len(scene.told)
    scene.told.append(f"{number.name} after {scene.at_a_moment(strike):.2f} s")


def signal_to_all(scene: Scene) -> None:
    """Ctrl-C, or a scheduler's SIGTERM, which reach the whole process group."""
    number = scene.draw.choice((signal.SIGINT, signal.SIGTERM))

    def strike(run: Run) -> None:
        scene.killed |= number == signal.SIGTERM
        scene.told[position] += " (struck)"
        try:
            os.killpg(run.pid, number)
        except ProcessLookupError:
            return

    position = len(scene.told)
    scene.told.append(f"{number.name} to all after {scene.at_a_moment(strike):.2f} s")


def spoiled_image(scene: Scene) -> None:
    """An image is truncated, not one, empty, or has a wrong bit."""
    case = scene.draw.choice(CASES)
    file = scene.place / "images" / f"{case}_0000.nii.gz"
    how = _spoil(file, scene.draw) if file.exists() else "missing already"
    scene.told.append(f"image {case} {how}")


def missing_image(scene: Scene) -> None:
    """An image is not there, or vanishes while the run goes on."""
    case = scene.draw.choice(CASES)
    file = scene.place / "images" / f"{case}_0000.nii.gz"
    scene.missing.add(case)
    if scene.draw.random() < 0.5:
        file.unlink()
        scene.told.append(f"image {case} missing")
        return
    moment = scene.at_a_moment(lambda _: file.unlink(missing_ok=True))
    scene.told.append(f"image {case} deleted after {moment:.2f} s")


def full_disk(scene: Scene) -> None:
    """The output folder lies on a disk that is too small, or the temporary one."""
    folder = scene.place / scene.draw.choice(("out", "out", "out", "tmp"))
    folder.mkdir(exist_ok=True)
    kib = scene.draw.choice((4, 8, 16, 20, 24, 28, 32, 48, 64, 100, 128, 200))
    if scene.small_disk(folder, kib):
        scene.told.append(f"{folder.name} on a disk of {kib} KiB")


def spoiled_model(scene: Scene) -> None:
    """The checkpoint is damaged or missing, or plans.json is cut."""
    if scene.draw.random() < 0.3:
        (scene.place / _CHECKPOINT).unlink()
        scene.told.append("checkpoint missing")
        return
    name = scene.draw.choice((str(_CHECKPOINT), f"{_MODEL}/plans.json", f"{_MODEL}/dataset.json"))
    file = scene.place / name
    content = file.read_bytes()
    file.write_bytes(content[: scene.draw.randrange(len(content))])
    scene.told.append(f"{file.name} truncated")


FAULTS = [signal_to_a_process] * 5 + [signal_to_all, spoiled_image, missing_image, full_disk, full_disk, spoiled_model]


def _spoil(file: Path, draw: random.Random) -> str:
    content = file.read_bytes()
    how = draw.choice(("truncated", "garbage", "empty", "with a wrong bit"))
    place = draw.randrange(20, len(content))
    file.write_bytes(
        {
            "truncated": content[:place],
            "garbage": bytes(draw.randrange(256) for _ in range(500)),
            "empty": b"",
            "with a wrong bit": content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :],
        }[how]
    )
    return how


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _mount(source: bytes | None, folder: Path, flags: int, options: str) -> bool:
    libc = _libc()
    return hasattr(libc, "mount") and libc.mount(source, bytes(folder), source, flags, options.encode()) == 0


def write_images(folder: Path, edge: int = 20) -> None:
    """The images of the cases: noise with a bright block."""
    folder.mkdir()
    for seed, case in enumerate(CASES):
        voxels = np.random.default_rng(seed).normal(size=(edge, edge, edge)).astype(np.float32)
        voxels[5:12, 4:15, 6:12] += 3
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(folder / f"{case}_0000.nii.gz"))


def content_of(file: Path) -> Any:
    """What a file says, read completely; raises if it is damaged."""
    if file.name.endswith(".nii.gz"):
        image = sitk.ReadImage(str(file))
        return [sitk.GetArrayFromImage(image), image.GetSpacing(), image.GetOrigin(), image.GetDirection()]
    if file.suffix == ".npz":
        with zipfile.ZipFile(file) as archive:
            assert archive.testzip() is None
        with np.load(file) as arrays:
            return {name: arrays[name] for name in arrays.files}
    return load_json(file) if file.suffix == ".json" else load_pickle(file)


def equal(first: Any, second: Any) -> bool:
    """Whether two contents are the same, to the last bit."""
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(equal(a, b) for a, b in zip(first, second, strict=True))
    return bool(first == second)


def as_line(report: Report) -> str:
    """For a table of runs."""
    return json.dumps(report._asdict())
