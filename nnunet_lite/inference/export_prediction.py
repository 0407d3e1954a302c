"""From logits in network space to files in image space: resample, label, un-crop, transpose back, write.

Upstream's function names; the labels equal upstream's except at ties of floating-point arithmetic.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.inference.logit_reduction import is_linear, reduce_logits
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.preprocessing.geometry import network_spacing
from nnunet_lite.preprocessing.interpolation import InterpolationPlan, interpolation_plan
from nnunet_lite.preprocessing.resampling import resample_data_or_seg_to_shape, resample_torch_fornnunet
from nnunet_lite.utilities.arrays import box_shape, slices
from nnunet_lite.utilities.files import PathLike, atomic_path, load_json, save_pickle, scratch_array

Logits = torch.Tensor | NDArray[Any]
Spacings = tuple[Sequence[float], Sequence[float]]  # of the logits, of the image; transposed order


class ViewsInNetworkSpace(NamedTuple):
    """Parts of arrays in image geometry, as the network sees them: transposed and cropped."""

    labels: NDArray[Any]  # (x, y, z)
    probabilities: NDArray[np.float32] | None  # (heads, x, y, z)


_COMPRESSION = 1  # of probabilities: a third of the time of the default level for files a few percent larger


def convert_predicted_logits_to_segmentation_with_correct_shape(
    predicted_logits: Logits,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    label_manager: LabelManager,
    properties_dict: Mapping[str, Any],
    return_probabilities: bool = False,
    num_threads_torch: int | None = None,
) -> Any:
    """Labels, and if asked for probabilities, in the geometry of the image (nnU-Net v2 2.8.1 behaviour).

    Args:
        predicted_logits: (heads, x, y, z), transposed, cropped, at target spacing.
        plans_manager, configuration_manager, label_manager: of the model.
        properties_dict: of the case, as preprocessing left them.
        return_probabilities: hold the probabilities in memory as well.
        num_threads_torch: threads; default is torch's number.

    Returns:
        Labels (d0, d1, d2) in the smallest unsigned type that holds every label, or (labels, probabilities) with
        float32 (heads, d0, d1, d2): outside the crop background is certain.
    """
    labels = empty_labels(plans_manager, label_manager, properties_dict)
    probabilities = None
    if return_probabilities:
        probabilities = np.empty((len(predicted_logits), *labels.shape), np.float32)
    _export(
        predicted_logits,
        plans_manager,
        configuration_manager,
        label_manager,
        properties_dict,
        labels,
        probabilities,
        num_threads_torch,
    )
    return labels if probabilities is None else (labels, probabilities)


def export_prediction_from_logits(
    predicted_array_or_file: Logits | str,
    properties_dict: Mapping[str, Any],
    configuration_manager: ConfigurationManager,
    plans_manager: PlansManager,
    dataset_json_dict_or_file: Mapping[str, Any] | PathLike,
    output_file_truncated: PathLike,
    save_probabilities: bool = False,
    num_threads_torch: int | None = None,
) -> None:
    """Write a case's segmentation; with probabilities also `.npz` (key `probabilities`) and `.pkl` (properties).

    Each file appears complete or not at all, the segmentation last. Probabilities go through a temporary file beside
    the output, so memory does not grow with the number of classes.

    Args:
        predicted_array_or_file: (heads, x, y, z), or a `.npy` file of them, which is deleted when done.
        properties_dict: of the case.
        dataset_json_dict_or_file: its labels say what the heads mean.
        output_file_truncated: path without file ending.
    """
    logits = load_and_delete(predicted_array_or_file)
    dataset_json = load_dataset_json(dataset_json_dict_or_file)
    label_manager = plans_manager.get_label_manager(dataset_json)
    labels = empty_labels(plans_manager, label_manager, properties_dict)
    with_context = (plans_manager, configuration_manager, label_manager, properties_dict, labels)
    if save_probabilities:
        file = f"{output_file_truncated}.npz"
        with scratch_array(file, (len(logits), *labels.shape), np.float32) as probabilities:
            _export(logits, *with_context, probabilities, num_threads_torch)
            save_probabilities_file(probabilities, file)
            del probabilities
        save_pickle(dict(properties_dict), f"{output_file_truncated}.pkl")
    else:
        _export(logits, *with_context, None, num_threads_torch)
    file = f"{output_file_truncated}{dataset_json['file_ending']}"
    plans_manager.image_reader_writer_class().write_seg(labels, file, properties_dict)


def resample_and_save(
    predicted: Logits | str,
    target_shape: Sequence[int],
    output_file: str,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    properties_dict: Mapping[str, Any],
    dataset_json_dict_or_file: Mapping[str, Any] | PathLike,
    num_threads_torch: int | None = None,
    dataset_class: Any = None,
) -> None:
    """Save a prediction for the next stage of a cascade: labels at the shape of that stage's preprocessed case.

    The labels stay cropped and transposed and have no channel axis (nnU-Net v2 2.8.1 behaviour).

    Args:
        predicted: logits (heads, x, y, z), or a `.npy` file of them.
        target_shape: spatial shape of the next stage's case.
        output_file: path without file ending.
        dataset_class: how to save; blosc2 by default.
    """
    from nnunet_lite.preprocessing.preprocessed_dataset import nnUNetDatasetBlosc2

    logits = load_and_delete(predicted)
    label_manager = plans_manager.get_label_manager(load_dataset_json(dataset_json_dict_or_file))
    spacing, _ = _spacings(plans_manager, configuration_manager, properties_dict)
    labels = np.empty(tuple(int(n) for n in target_shape), label_manager.output_dtype)
    resampled, plan = _prepare(logits, configuration_manager, labels.shape, (spacing, spacing))
    reduce_logits(resampled, plan, label_manager, labels, threads=num_threads_torch)
    (dataset_class or nnUNetDatasetBlosc2).save_seg(labels, output_file)


def empty_labels(
    plans_manager: PlansManager, label_manager: LabelManager, properties: Mapping[str, Any]
) -> NDArray[np.unsignedinteger[Any]]:
    """Zeros of the image's shape, in the smallest unsigned type that holds every label."""
    shape = [properties["shape_before_cropping"][axis] for axis in plans_manager.transpose_backward]
    return np.zeros(shape, label_manager.output_dtype)


