"""What all benchmarks share: the two sides, wall time and peak memory of a command, and the table at the end.

Both sides run alternately in one go, each from its own folders; only the ratio is meant to be quoted.
Memory is the proportional set size (PSS) of every process of the command, summed, sampled ten times a second (Linux).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
MIB = 2**20


class Measurement(NamedTuple):
    """One run of one command."""

    seconds: float
    peak: int  # bytes of PSS, all processes together
    output: str
    stopped: str = ""  # why it was ended before it had finished


class Limits(NamedTuple):
    """What a command may take before it is ended."""

    seconds: float
    memory: int  # bytes


class Side(NamedTuple):
    """One of the two programs: its interpreter, package name, folders and environment."""

    name: str
    package: str
    python: Path
    folder: Path
    environment: dict[str, str]

    @property
    def preprocessed(self) -> Path:
        """Its nnUNet_preprocessed."""
        return self.folder / "nnUNet_preprocessed"

    @property
    def results(self) -> Path:
        """Its nnUNet_results."""
        return self.folder / "nnUNet_results"

    def run(self, *command: str | Path, limits: Limits | None = None, **variables: str) -> Measurement:
        """Run a console command of this side (or its python) and measure it; variables are for its environment."""
        program = self.python if command[0] == "python" else self.python.parent / str(command[0])
        return measure([str(program), *map(str, command[1:])], {**self.environment, **variables}, limits)

    def predict(
        self, images: Path, model: Path, output: Path, workers: int, *flags: str, device: str = "cpu"
    ) -> Measurement:
        """Predict a folder with fold 0 of a model; the output folder is made anew."""
        remove(output)
        folders = ("-i", images, "-o", output, "-m", model)
        settings = ("-f", "0", "-device", device, "-npp", str(workers), "-nps", str(workers))
        return self.run("nnUNetv2_predict_from_modelfolder", *folders, *settings, *flags)


class Row(NamedTuple):
    """One line of the table; None where a side was not run or memory is of no interest."""

    what: str
    upstream: float | None
    ours: float | None
    unit: str = "s"


def measure(command: Sequence[str], environment: Mapping[str, str], limits: Limits | None = None) -> Measurement:
    """Run a command in a session of its own; wall time, peak memory of the whole session, both outputs together."""
    stopped = ""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with _watching(process.pid) as peak:
            while limits is not None and process.poll() is None and not stopped:
                time.sleep(0.1)
                stopped = _exceeded(limits, time.perf_counter() - start, peak[0])
            if stopped:
                os.killpg(process.pid, signal.SIGKILL)
            returncode = process.wait()
        seconds = time.perf_counter() - start
        output.seek(0)
        text = output.read().decode(errors="replace")
    if returncode and not stopped:
        raise SystemExit(f"{' '.join(command)}\nended with code {returncode}:\n{text[-4000:]}")
    return Measurement(seconds, peak[0], text, stopped)


def _exceeded(limits: Limits, seconds: float, memory: int) -> str:
    if seconds > limits.seconds:
        return f"stopped after {seconds:.0f} s"
    return f"stopped at {memory / MIB:.0f} MiB" if memory > limits.memory else ""


@contextlib.contextmanager
def _watching(session: int) -> Iterator[list[int]]:
    peak, done = [0], threading.Event()

    def watch() -> None:
        known: dict[str, bool] = {}
        pause = 0.1
        while not done.wait(pause):
            start = time.perf_counter()
            peak[0] = max(peak[0], session_memory(session, known))
            # looking at gigabytes takes the kernel tens of milliseconds, which the command may miss
            pause = max(0.1, 30 * (time.perf_counter() - start))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def session_memory(session: int, known: dict[str, bool]) -> int:
    """Bytes of PSS of all processes of a session; 0 where /proc does not tell.

    `known` remembers from call to call which process belongs to it, so that looking costs little.
    """
    now = {entry for entry in os.listdir("/proc") if entry.isdigit()}
    for gone in known.keys() - now:
        del known[gone]
    for new in now - known.keys():
        known[new] = _session_of(new) == session
    return sum(_pss(process) for process, belongs in known.items() if belongs)


def _session_of(process: str) -> int | None:
    try:
        return int(Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[3])
    except (OSError, IndexError):
        return None


def _pss(process: str) -> int:
    try:
        lines = Path("/proc", process, "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


class Bench:
    """The arguments every script takes, the sides, and the work folder."""

    def __init__(self, description: str, *extra: tuple[str, dict[str, Any]], repeats: int = 3) -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument(
            "--peer",
            type=Path,
            help="virtual environment of upstream, made by shared/peer/setup.sh; without it only ours is measured",
        )
        parser.add_argument(
            "--shared",
            type=Path,
            help="folder with data, goldens and peer (default: NNUNET_LITE_SHARED or ../shared beside the repository)",
        )
        parser.add_argument("--raw", type=Path, help="folder of raw datasets to look in before the shared one")
        parser.add_argument("--work", type=Path, help="folder to work in, kept (default: a temporary one, removed)")
        parser.add_argument("--repeats", type=int, default=repeats, help="runs of each side (default: %(default)s)")
        parser.add_argument("--only", choices=("ours", "upstream"), help="run this side alone")
        parser.add_argument("--json", type=Path, help="write the table to this file, too")
        for name, options in extra:
            parser.add_argument(name, **options)
        self.args = parser.parse_args()
        beside = HERE.parents[1] / "shared"
        self.shared: Path = self.args.shared or Path(os.environ.get("NNUNET_LITE_SHARED", beside))
        self._temporary = contextlib.ExitStack()
        self.work = self.args.work or Path(
            self._temporary.enter_context(tempfile.TemporaryDirectory(prefix="nnunet_lite_benchmark_"))
        )
        self.work = self.work.resolve()
        self.raw = self.work / "nnUNet_raw"
        self.raw.mkdir(parents=True, exist_ok=True)
        self.ours = self._side("ours", "nnunet_lite", Path(sys.executable), None)
        self.upstream = None
        if self.args.peer:
            python = self.args.peer.absolute() / "bin" / "python"
            self.upstream = self._side("upstream", "nnunetv2", python, self.args.peer)
        both = (self.upstream, self.ours)
        self.sides = [side for side in both if side is not None and self.args.only in (None, side.name)]
        self.rows: list[Row] = []

    def _side(self, name: str, package: str, python: Path, peer: Path | None) -> Side:
        folder = self.work / name
        folders = [self.raw, folder / "nnUNet_preprocessed", folder / "nnUNet_results"]
        for path in folders:
            path.mkdir(parents=True, exist_ok=True)
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("nnUNet_") and key != "PYTHONPATH"
        }
        environment.update({path.name: str(path) for path in folders})
        if peer is not None:
            script = 'source "$0" "$@" && env -0'
            found = subprocess.run(
                ["bash", "-c", script, str(peer.absolute() / "peer_env.sh"), *map(str, folders)],
                env=environment,
                capture_output=True,
                check=True,
                text=True,
            ).stdout
            environment = dict(entry.split("=", 1) for entry in found.split("\0") if "=" in entry)
        return Side(name, package, python, folder, environment)

    def pair(self) -> tuple[Side, Side]:
        """Upstream and ours, for scripts that cannot do with one of them."""
        if self.upstream is None:
            raise SystemExit("this script compares the two sides: give --peer")
        return self.upstream, self.ours

    def dataset(self, name: str) -> Path:
        """Make a dataset available in the raw folder and return its folder; the phantom is made on demand."""
        target = self.raw / name
        if target.exists():
            return target
        for folder in (self.args.raw, self.shared / "data"):
            if folder is not None and (folder / name).is_dir():
                target.symlink_to((folder / name).resolve())
                return target
        if name == "Dataset900_Torso":
            subprocess.run([sys.executable, str(self.shared / "peer" / "make_torso.py"), str(self.raw)], check=True)
            return target
        raise SystemExit(f"no {name} in {self.args.raw or '(no --raw)'} nor in {self.shared / 'data'}")

    def documents(self, name: str, *files: str) -> None:
        """Give both sides the same recorded fingerprint or plans (shared/goldens) and their copy of dataset.json."""
        raw = self.dataset(name)
        for side in self.sides:
            folder = side.preprocessed / name
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(raw / "dataset.json", folder / "dataset.json")
            for file in files:
                shutil.copyfile(self.shared / "goldens" / name / file, folder / file)

    def alternate(
        self,
        run: Callable[[Side], Measurement],
        prepare: Callable[[Side], object] | None = None,
    ) -> dict[str, list[Measurement]]:
        """Run each side in turn, `repeats` times; `prepare` is not measured."""
        found: dict[str, list[Measurement]] = {side.name: [] for side in self.sides}
        for _ in range(self.args.repeats):
            for side in self.sides:
                if prepare is not None:
                    prepare(side)
                found[side.name].append(run(side))
        return found

    def add(self, what: str, found: Mapping[str, Sequence[Measurement]], *, memory: bool = False) -> None:
        """Add lines of the best time (and the least peak) of each side."""
        self.row(what, {name: min(m.seconds for m in all_) for name, all_ in found.items() if all_})
        if memory:
            self.row(
                what + ", memory",
                {name: min(m.peak for m in all_) / MIB for name, all_ in found.items() if all_},
                "MiB",
            )

    def row(self, what: str, values: Mapping[str, float], unit: str = "s") -> None:
        """Add one line and say it at once."""
        row = Row(what, values.get("upstream"), values.get("ours"), unit)
        self.rows.append(row)
        print(format_row(row), flush=True)

    def finish(self) -> None:
        """Print the table, write it where --json says, remove a temporary work folder."""
        print("\n| what | upstream | ours | ratio |\n|---|---|---|---|")
        for row in self.rows:
            print(format_row(row))
        if self.args.json:
            document = {
                "rows": [row._asdict() for row in self.rows],
                "machine": machine(),
                "time": time.strftime("%Y-%m-%d %H:%M:%S"),
                "script": Path(sys.argv[0]).name,
            }
            self.args.json.write_text(json.dumps(document, indent=4))
        self._temporary.close()


def format_row(row: Row) -> str:
    """One line of a markdown table."""
    ratio = f"{row.upstream / row.ours:.1f}x" if row.upstream is not None and row.ours else ""
    cells = (
        "" if value is None else f"{value:.2f} {row.unit}" if value < 100 else f"{value:.0f} {row.unit}"
        for value in (row.upstream, row.ours)
    )
    return f"| {row.what} | {' | '.join(cells)} | {ratio} |"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "load": os.getloadavg(),
    }


def port_trainer(source: Path, side: Side) -> Path:
    """Put a trainer written against upstream into a side's own folder; ours is upstream's with the package renamed."""
    folder = side.folder / "trainers"
    folder.mkdir(exist_ok=True)
    (folder / source.name).write_text(source.read_text().replace("nnunetv2", side.package))
    return folder


def remove(path: Path) -> None:
    """Remove a file or folder, whether it is there or not."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
