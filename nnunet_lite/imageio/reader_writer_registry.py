"""Which reader reads which files: by name from dataset.json, else by file ending and a look at an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_lite.exceptions import DatasetError, ExtensionError
from nnunet_lite.extensions import find_class
from nnunet_lite.imageio.base_reader_writer import BaseReaderWriter
from nnunet_lite.utilities.logging import logger

# In the order they are tried. The endings stand here again so that a reader nobody needs is not imported.
READERS_BY_ENDING: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("NaturalImage2DIO", (".png", ".bmp", ".tif")),
    ("SimpleITKIO", (".nii.gz", ".nrrd", ".mha", ".gipl")),
    ("Tiff3DIO", (".tif", ".tiff")),
    ("NibabelIO", (".nii", ".nii.gz")),
    ("NibabelIOWithReorient", (".nii", ".nii.gz")),
)

# What to do about files that users often have.
_ADVICE = {
    (".jpg", ".jpeg"): "Lossy compression changes labels; save images and labels as .png",
    (".dcm", ".ima"): "Convert every DICOM series to one .nii.gz file (dcm2niix, or SimpleITK.ImageSeriesReader)",
    (
        ".mhd",
        ".nhdr",
        ".hdr",
        ".img",
    ): "Of formats with two files per image take the one with one: .mha, .nrrd, .nii.gz",
    (".gz", "nii.gz", "nii", "png", "tif", "mha", "nrrd"): "file_ending is the whole ending, with its dot: .nii.gz",
}
_OTHERWISE = "Convert the images, or name a reader of your own under overwrite_image_reader_writer in dataset.json"


def find_reader_writer(name: str) -> type[BaseReaderWriter]:
    """The reader of this name: built in, the user's own, or from an entry point. Raises ExtensionError."""
    found: type[BaseReaderWriter] = find_class("reader_writer", name)
    return found


def determine_reader_writer_from_dataset_json(
    dataset_json_content: Mapping[str, Any],
    example_file: str | None = None,
    allow_nonmatching_filename: bool = False,
    verbose: bool = False,
) -> type[BaseReaderWriter]:
    """The reader that dataset.json names under `overwrite_image_reader_writer`, else the one its ending asks for.

    An unknown name is warned about and passed over (nnU-Net v2 2.8.1 behaviour).

    Raises:
        DatasetError: no reader fits.
    """
    name = dataset_json_content.get("overwrite_image_reader_writer")
    if name is not None and name != "None":
        try:
            reader = find_reader_writer(str(name))
        except ExtensionError as error:
            logger.warning("overwrite_image_reader_writer in dataset.json is passed over: %s", error)
        else:
            _log_choice(reader.__name__, verbose)
            return reader
    ending = dataset_json_content.get("file_ending")
    if not isinstance(ending, str):
        raise DatasetError(f'dataset.json: "file_ending" is {ending!r}; expected a text such as ".nii.gz"')
    return determine_reader_writer_from_file_ending(ending, example_file, allow_nonmatching_filename, verbose)


def determine_reader_writer_from_file_ending(
    file_ending: str, example_file: str | None = None, allow_nonmatching_filename: bool = False, verbose: bool = False
) -> type[BaseReaderWriter]:
    """The first reader for this ending that understands the header of the example.

    Args:
        file_ending: with its dot.
        example_file: an image to try; without it the first reader for the ending is taken.
        allow_nonmatching_filename: try readers of other endings on the example, too.
        verbose: log the choice.

    Raises:
        DatasetError: there is no such reader, or none can read the example (with the first reason).
    """
    ending = file_ending.lower()
    reasons = []
    for name, endings in READERS_BY_ENDING:
        matches = ending in endings
        if not matches and not (allow_nonmatching_filename and example_file is not None):
            continue
        if example_file is not None:
            try:
                find_reader_writer(name)().read_header(example_file)
            except DatasetError as error:
                if matches:
                    reasons.append((name, str(error)))
                continue
        _log_choice(name, verbose)
        return find_reader_writer(name)
    if reasons:
        names = ", ".join(name for name, _ in reasons)
        raise DatasetError(f"No reader for {file_ending} ({names}) can read this image: {reasons[0][1]}")
    known = sorted({known for _, endings in READERS_BY_ENDING for known in endings})
    advice = next((text for endings, text in _ADVICE.items() if ending in endings), _OTHERWISE)
    raise DatasetError(
        f"There is no reader for files ending in {file_ending!r}; known are {', '.join(known)}. {advice}"
    )


def _log_choice(name: str, verbose: bool) -> None:
    if verbose:
        logger.info("Images are read and written by %s", name)
