"""Cases that could not be predicted: why in a line each, and what to do."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from nnunet_lite.exceptions import StorageError, WorkerError, nnUNetError
from nnunet_lite.utilities.device import is_out_of_memory
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.parallel import Outcome
from nnunet_lite.utilities.unguarded_main import concerning_all
from nnunet_lite.utilities.wording import counted, describe

AGAIN = "--continue_prediction (overwrite=False) predicts only what is missing"


def explained(error: Exception, verbose: bool = False) -> Exception:
    """The error without what it keeps in memory, arrays of the case among them; memory that ran out gets advice.

    Args:
        error: of a case.
        verbose: log where it arose.
    """
    if verbose:
        logger.info("%s", "".join(traceback.format_exception(error)))
    if is_out_of_memory(error) and not isinstance(error, nnUNetError):  # those give advice of their own
        error = WorkerError(
            f"memory ran out ({describe(error)[:200]}); give it more, or take less: fewer -npp and -nps, and on a GPU "
            "--not_on_device"
        )
    for link in ("__traceback__", "__cause__", "__context__"):
        setattr(error, link, None)
    return error


def reason_of(failure: Outcome) -> str:
    """Why a case failed, in one line and without its name."""
    return " ".join(describe(failure.error).removeprefix(f"{failure.name}: ").split())


def warn_of(failures: Sequence[Outcome]) -> None:
    """Say at once which cases failed, long before the list at the end; a line each."""
    for failure in failures:
        logger.warning("%s failed: %s", failure.name, reason_of(failure))


def note_of(failures: Sequence[Outcome]) -> str:
    """For those who stop a prediction: what had failed until then."""
    reasons = "; ".join(f"{failure.name} ({reason_of(failure)})" for failure in failures)
    return f"Stopped; {counted(len(failures), 'case')} had failed: {reasons}"


def failure_of(failures: Sequence[Outcome], total: int, to_files: bool) -> nnUNetError:
    """One error for all failed cases, which knows their names: a single one in one line, else a list.

    Args:
        failures: cases with their errors.
        total: cases there were.
        to_files: results are files, so that those of the others need not be made again.
    """
    common, first = concerning_all(each.error for each in failures), failures[0].error
    if common is not None:
        return common
    if total == 1 and isinstance(first, nnUNetError):
        return first
    kind = type(first) if isinstance(first, nnUNetError) else WorkerError
    texts = [describe(failure.error).removeprefix(f"{failure.name}: ") for failure in failures]
    lines = [f"{failure.name}: {text}" for failure, text in zip(failures, texts, strict=True)]
    start = f"{len(failures)} of {counted(total, 'case')} failed:"
    last = [f"The others are predicted; {AGAIN}."] if to_files and len(failures) < total else []
    if len(failures) == 1:
        message = " ".join([start, lines[0] + ("." if last and not lines[0].endswith(".") else ""), *last])
    else:
        message = "\n".join([start, *(f"  {line}" for line in lines), *last])
    error = kind(message)
    error.failed_cases = tuple(failure.name for failure in failures)
    return error


def stopped_early(error: StorageError, done: int, total: int | None) -> StorageError:
    """The error of a full disk, with how far the prediction came."""
    of = "" if total is None else f" of {total}"
    return StorageError(f"{error} ({done}{of} cases are predicted; {AGAIN})")
