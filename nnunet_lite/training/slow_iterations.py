"""An iteration that takes too long when an end is asked for, or fails: the state as it was before it is saved."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

from nnunet_lite.exceptions import nnUNetError
from nnunet_lite.training.fold_folder import LATEST
from nnunet_lite.training.interruption import EXIT_CODE, signal_numbers
from nnunet_lite.training.trainer_state import random_states
from nnunet_lite.utilities.logging import logger

PATIENCE = 15.0  # seconds; schedulers kill after 30, and the checkpoint has to be written, too

_READ = 64  # signals taken from the pipe at once


class SlowIterationGuard:
    """Context manager around the loop of a trainer, which calls `begin` before each batch and `settle` after its step.

    Python's own signal handlers wait for the end of a running operation, which may be a whole backward pass, or a
    batch that never comes. So a thread gets the signals, too. Weights and momenta do not change before the optimizer
    steps; the random state is noted by `begin`. Only running statistics of batch normalization, which few networks
    have, are then ahead by a part of an iteration.

    Args:
        trainer: whose `save_checkpoint` is called; on its device nothing is read while its optimizer steps.
        patience: seconds from the request to the save.
    """

    def __init__(self, trainer: Any, patience: float = PATIENCE) -> None:
        self.patience = patience
        self.random_states: dict[str, Any] | None = None  # of the iteration that is given up
        self._trainer = trainer
        self._lock = threading.Lock()
        self._untouched = False  # whether weights and momenta are those from before the iteration
        self._over = threading.Event()
        self._optimizer: Any = None
        self._before: dict[str, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._wakeup = -1

    def __enter__(self) -> SlowIterationGuard:
        self._over.clear()
        if self._trainer.is_ddp:  # one rank cannot know where the others are
            return self
        if os.name != "posix" or threading.current_thread() is not threading.main_thread():
            return self
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        _active.append(self)
        threading.Thread(target=self._watch, args=(self._pipe[0],), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = kind is not None and issubclass(kind, Exception) and not issubclass(kind, nnUNetError)
        saves = self._untouched and not self._trainer.disable_checkpointing
        if failed and saves and (self._trainer.current_epoch > 0 or self._trainer.epoch_outputs):
            self._save_before_failure()
        self.settle()
        self._over.set()
        if self._pipe is not None:
            _active.remove(self)
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._pipe[1])  # the thread reads the end and goes
            self._pipe = None

    def begin(self) -> None:
        """Before the batch of an iteration: what is there now can be saved until the optimizer steps."""
        optimizer = self._trainer.optimizer
        if optimizer is not self._optimizer and hasattr(optimizer, "register_step_pre_hook"):
            optimizer.register_step_pre_hook(self._before_step)
            self._optimizer = optimizer
        with self._lock:
            self._before = random_states(self._trainer.device)
            self._untouched = optimizer is self._optimizer and not self._trainer.is_ddp

    def settle(self) -> None:
        """The loop saves by itself, or there is nothing more to save; waits for a save that has begun."""
        with self._lock:
            self._untouched = False

    def _before_step(self, *_: Any) -> None:
        self.settle()

    def _watch(self, pipe: int) -> None:
        wanted = set(signal_numbers())
        while received := os.read(pipe, _READ):
            if wanted & set(received):
                break
        waiting = self.patience if received else 0.0
        while received and not self._over.wait(waiting):
            with self._lock:
                if self._untouched:
                    self._save_and_end()
            waiting = 0.2
        os.close(pipe)

    def _save(self) -> None:
        """Write checkpoint_latest as of before this iteration."""
        trainer, outputs = self._trainer, self._trainer.epoch_outputs
        self.random_states = self._before
        trainer.current_epoch -= 1  # what is saved is the number of the next epoch
        trainer.epoch_outputs = outputs[: trainer._finite_updates.left_out()]  # --c repeats what was left out
        try:
            trainer.save_checkpoint(os.path.join(trainer.output_folder, LATEST))
        finally:
            trainer.current_epoch += 1
            trainer.epoch_outputs = outputs
            self.random_states = None

    def _save_before_failure(self) -> None:
        """An iteration raised something, memory that ran out for example: go on from before it some day."""
        with contextlib.suppress(Exception), self._lock:  # after an error of the GPU nothing can be read from it
            self._save()
            self._trainer.print_to_log_file("This iteration failed; the state before it is saved (--c goes on from it)")

    def _save_and_end(self) -> None:
        """Save and end this process, whose main thread is busy, and its background processes."""
        code = 1
        try:
            self._save()
            saved = "" if self._trainer.disable_checkpointing else "; the state before it is saved"
            self._trainer.print_to_log_file(
                f"Stopped on request: this iteration takes more than {self.patience:.0f} s{saved}. "
                "Go on with the same command and --c"
            )
            code = EXIT_CODE
        except nnUNetError as error:
            logger.error("%s", error)
            code = 2
        except Exception:
            traceback.print_exc()
        finally:
            for process in multiprocessing.active_children():
                process.kill()
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)


_active: list[SlowIterationGuard] = []


def _forget_parents_pipe() -> None:
    """In a process that a user's loader forked: its signals are not this training's."""
    if _active:
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents_pipe)
