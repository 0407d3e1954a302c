"""What can be wrong with a dataset that is to be converted, in the words of the integrity check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.plans.faults import Fault


def unreadable_image(case: str, error: DatasetError) -> Fault:
    """A file that cannot be read; the error names it and says what to do."""
    return Fault("image-unreadable", str(error), case=case, repair="see the message")


def broken_link(file: Path) -> Fault:
    """A link to nothing."""
    return Fault("file-broken-link", f"{file} is a link that leads nowhere")


def missing_label(case: str, file: Path) -> Fault:
    """An image without a label map."""
    return Fault("label-missing", f"there is no label map {file}", case=case)


def missing_image(case: str, file: Path) -> Fault:
    """A label map without an image."""
    return Fault("image-missing", f"there is no image {file}", case=case)


def wrong_channels(case: str, who: str, count: int, unit: str, names: Sequence[str]) -> Fault:
    """Another number of channels than dataset.json names."""
    found = f"{who} {count} {unit}{'s' if count > 1 else ''}, but dataset.json names {len(names)}"
    return Fault("channel-count", f"{found} channel{'s' if len(names) > 1 else ''} ({', '.join(names)})", case=case)


def no_files(folder: Path, ending: str) -> Fault:
    """A folder without a single image."""
    advice = "check the path, or extract the archive again"
    return Fault("no-cases", f"{folder} holds no files ending in {ending}", repair=advice)
