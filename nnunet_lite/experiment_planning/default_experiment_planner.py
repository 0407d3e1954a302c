"""ExperimentPlanner: from a fingerprint to plans, by arithmetic on shapes; needs neither torch nor images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nnunet_lite.configuration import ANISO_THRESHOLD
from nnunet_lite.experiment_planning.network_topology import NetworkTopology, estimate_feature_maps, repeat_last
from nnunet_lite.experiment_planning.patch_size_search import can_be_pooled, find_patch_size
from nnunet_lite.experiment_planning.plan_documents import (
    AUTOMATIC_CASCADE,
    copy_dataset_documents,
    dataset_json_file,
    save_plans_file,
)
from nnunet_lite.experiment_planning.planning_rules import (
    ConfigurationNotes,
    TargetSpacing,
    checked_memory_target,
    checked_plans_name,
    checked_target_spacing,
    choose_batch_size,
    choose_target_spacing,
    plain_numbers,
    resampled_shapes,
)
from nnunet_lite.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunet_lite.paths import nnUNet_preprocessed, nnUNet_raw
from nnunet_lite.plans.dataset_json import DatasetJson
from nnunet_lite.plans.fingerprint import DatasetFingerprint
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.migrations import KWARGS_REQUIRING_IMPORT, UNET_MODULE, convolution_modules
from nnunet_lite.plans.plans_manager import load_plans
from nnunet_lite.plans.raw_dataset import (
    RawDataset,
    get_filenames_of_train_images_and_targets,
    maybe_convert_to_dataset_name,
)
from nnunet_lite.utilities.logging import logger

channel_name_to_normalization_mapping = {
    "ct": "CTNormalization",
    "nonorm": "NoNormalization",
    "zscore": "ZScoreNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}
_DEFAULT_NORMALIZATION = "ZScoreNormalization"

Resampling = tuple[str, dict[str, Any]]  # function name and its keyword arguments


class ExperimentPlanner:
    """Plans 2d, 3d_fullres and, for large images, 3d_lowres with its cascade (nnU-Net v2 2.8.1 behaviour and names).

    A planner of one's own overrides the attributes below (in the class, or after `super().__init__`) or single
    `determine_*` methods. Spacings and shapes are in mm and voxels; "transposed" means that the axis of lowest
    resolution comes first.

    Args:
        dataset_name_or_id: a raw dataset whose fingerprint has been extracted.
        gpu_memory_target_in_gb: GPU memory to plan for; None is the planner's default.
        preprocessor_name: class stored in the plans.
        plans_name: identifier of the plans; None is the planner's default.
        overwrite_target_spacing: spacing of 3d_fullres in the images' axis order; the other configurations follow.
        suppress_transpose: keep the images' axis order.

    Raises:
        DatasetError, PlansError: the dataset, its dataset.json or its fingerprint are missing or unusable.
        ArgumentError: a target spacing that is not three positive numbers, a memory target that is not positive.
    """

    default_plans_name = "nnUNetPlans"
    default_gpu_memory_target_in_gb: float = 8

    UNet_class: Any = f"{UNET_MODULE}.PlainConvUNet"
    UNet_base_num_features = 32
    UNet_max_features_2d = 512
    UNet_max_features_3d = 320
    UNet_blocks_per_stage_encoder: Sequence[int] = (2,) * 14
    UNet_blocks_per_stage_decoder: Sequence[int] = (2,) * 13
    UNet_featuremap_min_edge_length = 4
    UNet_min_batch_size = 2
    UNet_max_batch_size: int | None = None
    """Upper limit of the batch size; none by default, as upstream."""

    UNet_reference_val_3d: float = 560_000_000
    UNet_reference_val_2d: float = 85_000_000
    UNet_reference_val_corresp_GB: float = 8
    UNet_reference_val_corresp_bs_2d = 12
    UNet_reference_val_corresp_bs_3d = 2
    patch_must_fit_reference_batch_size = False
    """Shrink the patch until the reference batch size fits (True), or only until the minimum one does (False)."""

    max_dataset_covered = 0.05
    lowres_creation_threshold = 0.25
    anisotropy_threshold: float = ANISO_THRESHOLD

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float | None = None,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str | None = None,
        overwrite_target_spacing: Sequence[float] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        self.dataset_name = maybe_convert_to_dataset_name(dataset_name_or_id)
        self.raw_dataset_folder = str(nnUNet_raw / self.dataset_name)
        self.preprocessed_folder = str(nnUNet_preprocessed / self.dataset_name)
        self.declared = DatasetJson.from_file(dataset_json_file(self.raw_dataset_folder, self.preprocessed_folder))
        self.dataset_json: dict[str, Any] = dict(self.declared.raw)
        self.fingerprint = DatasetFingerprint.from_file(Path(self.preprocessed_folder) / "dataset_fingerprint.json")
        self.dataset_fingerprint = self.fingerprint.raw
        self.UNet_vram_target_GB = checked_memory_target(gpu_memory_target_in_gb, self.default_gpu_memory_target_in_gb)
        self.preprocessor_name = preprocessor_name
        self.plans_identifier = checked_plans_name(self.default_plans_name if plans_name is None else plans_name)
        self.overwrite_target_spacing = checked_target_spacing(overwrite_target_spacing)
        self.suppress_transpose = suppress_transpose
        self.plans: dict[str, Any] | None = None
        self.dry_run = False
        self.notes: dict[tuple[float, ...], ConfigurationNotes] = {}
        LabelManager(self.declared.labels, self.declared.regions_class_order).require_consecutive_labels()

    @cached_property
    def dataset(self) -> dict[str, dict[str, Any]]:
        """Case -> {"images": [file, ...], "label": file} of the raw dataset."""
        return get_filenames_of_train_images_and_targets(self.raw_dataset_folder, self.dataset_json)

    # decisions, each to be overridden alone

    def determine_reader_writer(self) -> Any:
        """Class that reads this dataset's images: by dataset.json and the first image, if there are images here."""
        return determine_reader_writer_from_dataset_json(self.dataset_json, self.example_image)

    @cached_property
    def example_image(self) -> str | None:
        """First image of the first case; None where there are no raw images."""
        if not (Path(self.raw_dataset_folder) / "dataset.json").is_file():
            return None
        cases = RawDataset.scan(self.raw_dataset_folder).cases
        return next((case.images[0] for case in cases.values() if case.images), None)

    def determine_resampling(self, *args: Any, **kwargs: Any) -> tuple[str, dict[str, Any], str, dict[str, Any]]:
        """Resampling of images and of label maps: function name and keyword arguments, twice."""
        name = "resample_data_or_seg_to_shape"
        common = {"order_z": 0, "force_separate_z": None}
        return name, {"is_seg": False, "order": 3, **common}, name, {"is_seg": True, "order": 1, **common}

    def determine_segmentation_softmax_export_fn(self, *args: Any, **kwargs: Any) -> Resampling:
        """Resampling of logits: function name and keyword arguments."""
        return "resample_data_or_seg_to_shape", {
            "is_seg": False,
            "order": 1,
            "order_z": 0,
            "force_separate_z": None,
        }

    def choose_target_spacing(self) -> TargetSpacing:
        """Target spacing of 3d_fullres and the rule it follows from."""
        if self.overwrite_target_spacing is not None:
            return TargetSpacing(np.array(self.overwrite_target_spacing), "given by overwrite_target_spacing")
        return choose_target_spacing(
            self.fingerprint.spacings, self.fingerprint.shapes_after_crop, self.anisotropy_threshold
        )

    def determine_fullres_target_spacing(self) -> Any:
        """Target spacing of 3d_fullres in the images' axis order, array of 3.

        Per-axis median; for datasets with one coarse axis, its 10th percentile, so that thin slices keep their detail.
        """
        return self.choose_target_spacing().spacing

    def determine_normalization_scheme_and_whether_mask_is_used_for_norm(self) -> tuple[list[str], list[bool]]:
        """Per channel, in numeric order: normalization class, and whether it looks at the nonzero mask only."""
        schemes = [
            channel_name_to_normalization_mapping.get(name.casefold(), _DEFAULT_NORMALIZATION)
            for name in self.declared.channel_names
        ]
        cropped = self.fingerprint.median_relative_size_after_cropping < 3 / 4
        return schemes, [cropped and scheme == "ZScoreNormalization" for scheme in schemes]

    def determine_transpose(self) -> tuple[list[int], list[int]]:
        """Axis order that puts the coarsest axis first, and its inverse."""
        if self.suppress_transpose:
            return [0, 1, 2], [0, 1, 2]
        coarse = int(np.argmax(self.determine_fullres_target_spacing()))
        forward = [coarse, *(axis for axis in range(3) if axis != coarse)]
        return forward, [forward.index(axis) for axis in range(3)]

    def generate_data_identifier(self, configuration_name: str) -> str:
        """Folder name of the preprocessed cases of a configuration; equal names share their cases."""
        return f"{self.plans_identifier}_{configuration_name}"

    # one configuration

    def architecture_kwargs(self, topology: NetworkTopology) -> dict[str, Any]:
        """Arguments of the network class for a topology, as they stand in plans."""
        dim, stages = len(topology.patch_size), topology.n_stages
        maximum = self.UNet_max_features_2d if dim == 2 else self.UNet_max_features_3d
        blocks = "n_conv_per_stage" if "Residual" not in self._network_class_name else "n_blocks_per_stage"
        return {
            "n_stages": stages,
            "features_per_stage": [min(maximum, self.UNet_base_num_features * 2**i) for i in range(stages)],
            "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
            "kernel_sizes": [list(kernel) for kernel in topology.kernel_sizes],
            "strides": [list(stride) for stride in topology.strides],
            blocks: repeat_last(self.UNet_blocks_per_stage_encoder, stages),
            "n_conv_per_stage_decoder": repeat_last(self.UNet_blocks_per_stage_decoder, stages - 1),
            **convolution_modules(dim),
        }

    @property
    def _network_class_name(self) -> str:
        named = self.UNet_class
        return named if isinstance(named, str) else f"{named.__module__}.{named.__qualname__}"

    def estimate(self, topology: NetworkTopology) -> int:
        """Feature-map values of one patch; the measure that is compared with the reference values."""
        return estimate_feature_maps(topology.patch_size, len(self.declared.labels), self.architecture_kwargs(topology))

    @staticmethod
    def static_estimate_VRAM_usage(
        patch_size: Sequence[int],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: Mapping[str, Any],
        arch_kwargs_req_import: Sequence[str] = KWARGS_REQUIRING_IMPORT,
    ) -> int:
        """`estimate` under upstream's name and with its arguments, for planners that bring a search of their own."""
        return estimate_feature_maps(patch_size, output_channels, arch_kwargs)

    def _budget(self, dim: int) -> tuple[float, int]:
        """Feature-map values that fit into the memory target at the reference batch size, and that batch size."""
        reference, batch_size = (
            (self.UNet_reference_val_2d, self.UNet_reference_val_corresp_bs_2d)
            if dim == 2
            else (self.UNet_reference_val_3d, self.UNet_reference_val_corresp_bs_3d)
        )
        return reference * (self.UNet_vram_target_GB / self.UNet_reference_val_corresp_GB), batch_size

    def _fits(self, dim: int, estimate: int) -> bool:
        budget, batch_size = self._budget(dim)
        required = batch_size if self.patch_must_fit_reference_batch_size else self.UNet_min_batch_size
        return estimate / batch_size * required <= budget

    def get_plans_for_configuration(
        self,
        spacing: Sequence[float] | NDArray[Any],
        median_shape: Sequence[float] | NDArray[Any],
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """One configuration, without batch_dice.

        Args:
            spacing: transposed target spacing; two entries plan a 2D network.
            median_shape: transposed median shape at that spacing, as many entries.
            data_identifier: folder of the preprocessed cases.
            approximate_n_voxels_dataset: voxels of all training cases; a batch holds at most
                `max_dataset_covered` of them.
            _cache: upstream's estimates of earlier calls; not needed here.
        """
        spacing, median_shape = plain_numbers(spacing), plain_numbers(median_shape)
        tried: list[NetworkTopology] = []

        def fits(candidate: NetworkTopology) -> bool:
            tried.append(candidate)
            return self._fits(len(spacing), self.estimate(candidate))

        topology = find_patch_size(spacing, median_shape, fits, self.UNet_featuremap_min_edge_length)
        budget, reference_batch_size = self._budget(len(spacing))
        estimate = self.estimate(topology)
        batch_size = choose_batch_size(
            budget / estimate,
            reference_batch_size,
            approximate_n_voxels_dataset,
            self.max_dataset_covered,
            topology.patch_size,
            self.UNet_min_batch_size,
            self.UNet_max_batch_size,
        )
        self.notes[tuple(spacing)] = ConfigurationNotes(
            tried[0].patch_size,
            len(tried) - 1,
            self._fits(len(spacing), estimate),
            batch_size,
            self.UNet_vram_target_GB * estimate * batch_size.value / reference_batch_size / budget,
        )
        data_fn, data_kwargs, seg_fn, seg_kwargs = self.determine_resampling()
        export_fn, export_kwargs = self.determine_segmentation_softmax_export_fn()
        schemes, use_mask = self.determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        return {
            "data_identifier": data_identifier,
            "preprocessor_name": self.preprocessor_name,
            "batch_size": batch_size.value,
            "patch_size": list(topology.patch_size),
            "median_image_size_in_voxels": median_shape,
            "spacing": spacing,
            "normalization_schemes": schemes,
            "use_mask_for_norm": use_mask,
            "resampling_fn_data": data_fn,
            "resampling_fn_seg": seg_fn,
            "resampling_fn_data_kwargs": data_kwargs,
            "resampling_fn_seg_kwargs": seg_kwargs,
            "resampling_fn_probabilities": export_fn,
            "resampling_fn_probabilities_kwargs": export_kwargs,
            "architecture": {
                "network_class_name": self._network_class_name,
                "arch_kwargs": self.architecture_kwargs(topology),
                "_kw_requires_import": list(KWARGS_REQUIRING_IMPORT),
            },
        }

    # all configurations

    def plan_experiment(self) -> dict[str, Any]:
        """Plan every configuration, write the plans and copies of dataset.json and splits; returns the plans.

        With `dry_run` nothing is written.
        """
        forward, backward = self.determine_transpose()
        spacing = np.asarray(self.determine_fullres_target_spacing(), dtype=float)[forward]
        median = np.median(self.resampled_shapes(spacing, forward), 0)
        voxels = math.prod(median.tolist()) * self.declared.num_training

        configurations: dict[str, Any] = {}
        plan_2d = self.get_plans_for_configuration(
            spacing[1:], median[1:], self.generate_data_identifier("2d"), voxels, {}
        )
        configurations["2d"] = {**plan_2d, "batch_dice": True}
        if median[0] != 1:
            fullres = self.get_plans_for_configuration(
                spacing, median, self.generate_data_identifier("3d_fullres"), voxels, {}
            )
            lowres = self._plan_lowres(fullres)
            if lowres is not None:
                configurations["3d_lowres"] = {**lowres, "batch_dice": False, "next_stage": "3d_cascade_fullres"}
            configurations["3d_fullres"] = {**fullres, "batch_dice": lowres is not None}
            if lowres is not None:
                configurations["3d_cascade_fullres"] = dict(AUTOMATIC_CASCADE)

        self._warn_about_limits(configurations)
        self.plans = self._document(configurations, forward, backward)
        if not self.dry_run:
            copy_dataset_documents(Path(self.raw_dataset_folder), Path(self.preprocessed_folder))
            self.save_plans(self.plans)
        return self.plans

    def resampled_shapes(self, spacing: Any, transpose_forward: Sequence[int]) -> Any:
        """Shape of every case at a (transposed) spacing, (cases, 3) in transposed order."""
        fingerprint = self.fingerprint
        return resampled_shapes(fingerprint.spacings, fingerprint.shapes_after_crop, spacing, transpose_forward)

    def _plan_lowres(self, fullres: Mapping[str, Any]) -> dict[str, Any] | None:
        """Coarsen until a patch sees a quarter of the image; None if that is so already or gains too little."""
        spacing, median = np.array(fullres["spacing"]), np.array(fullres["median_image_size_in_voxels"])
        current = spacing.copy()
        image_voxels, patch_voxels = float(np.prod(median)), math.prod(fullres["patch_size"])
        plan = None
        while patch_voxels / image_voxels < self.lowres_creation_threshold:
            finer = max(current) / current > 2
            current[finer if finer.any() else slice(None)] *= 1.03
            shape = spacing / current * median
            image_voxels = float(np.prod(shape))
            plan = self.get_plans_for_configuration(
                current.copy(),
                [round(float(n)) for n in shape],
                self.generate_data_identifier("3d_lowres"),
                image_voxels * self.declared.num_training,
                {},
            )
            patch_voxels = math.prod(plan["patch_size"])
        if plan is not None and float(np.prod(median)) / image_voxels < 2:
            logger.info(
                "No 3d_lowres: %s is more than half the voxels of %s",
                plan["median_image_size_in_voxels"],
                fullres["median_image_size_in_voxels"],
            )
            return None
        return plan

    def _warn_about_limits(self, configurations: Mapping[str, Any]) -> None:
        for name, configuration in configurations.items():
            if "patch_size" not in configuration:
                continue
            spacing, patch = configuration["spacing"], configuration["patch_size"]
            notes = self.notes.get(tuple(plain_numbers(spacing)))
            if not can_be_pooled(spacing, configuration["median_image_size_in_voxels"]):
                logger.warning(
                    "%s: images of %s voxels cannot be pooled by a U-Net; the patch is %s, images are padded to it",
                    name,
                    [round(n) for n in configuration["median_image_size_in_voxels"]],
                    patch,
                )
            if notes is not None and not notes.fits:
                logger.warning(
                    "%s: the GPU memory target of %g GB is too small for any patch; the smallest, %s, may need more",
                    name,
                    self.UNet_vram_target_GB,
                    patch,
                )

    def _document(self, configurations: dict[str, Any], forward: list[int], backward: list[int]) -> dict[str, Any]:
        original_spacing = np.median(np.vstack(self.fingerprint.spacings), 0)[forward]
        original_shape = np.median(np.vstack(self.fingerprint.shapes_after_crop), 0)[forward]
        return {
            "dataset_name": self.dataset_name,
            "plans_name": self.plans_identifier,
            "original_median_spacing_after_transp": [float(s) for s in original_spacing],
            "original_median_shape_after_transp": [round(float(n)) for n in original_shape],
            "image_reader_writer": self.reader_writer_name,
            "transpose_forward": forward,
            "transpose_backward": backward,
            "configurations": configurations,
            "experiment_planner_used": type(self).__name__,
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": self.fingerprint.intensity_properties,
        }

    @cached_property
    def reader_writer_name(self) -> str:
        """Name of the class that reads this dataset's images."""
        return cast("str", self.determine_reader_writer().__name__)

    # files

    def save_plans(self, plans: Mapping[str, Any]) -> None:
        """Write the plans. Configurations that somebody added to an existing file of that name are kept.

        With `dry_run` nothing is written.
        """
        if self.dry_run:
            return
        file = Path(self.preprocessed_folder) / f"{self.plans_identifier}.json"
        save_plans_file(plans, file)
        logger.info("Plans were saved to %s", file)

    def load_plans(self, fname: str) -> None:
        """Take over plans from a file instead of planning."""
        self.plans = load_plans(fname)
