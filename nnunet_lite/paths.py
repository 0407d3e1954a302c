"""The folders nnU-Net works in, taken from environment variables at the moment they are used."""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_lite.exceptions import PathError


class LazyPath(os.PathLike[str]):
    """A folder named by an environment variable; unset only matters when somebody uses it."""

    def __init__(self, variable: str, meaning: str) -> None:
        self.variable = variable
        self.meaning = meaning

    def is_set(self) -> bool:
        """Whether the environment variable holds anything."""
        return bool(self.get())

    def get(self) -> str | None:
        """The folder, or None if the variable is unset. Quotes that Windows shells keep are stripped."""
        value = os.environ.get(self.variable, "").strip().strip("\"'")
        return value or None

    def __fspath__(self) -> str:
        value = self.get()
        if value is None:
            raise PathError(
                f"The environment variable {self.variable} is not set; it names the folder of {self.meaning}. "
                f"Set it first, for example: export {self.variable}=/path/to/{self.variable}"
            )
        return value

    def __str__(self) -> str:
        return self.__fspath__()

    def __repr__(self) -> str:
        return f"LazyPath({self.variable}={self.get()!r})"

    def __truediv__(self, other: str | os.PathLike[str]) -> Path:
        return Path(self.__fspath__()) / other

    def __bool__(self) -> bool:
        return self.is_set()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, LazyPath):
            return self.get() == other.get()
        return self.get() == other

    def __hash__(self) -> int:
        return hash(self.variable)


nnUNet_raw = LazyPath("nnUNet_raw", "raw datasets (DatasetXXX_Name/imagesTr, labelsTr, dataset.json)")
nnUNet_preprocessed = LazyPath("nnUNet_preprocessed", "fingerprints, plans and preprocessed cases")
nnUNet_results = LazyPath("nnUNet_results", "trained models")
nnssl_pretrained_models = LazyPath("nnssl_pretrained_models", "pretrained checkpoints downloaded from Hugging Face")


def external_class_folders() -> list[Path]:
    """Existing folders named in nnUNet_extTrainer (separated by the system's path separator), in order."""
    return [entry for entry in _external_entries() if entry.is_dir()]


def faults_of_external_folders() -> list[str]:
    """What nnUNet_extTrainer names that cannot be searched: "/nope does not exist"."""
    return [
        f"{entry} is a file: name its folder" if entry.is_file() else f"{entry} does not exist"
        for entry in _external_entries()
        if not entry.is_dir()
    ]


def _external_entries() -> list[Path]:
    entries = (entry.strip().strip("\"'") for entry in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep))
    return [Path(entry) for entry in entries if entry]
