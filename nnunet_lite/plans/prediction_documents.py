"""dataset.json and plans.json as they lie beside predictions and in model folders: read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.plans.dataset_json import DatasetJson
from nnunet_lite.plans.plans_manager import load_plans
from nnunet_lite.utilities.files import PathLike

Documents = PathLike | Mapping[str, Any] | None


def dataset_json_of(folder: Path, given: Documents = None, advice: str = "") -> dict[str, Any]:
    """The content of dataset.json: as given, of a file that is given, or of the one in a folder.

    Args:
        advice: ends the message where the folder has none.

    Raises:
        DatasetError: there is none, or its labels or file ending are unusable.
    """
    if isinstance(given, Mapping):
        document = DatasetJson(given)
    else:
        document = DatasetJson.from_file(_existing(folder, "dataset.json", given, advice))
    _ = document.labels, document.file_ending, document.regions_class_order  # each raises where it is unusable
    return dict(document.raw)


def plans_of(folder: Path, given: Documents = None, advice: str = "") -> dict[str, Any]:
    """The content of plans.json; see `dataset_json_of`.

    Raises:
        DatasetError: there is none.
        PlansError: it holds no plans.
    """
    return dict(given) if isinstance(given, Mapping) else load_plans(_existing(folder, "plans.json", given, advice))


def _existing(folder: Path, name: str, given: PathLike | None, advice: str) -> Path:
    file = folder / name if given is None else Path(given)
    if not file.is_file():
        raise DatasetError(f"There is no {file}{advice if given is None else ''}")
    return file
