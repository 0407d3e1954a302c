"""DefaultPreprocessor: one case from image files to what the network sees, and all cases of a dataset."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.configuration import cpu_count, usable_processes
from nnunet_lite.exceptions import DatasetError, PathError, StorageError, nnUNetError
from nnunet_lite.extensions import find_class
from nnunet_lite.imageio.base_reader_writer import as_labels
from nnunet_lite.imageio.case_properties import CaseProperties
from nnunet_lite.paths import nnUNet_preprocessed
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.dataset_json import DatasetJson
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.plans_manager import PlansManager, plans_file
from nnunet_lite.plans.raw_dataset import RawDataset, maybe_convert_to_dataset_name
from nnunet_lite.preprocessing.foreground_locations import LabelOrRegion, sample_foreground_locations
from nnunet_lite.preprocessing.geometry import network_spacing, to_network_space, transposed_spacing
from nnunet_lite.preprocessing.resampling import compute_new_shape
from nnunet_lite.preprocessing.resume import FinishedCases, case_signature, estimate_memory
from nnunet_lite.utilities.files import PathLike
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.memory import format_size, memory_limit
from nnunet_lite.utilities.parallel import Outcome, Task, collect, run_tasks
from nnunet_lite.utilities.parts import WHOLE
from nnunet_lite.utilities.wording import counted

PreprocessedCase = tuple[NDArray[np.float32], NDArray[np.integer[Any]] | None, CaseProperties]


class DefaultPreprocessor:
    """Transpose, crop, normalize, resample, in this order (nnU-Net v2 2.8.1 behaviour and method names).

    A preprocessor of one's own derives from this, overrides `modify_seg_fn` or more, and is named in the plans.

    Args:
        verbose: log the shapes and spacings of every case.
    """

    def __init__(self, verbose: bool = True) -> None:
        self.verbose = verbose
        self.num_threads = 1  # for compression
        self.show_progress = True
        self.max_ram: int | None = None  # bytes that all workers may take together
        self.part = WHOLE  # of the dataset's cases: the one that `run` works on

    def run_case_npy(
        self,
        data: NDArray[Any],
        seg: NDArray[Any] | None,
        properties: CaseProperties,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: Mapping[str, Any] | str,
        *,
        with_class_locations: bool = True,
    ) -> PreprocessedCase:
        """Preprocess arrays as a reader gives them; none of the arguments is changed.

        Args:
            data: (c, x, y, z).
            seg: (1, x, y, z): reference labels in training, a previous stage's segmentation in a cascade, or None.
            properties: must have `spacing`.
            dataset_json: content or path of dataset.json.
            with_class_locations: False where a seg is no reference (cascade prediction).

        Returns:
            Data (c, x, y, z) float32, seg (1, x, y, z) int8 or int16 with -1 outside the nonzero region, or None if
            none was given, both at target spacing; properties with the steps taken.

        Raises:
            DatasetError: shapes that differ, NaN or infinite values, labels that do not fit.
        """
        return self._run(
            np.array(data, np.float32),
            seg,
            properties,
            plans_manager,
            configuration_manager,
            _as_dict(dataset_json),
            with_class_locations,
        )

    def run_case(
        self,
        image_files: Sequence[str],
        seg_file: str | None,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: Mapping[str, Any] | str,
        *,
        with_class_locations: bool = True,
    ) -> PreprocessedCase:
        """Read a case and preprocess it; see `run_case_npy`. Errors name the case's first file."""
        reader = plans_manager.image_reader_writer_class()
        data, properties = reader.read_images(list(image_files))
        seg = None if seg_file is None else reader.read_seg(seg_file)[0]
        with _naming(image_files[0]):
            if type(self).run_case_npy is not DefaultPreprocessor.run_case_npy:  # one's own, with upstream's arguments
                return self.run_case_npy(data, seg, properties, plans_manager, configuration_manager, dataset_json)
            return self._run(
                data,
                seg,
                properties,
                plans_manager,
                configuration_manager,
                _as_dict(dataset_json),
                with_class_locations,
            )

    def run_case_save(
        self,
        output_filename_truncated: PathLike,
        image_files: Sequence[str],
        seg_file: str,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: Mapping[str, Any] | str,
    ) -> None:
        """Read, preprocess and store a training case as `<output_filename_truncated>.b2nd`, `_seg.b2nd` and `.pkl`."""
        data, seg, properties = self.run_case(image_files, seg_file, plans_manager, configuration_manager, dataset_json)
        if seg is None:
            raise DatasetError(f"{image_files[0]}: no labels to store")
        from nnunet_lite.preprocessing.blosc2_layout import comp_blosc2_params  # blosc2 takes 0.2 s to import, and
        from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2  # predictions do without it

        patch = configuration_manager.patch_size
        blocks, chunks = comp_blosc2_params(data.shape, patch, bytes_per_pixel=4)
        blocks_seg, chunks_seg = comp_blosc2_params(seg.shape, patch, bytes_per_pixel=2)
        nnUNetDatasetBlosc2.save_case(
            data,
            seg,
            dict(properties),
            output_filename_truncated,
            chunks=chunks,
            blocks=blocks,
            chunks_seg=chunks_seg,
            blocks_seg=blocks_seg,
            nthreads=self.num_threads,
        )

    def run(
        self, dataset_name_or_id: int | str, configuration_name: str, plans_identifier: str, num_processes: int
    ) -> None:
        """Preprocess all training cases of a dataset (or those of `self.part`) for one configuration.

        Cases that are stored already, from the same files and by the same plans, are kept, so running again resumes;
        cases that left the dataset are removed.

        Args:
            num_processes: background processes; 0 works in this one.

        Raises:
            PathError, PlansError, DatasetError: something that is needed is missing or wrong.
            StorageError: the disk is full; ends the run at once.
            WorkerError: lists the cases that failed, after all others were finished.
        """
        name = maybe_convert_to_dataset_name(dataset_name_or_id)
        dataset_json = _preprocessed_dataset_json(name)
        dataset = RawDataset.load(name)
        plans_manager = PlansManager(plans_file(dataset.name, plans_identifier))
        configuration_manager = plans_manager.get_configuration(configuration_name)
        folder = nnUNet_preprocessed / dataset.name / configuration_manager.data_identifier
        _check_cases(dataset)

        finished = FinishedCases(folder, self.part)
        finished.remove_all_but(list(dataset.cases))
        signatures = {
            case.identifier: case_signature(
                [*case.images, str(case.label)], plans_manager, configuration_manager, dataset_json
            )
            for case in self.part.of(dataset.cases.values())
        }
        missing = [
            identifier for identifier, signature in signatures.items() if not finished.has(identifier, signature)
        ]
        if len(missing) < len(signatures):
            logger.info(
                "%s %s: %d of %d cases are preprocessed already",
                dataset.name,
                configuration_name,
                len(signatures) - len(missing),
                len(signatures),
            )
        num_processes = usable_processes(num_processes)
        self.num_threads = max(1, cpu_count() // max(1, min(num_processes, len(missing))))
        tasks = [
            Task(
                identifier,
                _run_case_save,
                (
                    self,
                    str(folder / identifier),
                    dataset.cases[identifier].images,
                    dataset.cases[identifier].label,
                    plans_manager,
                    configuration_manager,
                    dataset_json,
                ),
                estimate_memory(dataset.cases[identifier].images, plans_manager, configuration_manager),
            )
            for identifier in missing
        ]
        tasks.sort(key=lambda task: -task.memory)
        outcomes = run_tasks(
            tasks,
            num_processes,
            description="Preprocessing cases",
            show_progress=self.show_progress and bool(tasks),
            max_ram=self.max_ram,
        )
        collect(_note(outcomes, finished, signatures))

    def modify_seg_fn(
        self,
        seg: NDArray[Any],
        plans_manager: PlansManager,
        dataset_json: Mapping[str, Any],
        configuration_manager: ConfigurationManager,
    ) -> NDArray[Any]:
        """Hook: change the resampled training labels (1, x, y, z) before they are stored; returns them as they are."""
        return seg

    def _run(
        self,
        data: NDArray[np.float32],
        seg: NDArray[Any] | None,
        properties: CaseProperties,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        dataset_json: Mapping[str, Any],
        with_class_locations: bool,
    ) -> PreprocessedCase:
        """As `run_case_npy`, but the data belongs to this method and is normalized in place."""
        label_manager = plans_manager.get_label_manager(dataset_json)
        transpose = plans_manager.transpose_forward
        has_seg = seg is not None
        _require_sound(data, properties)
        if seg is not None:
            _require_same_shape(data, seg)
            seg = _as_small_labels(seg, label_manager)
        case = to_network_space(
            data, seg, properties, transpose, mark_outside=has_seg or any(configuration_manager.use_mask_for_norm)
        )
        data, mask, properties = case

        own_spacing = transposed_spacing(properties, transpose)
        target_spacing = network_spacing(configuration_manager.spacing, own_spacing)
        new_shape = compute_new_shape(data.shape[1:], own_spacing, target_spacing)
        _require_memory(data.shape, new_shape, own_spacing, target_spacing)
        data = self._normalize(
            data, mask, configuration_manager, plans_manager.foreground_intensity_properties_per_channel
        )
        data = configuration_manager.resampling_fn_data(data, new_shape, own_spacing, target_spacing)
        if self.verbose:
            logger.info(
                "shape %s, spacing %s -> shape %s, spacing %s",
                properties["shape_before_cropping"],
                own_spacing,
                data.shape[1:],
                target_spacing,
            )
        if not has_seg or mask is None:
            return np.ascontiguousarray(data, np.float32), None, properties
        seg = configuration_manager.resampling_fn_seg(mask, new_shape, own_spacing, target_spacing)
        if with_class_locations:
            properties["class_locations"] = self._sample_foreground_locations(seg, _requests(label_manager))
        seg = self.modify_seg_fn(seg, plans_manager, dataset_json, configuration_manager)
        seg = seg.astype(np.int16 if seg.max() > 127 else np.int8, copy=False)
        return np.ascontiguousarray(data, np.float32), np.ascontiguousarray(seg), properties

    @staticmethod
    def _sample_foreground_locations(
        seg: NDArray[Any], classes_or_regions: Sequence[LabelOrRegion], **kwargs: Any
    ) -> dict[Any, Any]:
        return dict(sample_foreground_locations(seg, classes_or_regions, **kwargs))

    def _normalize(
        self,
        data: NDArray[np.float32],
        seg: NDArray[Any] | None,
        configuration_manager: ConfigurationManager,
        foreground_intensity_properties_per_channel: Mapping[str, Any],
    ) -> NDArray[np.float32]:
        """Normalize (c, x, y, z) in place, every channel by its scheme; `seg` (1, x, y, z) is negative outside."""
        schemes = configuration_manager.normalization_schemes
        if len(schemes) != data.shape[0]:
            raise DatasetError(
                f"the image has {counted(data.shape[0], 'channel')}, the plans know {len(schemes)} "
                f"({', '.join(schemes)}); add or remove channel files, or plan the dataset again"
            )
        for channel, (name, use_mask) in enumerate(zip(schemes, configuration_manager.use_mask_for_norm, strict=True)):
            image = data[channel]
            if not np.isfinite(image.min()) or not np.isfinite(image.max()):
                raise DatasetError(f"channel {channel} holds NaN or infinite values; replace them in the image")
            scheme = find_class("normalization", name)(
                use_mask_for_norm=use_mask,
                intensityproperties=foreground_intensity_properties_per_channel.get(str(channel)),
            )
            normalized = scheme.run(image, None if seg is None else seg[0])
            if normalized is not image:
                data[channel] = normalized
        return data


def _run_case_save(preprocessor: DefaultPreprocessor, *args: Any) -> None:
    """Task of a worker."""
    preprocessor.run_case_save(*args)


def _note(outcomes: Iterator[Outcome], finished: FinishedCases, signatures: Mapping[str, str]) -> Iterator[Outcome]:
    """Pass outcomes on and remember what is finished; a full disk would fail every further case, so it ends the run."""
    for outcome in outcomes:
        if isinstance(outcome.error, StorageError):
            raise outcome.error
        if outcome.error is None:
            finished.add(outcome.name, signatures[outcome.name])
        yield outcome


def _requests(label_manager: LabelManager) -> list[LabelOrRegion]:
    """Classes whose voxels are stored: foreground labels or regions, and the annotated area beside an ignore label."""
    requests: list[LabelOrRegion] = list(
        label_manager.foreground_regions if label_manager.has_regions else label_manager.foreground_labels
    )
    if label_manager.has_ignore_label:
        requests.append((-1, *label_manager.all_labels))
    return requests


def _as_small_labels(seg: NDArray[Any], label_manager: LabelManager) -> NDArray[Any]:
    """Labels as int8 or int16 (without a copy where the bits are the same), checked against dataset.json."""
    seg = as_labels(seg, "the segmentation")
    low, high = int(seg.min()), int(seg.max())
    known = max([*label_manager.all_labels, label_manager.ignore_label or 0])
    if low < -1 or high > known:
        raise DatasetError(
            f"the segmentation holds label {low if low < -1 else high}, dataset.json knows labels up to "
            f"{known}; correct the segmentation or add the label to dataset.json and plan again"
        )
    if high > np.iinfo(np.int16).max:
        raise DatasetError(
            f"label {high} is too large to be stored, expected at most {np.iinfo(np.int16).max}; renumber the labels"
        )
    if seg.dtype == np.uint8 and high <= 127:
        return seg.view(np.int8)
    return seg.astype(np.int8 if high <= 127 else np.int16, copy=False)


def _require_same_shape(data: NDArray[Any], seg: NDArray[Any]) -> None:
    if seg.shape != (1, *data.shape[1:]):
        raise DatasetError(
            f"image and segmentation differ in shape: {tuple(data.shape[1:])} and "
            f"{tuple(seg.shape[1:]) if seg.shape[:1] == (1,) else seg.shape}, expected (1, x, y, z) for (c, x, y, z); "
            "resample one of them to the other"
        )


def _require_sound(data: NDArray[Any], properties: CaseProperties) -> None:
    """Refuse arrays without voxels and spacings that are none; readers give neither, callers of the array API may."""
    if data.ndim != 4 or data.size == 0:
        raise DatasetError(f"the image has shape {data.shape}, expected (c, x, y, z) with at least one voxel")
    spacing = properties.get("spacing", ())
    if len(spacing) != 3 or not all(0 < float(step) < np.inf for step in spacing):
        raise DatasetError(
            f"the image has the spacing {list(spacing)}, expected three positive numbers (mm, in the array's axis "
            "order); correct its header"
        )


def _require_memory(
    shape: Sequence[int], new_shape: Sequence[int], spacing: Sequence[float], target_spacing: Sequence[float]
) -> None:
    """Refuse what cannot be held, which a wrong unit of spacing (m or um for mm) asks for."""
    needed = 4 * shape[0] * math.prod(new_shape)
    if needed > memory_limit():
        raise DatasetError(
            f"resampling from spacing {spacing} to {target_spacing} would turn shape {tuple(shape[1:])} into "
            f"{tuple(new_shape)}, which takes {format_size(needed)}; correct the spacing of the image or of the plans"
        )


def _check_cases(dataset: RawDataset) -> None:
    """Refuse what could not be stored: no cases, or cases without labels."""
    if not dataset.cases:
        raise DatasetError(f"{dataset.name} has no training cases in imagesTr; add images and labels")
    for identifier, case in dataset.cases.items():
        if case.label is None or not Path(case.label).is_file():
            raise DatasetError(
                f"{dataset.name}: case {identifier!r} has no label file ({case.label}); add it to labelsTr"
            )


def _preprocessed_dataset_json(dataset_name: str) -> dict[str, Any]:
    file = nnUNet_preprocessed / dataset_name / "dataset.json"
    if not file.is_file():
        raise PathError(f"{file} is missing; plan the dataset first: nnUNetv2_plan_and_preprocess -d {dataset_name}")
    return dict(DatasetJson.from_file(file).raw)


def _as_dict(dataset_json: Mapping[str, Any] | str) -> Mapping[str, Any]:
    return DatasetJson.from_file(dataset_json).raw if isinstance(dataset_json, (str, os.PathLike)) else dataset_json


@contextmanager
def _naming(image_file: str) -> Iterator[None]:
    """Put the case's first file in front of messages that do not know it."""
    try:
        yield
    except nnUNetError as error:
        if image_file in str(error):
            raise
        raise type(error)(f"{image_file}: {error}") from error
