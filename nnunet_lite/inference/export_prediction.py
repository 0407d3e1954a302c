"""From logits in network space to files in image space: resample, label, un-crop, transpose back, write.

Upstream's function names; the labels equal upstream's except at ties of floating-point arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.inference.device_reduction import can_reduce_on_device, reduce_logits_on_device
from nnunet_lite.inference.logit_reduction import is_linear, reduce_logits
from nnunet_lite.inference.probability_channels import export_labels_and_probabilities
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.label_manager import LabelManager
from nnunet_lite.plans.plans_manager import PlansManager
from nnunet_lite.preprocessing.geometry import network_spacing
from nnunet_lite.preprocessing.interpolation import InterpolationPlan, interpolation_plan
from nnunet_lite.preprocessing.resampling import resample_data_or_seg_to_shape, resample_torch_fornnunet
from nnunet_lite.utilities.arrays import box_shape, slices
from nnunet_lite.utilities.files import PathLike, load_json, save_pickle, scratch_array
from nnunet_lite.utilities.npz_stream import npz_stream

Logits = torch.Tensor | NDArray[Any]
Spacings = tuple[Sequence[float], Sequence[float]]  # of the logits, of the image; transposed order


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
        predicted_logits: (heads, x, y, z), transposed, cropped, at target spacing. Those on a GPU are resized and
            reduced to labels there.
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

    Each file appears complete or not at all, the segmentation last. Memory does not grow with the number of classes:
    probabilities are written a channel at a time, those of a nonlinearity of one's own by way of a temporary file
    beside the output.

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
        _export_with_probabilities_file(logits, *with_context, f"{output_file_truncated}.npz", num_threads_torch)
        save_pickle(dict(properties_dict), f"{output_file_truncated}.pkl")
    else:
        _export(logits, *with_context, None, num_threads_torch)
    write_segmentation(labels, properties_dict, plans_manager, dataset_json, output_file_truncated)


def write_segmentation(
    labels: NDArray[Any],
    properties_dict: Mapping[str, Any],
    plans_manager: PlansManager,
    dataset_json: Mapping[str, Any],
    output_file_truncated: PathLike,
) -> None:
    """Write labels (d0, d1, d2) of an image with the model's writer."""
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
    reduce_logits(resampled.cpu(), plan, label_manager, labels, threads=num_threads_torch)
    (dataset_class or nnUNetDatasetBlosc2).save_seg(labels, output_file)


def empty_labels(
    plans_manager: PlansManager, label_manager: LabelManager, properties: Mapping[str, Any]
) -> NDArray[np.unsignedinteger[Any]]:
    """Zeros of the image's shape, in the smallest unsigned type that holds every label."""
    shape = [properties["shape_before_cropping"][axis] for axis in plans_manager.transpose_backward]
    return np.zeros(shape, label_manager.output_dtype)


def save_probabilities_file(
    probabilities: NDArray[np.float32], file: PathLike, num_threads_torch: int | None = None
) -> None:
    """Write (heads, d0, d1, d2) as upstream's compressed `.npz`, a channel at a time."""
    threads = num_threads_torch or torch.get_num_threads()
    with npz_stream(file, "probabilities", probabilities.shape, threads) as stream:
        for channel in probabilities:
            stream.write(channel)


def load_and_delete(array_or_file: Logits | str) -> Logits:
    """The array itself, or that of a `.npy` file, memory-mapped; the file's name is gone afterwards."""
    array = load_mapped(array_or_file)
    if isinstance(array_or_file, str):
        remove_mapped(array_or_file)
    return array


def load_as_tensor(array_or_file: Logits | str) -> torch.Tensor:
    """The same as a tensor."""
    array = load_and_delete(array_or_file)
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else array


def load_mapped(array_or_file: Logits | str) -> Logits:
    """The array itself, or that of a `.npy` file, memory-mapped; writing to it does not change the file."""
    if not isinstance(array_or_file, str):
        return array_or_file
    array: NDArray[Any] = np.load(array_or_file, mmap_mode="c")
    return array


def remove_mapped(file: str) -> None:
    """Remove a `.npy` file that may still be mapped."""
    with suppress(OSError):  # Windows keeps files that are mapped; their temporary folder goes later
        Path(file).unlink()


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
    logits, plan = _to_image_shape(predicted_logits, plans_manager, configuration_manager, properties)
    if logits.device.type == "cuda" and probabilities is None and can_reduce_on_device(label_manager):
        reduce_logits_on_device(logits, plan, label_manager, inside.labels)
    else:
        reduce_logits(logits.cpu(), plan, label_manager, inside.labels, inside.probabilities, threads)


