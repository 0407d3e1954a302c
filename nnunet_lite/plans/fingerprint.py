"""DatasetFingerprint: what planning knows about the images of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import PlansError
from nnunet_lite.plans.checked_values import fraction, statistics, triples
from nnunet_lite.utilities.files import PathLike, load_json

_KEYS = (
    "spacings",
    "shapes_after_crop",
    "median_relative_size_after_cropping",
    "foreground_intensity_properties_per_channel",
)

_SMALLEST, _LARGEST = 1e-7, 1e7  # mm and voxels; beyond these planning would coarsen and shrink for ever


@dataclass(frozen=True)
class DatasetFingerprint:
    """View of dataset_fingerprint.json (nnU-Net v2 2.8.1 behaviour); unknown keys stay in `raw`.

    Raises:
        PlansError: a key is missing, or the cases' spacings and shapes do not fit together.
    """

    raw: dict[str, Any]
    source: str = "the fingerprint"

    def __post_init__(self) -> None:
        missing = [key for key in _KEYS if key not in self.raw]
        if missing:
            raise PlansError(
                f"{self.source} lacks {', '.join(missing)}; extract it again: nnUNetv2_extract_fingerprint --clean"
            )
        spacings = triples(self.raw["spacings"], f"{self.source}: the spacing")
        shapes = triples(self.raw["shapes_after_crop"], f"{self.source}: the shape")
        if not spacings or len(spacings) != len(shapes):
            raise PlansError(
                f"{self.source} describes {len(spacings)} spacings and {len(shapes)} shapes, "
                "expected one of each per case and at least one case; extract it again with --clean"
            )
        fraction(self.raw["median_relative_size_after_cropping"], f"{self.source}: median_relative_size_after_cropping")
        key = "foreground_intensity_properties_per_channel"
        statistics(self.raw[key], f"{self.source}: {key}")
        for values in (*spacings, *shapes):
            if not all(_SMALLEST <= value <= _LARGEST for value in values):
                raise PlansError(
                    f"{self.source} holds the spacing or shape {values}, expected three positive numbers "
                    f"({_SMALLEST:g} to {_LARGEST:g}); correct that image and extract again with --clean"
                )

    @classmethod
    def from_file(cls, path: PathLike) -> DatasetFingerprint:
        """Read dataset_fingerprint.json. Raises PlansError if it does not exist or is no fingerprint."""
        try:
            raw = load_json(path)
        except FileNotFoundError as error:
            raise PlansError(
                f"There is no {path}; extract the fingerprint first: nnUNetv2_extract_fingerprint "
                f"-d {Path(path).parent.name}"
            ) from error
        except ValueError as error:
            raise PlansError(f"{path} is no JSON file ({error}); extract the fingerprint again with --clean") from error
        if not isinstance(raw, dict):
            raise PlansError(f"{path} holds no JSON object; extract the fingerprint again with --clean")
        return cls(raw, str(path))

    @property
    def spacings(self) -> list[list[float]]:
        """Voxel spacing per case in mm, array axis order (x, y, z)."""
        spacings: list[list[float]] = self.raw["spacings"]
        return spacings

    @property
    def shapes_after_crop(self) -> list[list[int]]:
        """Shape per case after cropping to nonzero, array axis order (x, y, z)."""
        shapes: list[list[int]] = self.raw["shapes_after_crop"]
        return shapes

    @property
    def median_relative_size_after_cropping(self) -> float:
        """Median over cases of voxels after / before cropping to nonzero."""
        return float(self.raw["median_relative_size_after_cropping"])

    @property
    def intensity_properties(self) -> dict[str, dict[str, float]]:
        """Foreground intensity statistics per channel ("0", "1", ...)."""
        properties: dict[str, dict[str, float]] = self.raw["foreground_intensity_properties_per_channel"]
        return properties
