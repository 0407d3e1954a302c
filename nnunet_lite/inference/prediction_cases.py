"""Which cases a prediction is about: folders, lists of files, single files; their outputs; what is done already."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.inference.data_iterators import CaseToPredict
from nnunet_lite.inference.missing_images import refuse_missing
from nnunet_lite.inference.output_conflicts import is_same_folder
from nnunet_lite.inference.output_names import refuse_endings, refuse_other_ending
from nnunet_lite.plans.dataset_json import image_channels
from nnunet_lite.plans.raw_dataset import list_image_cases
from nnunet_lite.utilities.files import PathLike
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.wording import counted

Source = PathLike | Sequence[Sequence[str]]
Output = PathLike | Sequence[str] | None


def find_cases(source: Source, output: Output, dataset_json: Mapping[str, Any]) -> list[CaseToPredict]:
    """The cases of a source with their outputs, in order.

    Args:
        source: a folder of `CASE_0000.ending` files, one image file, or a list with the files of each case.
        output: a folder, a list of paths without file ending (one per case), for a single case also the path of the
            file to write, or None.
        dataset_json: of the model; its file_ending and channel_names count.

    Raises:
        DatasetError: no images, misnamed or missing files; names them.
        ArgumentError: outputs that do not fit the cases.
    """
    ending = str(dataset_json["file_ending"])
    files = _image_files(source, ending, is_same_folder(source, output))
    names = [case_name(images[0], ending) for images in files]
    outputs = _outputs(output, names, ending)
    _check_channels(dict(zip(names, files, strict=True)), dataset_json)
    return [
        CaseToPredict(name, images, None, None, target)
        for name, images, target in zip(names, files, outputs, strict=True)
    ]


def with_previous_stage(case: CaseToPredict, folder: PathLike, ending: str) -> CaseToPredict:
    """The case with the previous stage's segmentation in `folder`, named as the case or else as its own output.

    Raises:
        DatasetError: there is none.
    """
    named = Path(folder) / f"{case.name}{ending}"
    file = named if case.output is None else Path(folder) / f"{Path(case.output).name}{ending}"
    file = named if named.is_file() else file
    if not file.is_file():
        raise DatasetError(
            f"{case.name}: the previous stage's segmentation {file} does not exist; predict it first with the "
            "configuration before this one"
        )
    return case._replace(previous=str(file))


def array_cases(images: Any, previous: Any, properties: Any, outputs: Any) -> list[CaseToPredict]:
    """Cases from arrays, single ones or lists of equal length. Raises ArgumentError."""
    if not isinstance(images, (list, tuple)):
        images, previous, properties, outputs = [images], [previous], [properties], [outputs]
    empty = [None] * len(images)
    columns = [images, empty if previous is None else previous, properties, empty if outputs is None else outputs]
    if len({len(column) for column in columns}) > 1:
        raise ArgumentError(
            f"{len(images)} images, {len(columns[1])} previous segmentations, {len(properties)} properties and "
            f"{len(columns[3])} outputs were given; expected as many of each"
        )
    return [
        CaseToPredict(Path(output).name if output else f"image {number}", image, seg, own, output)
        for number, (image, seg, own, output) in enumerate(zip(*columns, strict=True))
    ]


def case_name(file: str, ending: str) -> str:
    """File name without its ending and channel number, where it has one."""
    stem = Path(file).name
    stem = stem[: -len(ending)] if stem.endswith(ending) else stem.split(".")[0]
    return re.sub(r"_\d{4}$", "", stem)


def output_folder(output: Output, ending: str) -> Path | None:
    """The folder that gets plans.json and the like; None where nothing is written."""
    if output is None:
        return None
    if isinstance(output, (list, tuple)):
        return Path(output[0]).parent if output else None
    path = Path(_as_path(output))
    return path.parent if path.name.endswith(ending) else path


def is_done(case: CaseToPredict, ending: str, reader: Any, with_probabilities: bool) -> bool:
    """Whether a case's outputs exist and are intact; a damaged one is mentioned and predicted again."""
    if case.output is None:
        return False
    file, probabilities, properties = (Path(f"{case.output}{end}") for end in (ending, ".npz", ".pkl"))
    if not file.is_file() or (with_probabilities and not (probabilities.is_file() and properties.is_file())):
        return False
    damaged = None
    try:
        reader.read_seg(str(file))
    except Exception:  # a reader of the user's may raise anything; whatever it is, the file is no good
        damaged = file
    if damaged is None and with_probabilities and not _zip_is_intact(probabilities):
        damaged = probabilities
    if damaged is not None:
        logger.warning("%s is damaged; the case is predicted again", damaged)
    return damaged is None


def _zip_is_intact(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError):
        return False


def _as_path(value: Any) -> PathLike:
    path: PathLike = value
    return path


def _image_files(source: Source, ending: str, segmentations_expected: bool) -> list[list[str]]:
    if isinstance(source, (list, tuple)):
        files = [
            [str(file) for file in ([images] if isinstance(images, (str, os.PathLike)) else images)]
            for images in source
        ]
        missing = [file for images in files for file in images if not Path(file).is_file()]
        if missing or not all(files):
            raise DatasetError(
                f"Input files do not exist: {', '.join(missing[:5])}"
                if missing
                else "A case in the list of inputs has no files"
            )
        return files
    path = Path(_as_path(source))
    if path.is_file():
        if not path.name.endswith(ending):
            raise DatasetError(f"{path}: this model reads {ending} files; convert the image, or give a folder of them")
        return [[str(path)]]
    refuse_missing(path, ending)
    return list(list_image_cases(path, ending, with_segmentations=True, say_so=not segmentations_expected).values())


def _outputs(output: Output, names: list[str], ending: str) -> list[str | None]:
    if output is None:
        return [None] * len(names)
    if isinstance(output, (list, tuple)):
        if len(output) != len(names):
            raise ArgumentError(f"{len(output)} outputs were given for {len(names)} cases; expected one for each")
        targets = [str(Path(target)) for target in output]
        refuse_endings(targets, ending)
        _require_distinct(targets, "the list of outputs")
        return list(targets)
    path = Path(_as_path(output))
    if path.name.endswith(ending):
        if len(names) != 1:
            raise ArgumentError(f"The output {path} is a file, but there are {len(names)} cases; give a folder")
        return [str(path)[: -len(ending)]]
    refuse_other_ending(path, ending)
    _require_distinct(names, str(path))
    return [str(path / name) for name in names]


def _require_distinct(names: Sequence[str], where: str) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ArgumentError(f"Several cases would be written to the same file in {where}: {', '.join(twice[:5])}")


def _check_channels(files: Mapping[str, Sequence[str]], dataset_json: Mapping[str, Any]) -> None:
    channels = image_channels(dataset_json)
    for name, images in files.items():
        if len(images) not in (1, len(channels)):
            raise DatasetError(
                f"{name}: {counted(len(images), 'image file')}, but the model was trained with "
                f"{counted(len(channels), 'channel')} "
                f"({', '.join(channels)}): {', '.join(Path(file).name for file in images)}"
            )