def linear_plan_of_next_stage(
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    properties: Mapping[str, Any],
    shape: Sequence[int],
    target_shape: Sequence[int],
) -> InterpolationPlan | None:
    """The same for what `resample_and_save` does."""
    spacing, _ = _spacings(plans_manager, configuration_manager, properties)
    target = tuple(int(n) for n in target_shape)
    return _plan_of(configuration_manager.resampling_fn_probabilities, tuple(shape), target, (spacing, spacing))


class ViewsInNetworkSpace(NamedTuple):
    """Parts of arrays in image geometry, as the network sees them: transposed and cropped."""

    labels: NDArray[Any]  # (x, y, z)
    probabilities: NDArray[np.float32] | None  # (heads, x, y, z)


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
    inside = _inside(plans_manager, properties)
    if probabilities is None:
        return ViewsInNetworkSpace(inside(labels), None)
    if math.prod(properties["shape_after_cropping_and_before_resampling"]) < labels.size:
        probabilities[:] = 0
        if not label_manager.has_regions:
            probabilities[0] = 1
    return ViewsInNetworkSpace(inside(labels), inside(probabilities))


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


def _export_with_probabilities_file(
    predicted_logits: Logits,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    label_manager: LabelManager,
    properties: Mapping[str, Any],
    labels: NDArray[Any],
    file: str,
    threads: int | None,
) -> None:
    """As `_export`, with probabilities to a file."""
    if label_manager.has_default_nonlinearity:
        inside = _inside(plans_manager, properties)
        logits, plan = _to_image_shape(predicted_logits, plans_manager, configuration_manager, properties)
        export_labels_and_probabilities(logits.cpu(), plan, label_manager, labels, inside, file, threads)
        return
    managers = (plans_manager, configuration_manager, label_manager)
    with scratch_array(file, (len(predicted_logits), *labels.shape), np.float32) as probabilities:
        _export(predicted_logits, *managers, properties, labels, probabilities, threads)
        save_probabilities_file(probabilities, file, threads)
        del probabilities


def _inside(plans_manager: PlansManager, properties: Mapping[str, Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """What makes of an array in image geometry, with or without channels, a view of the crop in network geometry."""
    forward = list(plans_manager.transpose_forward)
    box = properties["bbox_used_for_cropping"]
    shape = tuple(int(n) for n in properties["shape_after_cropping_and_before_resampling"])
    if box_shape(box) != shape:
        raise DatasetError(
            f"The properties of this case contradict each other: bbox_used_for_cropping {box} has not the shape "
            f"{shape} of shape_after_cropping_and_before_resampling; preprocess it again"
        )

    def crop_of(array: NDArray[Any]) -> NDArray[Any]:
        channels = array.ndim - 3
        axes = [*range(channels), *(axis + channels for axis in forward)]
        crop: tuple[Any, ...] = (..., *slices(box))
        view: NDArray[Any] = array.transpose(axes)[crop]
        return view

    return crop_of


def _to_image_shape(
    logits: Logits,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    properties: Mapping[str, Any],
) -> tuple[torch.Tensor, InterpolationPlan]:
    """The logits and a linear plan that brings them to the shape of the cropped image."""
    shape = tuple(int(n) for n in properties["shape_after_cropping_and_before_resampling"])
    spacings = _spacings(plans_manager, configuration_manager, properties)
    return _prepare(logits, configuration_manager, shape, spacings)


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
        logits = function(logits.cpu() if isinstance(logits, torch.Tensor) else logits, shape, *spacings)
        if tuple(logits.shape[1:]) != tuple(shape):
            name = getattr(function, "func", function).__name__
            raise DatasetError(
                f"resampling_fn_probabilities {name} returned logits of shape {tuple(logits.shape[1:])}, expected "
                f"{tuple(shape)}; name another function in the plans"
            )
        plan = interpolation_plan(shape, shape, *spacings, order=1)
    tensor = torch.from_numpy(logits) if isinstance(logits, np.ndarray) else logits
    return tensor.detach(), plan


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
    plan = replace(plan, keeps_type=name is not resample_torch_fornnunet)
    return plan if is_linear(plan) else None