def save_probabilities_file(probabilities: NDArray[np.float32], file: PathLike) -> None:
    """Write (heads, d0, d1, d2) as upstream's compressed `.npz`, a channel at a time."""
    header = {"descr": "<f4", "fortran_order": False, "shape": probabilities.shape}
    with (
        atomic_path(file) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION) as archive,
        archive.open("probabilities.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(cast("Any", member), header)
        for channel in probabilities:
            member.write(np.ascontiguousarray(channel, "<f4").tobytes())


def load_and_delete(array_or_file: Logits | str) -> Logits:
    """The array itself, or that of a `.npy` file, memory-mapped; the file's name is gone afterwards."""
    if not isinstance(array_or_file, str):
        return array_or_file
    array: NDArray[Any] = np.load(array_or_file, mmap_mode="c")
    with suppress(PermissionError):  # Windows keeps files that are mapped; their temporary folder goes later
        Path(array_or_file).unlink()
    return array


def load_dataset_json(dict_or_file: Mapping[str, Any] | PathLike) -> dict[str, Any]:
    """The content of dataset.json, given as such or as a file."""
    return dict(dict_or_file) if isinstance(dict_or_file, Mapping) else load_json(dict_or_file)


def _export(
    predicted_logits: Logits,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    label_manager: LabelManager,
    properties: Mapping[str, Any],
    labels: NDArray[Any],
    probabilities: NDArray[np.float32] | None,
    threads: int | None,
) -> None:
    """Write labels and probabilities (image geometry) through views in network geometry; no copy at full size."""
    inside = views_in_network_space(plans_manager, label_manager, properties, labels, probabilities)
    spacings = _spacings(plans_manager, configuration_manager, properties)
    logits, plan = _prepare(predicted_logits, configuration_manager, inside.labels.shape, spacings)
    reduce_logits(logits, plan, label_manager, inside.labels, inside.probabilities, threads)


def views_in_network_space(
    plans_manager: PlansManager,
    label_manager: LabelManager,
    properties: Mapping[str, Any],
    labels: NDArray[Any],
    probabilities: NDArray[np.float32] | None,
) -> ViewsInNetworkSpace:
    """The cropped and transposed parts of what has the image's geometry; probabilities outside are filled here.

    Raises:
        DatasetError: the properties contradict each other.
    """
    forward = list(plans_manager.transpose_forward)
    box = properties["bbox_used_for_cropping"]
    shape = tuple(int(n) for n in properties["shape_after_cropping_and_before_resampling"])
    if box_shape(box) != shape:
        raise DatasetError(
            f"The properties of this case contradict each other: bbox_used_for_cropping {box} has not the shape "
            f"{shape} of shape_after_cropping_and_before_resampling; preprocess it again"
        )
    labels_inside = labels.transpose(forward)[slices(box)]
    probabilities_inside = None
    if probabilities is not None:
        if labels_inside.size < labels.size:
            probabilities[:] = 0
            if not label_manager.has_regions:
                probabilities[0] = 1
        inside: tuple[slice, ...] = (slice(None), *slices(box))
        probabilities_inside = probabilities.transpose([0, *(axis + 1 for axis in forward)])[inside]
    return ViewsInNetworkSpace(labels_inside, probabilities_inside)


def linear_plan(
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    properties: Mapping[str, Any],
    shape: Sequence[int],
) -> InterpolationPlan | None:
    """How logits (x, y, z) become the cropped image's shape; None if the plans' function is not a linear one."""
    shape_out = tuple(int(n) for n in properties["shape_after_cropping_and_before_resampling"])
    spacings = _spacings(plans_manager, configuration_manager, properties)
    return _plan_of(configuration_manager.resampling_fn_probabilities, tuple(shape), shape_out, spacings)


def _spacings(
    plans_manager: PlansManager, configuration_manager: ConfigurationManager, properties: Mapping[str, Any]
) -> Spacings:
    """Spacing of the logits and of the cropped image, in transposed order."""
    original = [float(properties["spacing"][axis]) for axis in plans_manager.transpose_forward]
    return network_spacing(configuration_manager.spacing, original), original


def _prepare(
    logits: Logits, configuration_manager: ConfigurationManager, shape: Sequence[int], spacings: Spacings
) -> tuple[torch.Tensor, InterpolationPlan]:
    """The logits and a linear plan that brings them to `shape`.

    A resampling function other than the linear ones (a user's own, say) is applied to the logits as a whole; what is
    left to do is then nothing.
    """
    function = configuration_manager.resampling_fn_probabilities
    plan = _plan_of(function, tuple(logits.shape[1:]), shape, spacings)
    if plan is None:
        logits = function(logits, shape, *spacings)
        if tuple(logits.shape[1:]) != tuple(shape):
            name = getattr(function, "func", function).__name__
            raise DatasetError(
                f"resampling_fn_probabilities {name} returned logits of shape {tuple(logits.shape[1:])}, expected "
                f"{tuple(shape)}; name another function in the plans"
            )
        plan = interpolation_plan(shape, shape, *spacings, order=1)
    tensor = torch.from_numpy(logits) if isinstance(logits, np.ndarray) else logits
    return tensor.detach().cpu(), plan


def _plan_of(
    function: Any, shape_in: Sequence[int], shape_out: Sequence[int], spacings: Spacings
) -> InterpolationPlan | None:
    """What the plans' resampling function does, if that is linear interpolation and index selection, else None."""
    if tuple(shape_in) == tuple(shape_out):
        return interpolation_plan(shape_in, shape_out, *spacings, order=1)
    options = dict(getattr(function, "keywords", {}))
    if options.pop("is_seg", False):
        return None
    name = getattr(function, "func", function)
    if name is resample_data_or_seg_to_shape:
        options = {"order": 3, "force_separate_z": False, **options}
    elif name is resample_torch_fornnunet:
        if options.pop("mode", "linear") not in ("linear", "bilinear", "trilinear"):
            return None
        if options.pop("aniso_axis_mode", "nearest-exact") != "nearest-exact":
            return None
        ignored = ("num_threads", "device", "memefficient_seg_resampling")
        options = {"order": 1, **{key: value for key, value in options.items() if key not in ignored}}
    else:
        return None
    plan = interpolation_plan(shape_in, shape_out, *spacings, **options)
    return plan if is_linear(plan) else None
