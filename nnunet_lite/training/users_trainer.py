"""Trainers of one's own: what goes wrong in a hook, or comes out of it, is said in one line that names the hook."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from nnunet_lite.exceptions import ExtensionError, nnUNetError
from nnunet_lite.utilities.wording import describe

_PACKAGE = __name__.partition(".")[0]
_STEPS = {  # step: (hook that takes its results, keys which that hook of ours needs)
    "train_step": ("on_train_epoch_end", ("loss",)),
    "validation_step": ("on_validation_epoch_end", ("loss", "tp_hard", "fp_hard", "fn_hard")),
}
_LISTS = (
    ". With deep supervision a loss gets lists, one output per resolution: wrap it with self._deeply_supervised, "
    "or set enable_deep_supervision = False"
)


class TrainerFailure(ExtensionError):
    """A hook of a user's trainer raised something; the traceback is that of `__cause__`."""


@contextlib.contextmanager
def named_failures(trainer: Any) -> Iterator[None]:
    """Name the hook of a user's trainer that raises within the block; tracebacks go to the training log, too.

    Args:
        trainer: it, or its class where there is none yet.

    Raises:
        TrainerFailure: in place of what a user's hook raised. Our own errors, and those of our own code, stay.
    """
    try:
        yield
    except nnUNetError:
        raise
    except Exception as error:
        if not isinstance(trainer, type):
            _log_traceback(trainer, error)
        message = _blame(trainer if isinstance(trainer, type) else type(trainer), error)
        if message is None:  # no trainer but ours is involved
            raise
        raise TrainerFailure(message) from error


def _log_traceback(trainer: Any, error: Exception) -> None:
    if Path(trainer.log_file).is_file():
        with contextlib.suppress(Exception):  # a trainer may override this, too
            text = "".join(traceback.format_exception(error))
            trainer.print_to_log_file(text, also_print_to_console=False)


def _blame(trainer_class: Any, error: Exception) -> str | None:
    """One line about an error of a user's trainer, with its place if that is in its files; None without such a one."""
    users = _users_classes(trainer_class)
    if not users:
        return None
    files = {getattr(sys.modules.get(base.__module__), "__file__", None) for base in users}
    frames = [frame for frame in traceback.walk_tb(error.__traceback__) if frame[0].f_code.co_filename in files]
    if not frames:
        file = getattr(sys.modules.get(users[0].__module__), "__file__", users[0].__module__)
        hint = _LISTS if "list" in str(error) and trainer_class.enable_deep_supervision else ""
        return f"{users[0].__name__} ({file}) failed, outside of its own lines: {describe(error)}{hint}"
    code = frames[0][0].f_code
    hook = getattr(code, "co_qualname", f"{trainer_class.__name__}: {code.co_name}").rpartition("<locals>.")[2]
    frame, line = frames[-1]
    return f"{hook} failed at {frame.f_code.co_filename}:{line}: {describe(error)}"


def _users_classes(trainer_class: type) -> list[type]:
    return [base for base in trainer_class.__mro__ if base is not object and not _is_ours(base.__module__)]


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == _PACKAGE


def pair_from(trainer: Any, hook: str, expected: str) -> tuple[Any, Any]:
    """Call a hook that returns two things.

    Raises:
        ExtensionError: it returned something else.
    """
    result = getattr(trainer, hook)()
    if not isinstance(result, (tuple, list)) or len(result) != 2 or any(one is None for one in result):
        raise ExtensionError(_wrong(trainer, hook, result, f"two: ({expected})"))
    return result[0], result[1]


def checked_network(trainer: Any, network: Any) -> nn.Module:
    """What `build_network_architecture` returned. Raises ExtensionError if it is no network."""
    if not isinstance(network, nn.Module):
        raise ExtensionError(_wrong(trainer, "build_network_architecture", network, "a torch.nn.Module"))
    return network


def checked_loss(trainer: Any, loss: Any) -> Any:
    """What `_build_loss` returned. Raises ExtensionError if it cannot be called."""
    if not callable(loss):
        raise ExtensionError(_wrong(trainer, "_build_loss", loss, "a callable of (network output, target)"))
    return loss


def checked_output(trainer: Any, step: str, output: Any) -> dict[str, Any]:
    """What a step returned.

    Raises:
        ExtensionError: no dictionary, or one without the keys that our hook at the end of the epoch needs.
    """
    taker, keys = _STEPS[step]
    if isinstance(output, dict):
        missing = [key for key in keys if key not in output]
        if not missing or not _is_ours(getattr(type(trainer), taker).__module__):
            return output
    raise ExtensionError(_wrong(trainer, step, output, f"a dictionary with {', '.join(keys)}"))


def _wrong(trainer: Any, hook: str, result: Any, expected: str) -> str:
    owner = next((base for base in type(trainer).__mro__ if hook in vars(base)), type(trainer))
    code = getattr(getattr(owner, hook, None), "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    kind = "a dictionary of " + (", ".join(map(str, result)) or "nothing") if isinstance(result, dict) else None
    if isinstance(result, (tuple, list)):
        kind = f"{len(result)} of them ({', '.join(type(one).__name__ for one in result)})"
    got = kind or ("None" if result is None else f"a {type(result).__name__}")
    return f"{owner.__name__}.{hook}{where} returned {got}, expected {expected}"
