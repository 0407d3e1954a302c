"""Prediction commands as processes of their own that start at once: forked from one that has imported everything.

Hundreds of runs would otherwise spend their time importing torch.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from helpers.sessions import living_processes

COMMAND = "predict_from_modelfolder_entry"
_IMPORTED = (  # so that runs need not
    "nnunet_lite.inference.predict_from_raw_data",
    "nnunet_lite.preprocessing.preprocessed_dataset",
    "nnunet_lite.imageio.nibabel_reader_writer",
    "nnunet_lite.imageio.nifti_labels",
    "dynamic_network_architectures.architectures.unet",
    "SimpleITK",
    "tqdm",
)
CANNOT_MOUNT = 99  # exit code
_NEW_MOUNTS = 0x20000  # CLONE_NEWNS
_PRIVATE = 0x44000  # MS_REC | MS_PRIVATE
_CODE = "from helpers.prediction_server import serve; serve()"


class Run:
    """A command that runs: its process leads a session, by which its children are known."""

    def __init__(self, server: PredictionServer, pid: int, errors: Path) -> None:
        self._server, self.pid, self._errors = server, pid, errors
        self._code: int | None = None

    def wait(self, limit: float) -> int:
        """Exit code; negative for a signal. Raises TimeoutError after `limit` seconds, everything killed."""
        if self._code is None:
            try:
                self._code = int(self._server.line(limit))
            except TimeoutError:
                for pid in self.processes():
                    os.kill(pid, signal.SIGKILL)
                self._server.line(10)
                raise TimeoutError(f"no end within {limit} s; said so far:\n{self.errors}") from None
        return self._code

    def processes(self) -> list[int]:
        """All living processes of the session, the command itself first."""
        return living_processes(self.pid)

    def children_left(self, limit: float) -> list[int]:
        """Processes that are still there `limit` seconds later; ends them."""
        deadline = time.monotonic() + limit
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.02)
        left = self.processes()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return left

    @property
    def errors(self) -> str:
        """What was written to stderr, without progress bars."""
        text = self._errors.read_text(errors="replace")
        lines = [part for line in text.splitlines() for part in line.split("\r")]
        return "\n".join(line for line in lines if line.strip() and "tile/s" not in line and "case/s" not in line)


class PredictionServer:
    """Starts commands one after the other; use it as a context manager."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
        )
        self._rest = b""
        os.set_blocking(self._process.stdout.fileno(), False)

    def __enter__(self) -> PredictionServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def start(self, folder: Path, *arguments: object, **surroundings: Any) -> Run:
        """Start the command; temporary files go to `folder`/tmp, output to `folder`/stdout and stderr.

        Args:
            folder: made if need be.
            arguments: of the command.
            surroundings: `files`, the largest number of open files; `memory`, bytes of address space beyond those
                taken; `shared_memory`, size of /dev/shm (needs the right to mount); `temporary`, another TMPDIR.
        """
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        order = {"folder": str(folder), "arguments": [str(argument) for argument in arguments], **surroundings}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return Run(self, int(self.line(60)), folder / "stderr")

    def line(self, limit: float) -> str:
        """The next line from the server. Raises TimeoutError."""
        deadline = time.monotonic() + limit
        while b"\n" not in self._rest:
            assert self._process.poll() is None, "the server has ended"
            if time.monotonic() > deadline:
                raise TimeoutError
            self._rest += self._process.stdout.read(4096) or b""
            time.sleep(0.005)
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


def use_workers_for_tiny_cases() -> None:
    """Let the requested processes start however small the images, and the machine, are."""
    from nnunet_lite.inference import case_resources

    case_resources._SHARE_OF_PROCESSES = float("inf")
    for side in case_resources._WORKER_START:
        case_resources._WORKER_START[side] = 0.0


def serve() -> None:
    """Main loop of the server: an order per line of stdin; answers with a process id and, at its end, the exit code."""
    from nnunet_lite.cli import inference

    for module in _IMPORTED:
        import_module(module)
    use_workers_for_tiny_cases()
    entry = getattr(inference, COMMAND)
    while line := sys.stdin.readline():
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _prepare(json.loads(line), told)
                sys.argv = ["nnUNetv2_predict_from_modelfolder", *json.loads(line)["arguments"]]
                code = entry()
            except KeyboardInterrupt:  # outside of the command
                code = 130
            except SystemExit as end:
                code = int(end.code or 0)
            _leave(code)
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _leave(code: int) -> NoReturn:
    """What an interpreter does at its end, but for taking apart all modules: that takes seconds in a forked one."""
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _prepare(order: dict[str, Any], told: int) -> None:
    """A session, a temporary folder and output files of its own."""
    import tempfile

    os.setsid()
    folder = Path(order["folder"])
    tempfile.tempdir = None
    os.environ["TMPDIR"] = str(folder / "tmp")
    for number, name, mode in ((0, "/dev/null", os.O_RDONLY), (1, "stdout", os.O_WRONLY), (2, "stderr", os.O_WRONLY)):
        file = os.open(folder / name, mode | (os.O_CREAT | os.O_TRUNC if number else 0), 0o644)
        os.dup2(file, number)
        os.close(file)
    _limit(order)
    os.write(told, b"1")
    os.close(told)


def _limit(order: dict[str, Any]) -> None:
    if "temporary" in order:
        os.environ["TMPDIR"] = order["temporary"]
    if "shared_memory" in order:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.unshare(_NEW_MOUNTS)
        libc.mount(None, b"/", None, _PRIVATE, None)
        size = f"size={order['shared_memory']}".encode()
        if libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, size):
            os._exit(CANNOT_MOUNT)
    if "files" in order:
        resource.setrlimit(resource.RLIMIT_NOFILE, (order["files"], order["files"]))
    if "memory" in order:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + order["memory"],) * 2)
