"""Golden facts of nnU-Net v2 2.8.1 about labels, regions and the ignore label, on arrays and tensors."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.plans.configuration_manager import ConfigurationManager
from nnunet_lite.plans.label_manager import LabelManager, convert_labelmap_to_one_hot, determine_num_input_channels
from nnunet_lite.plans.plans_manager import PlansManager

BRATS = {"background": 0, "wt": [1, 2, 3], "tc": [2, 3], "et": [3]}
PLAIN = {"background": 0, "a": 1, "b": 2}
IGNORE = {**PLAIN, "ignore": 3}


def test_plain_labels() -> None:
    manager = LabelManager(PLAIN, None)
    assert manager.all_labels == [0, 1, 2]
    assert manager.foreground_labels == [1, 2]
    assert manager.num_segmentation_heads == 3
    assert not manager.has_regions and manager.all_regions is None
    assert not manager.has_ignore_label and manager.ignore_label is None
    with pytest.raises(DatasetError, match="no regions"):
        _ = manager.foreground_regions


def test_ignore_label_is_no_label() -> None:
    manager = LabelManager(IGNORE, None)
    assert manager.all_labels == [0, 1, 2]
    assert manager.num_segmentation_heads == 3
    assert manager.has_ignore_label and manager.ignore_label == 3


def test_all_labels_is_a_copy() -> None:
    manager = LabelManager(IGNORE, None)
    manager.all_labels.append(3)
    assert manager.all_labels == [0, 1, 2]


@pytest.mark.parametrize(("et", "last"), [([3], (3,)), (3, 3)])
def test_regions(et: Any, last: Any) -> None:
    manager = LabelManager({**BRATS, "et": et}, [1, 2, 3])
    assert manager.has_regions
    assert manager.all_labels == [0, 1, 2, 3]
    assert manager.foreground_labels == [1, 2, 3]
    assert manager.all_regions == manager.foreground_regions == [(1, 2, 3), (2, 3), last]
    assert manager.num_segmentation_heads == 3


def test_regions_with_ignore_label() -> None:
    manager = LabelManager({"background": 0, "wt": [1, 2], "et": 2, "ignore": 3}, [1, 2])
    assert manager.foreground_regions == [(1, 2), 2]
    assert manager.num_segmentation_heads == 2
    assert manager.ignore_label == 3


def test_labels_can_be_forced() -> None:
    manager = LabelManager({"background": 0, "wt": [1, 2], "et": 2}, [1, 2], force_use_labels=True)
    assert not manager.has_regions
    assert manager.num_segmentation_heads == 3
    assert manager.apply_inference_nonlin(np.zeros((3, 1), np.float32))[:, 0].tolist() == pytest.approx([1 / 3] * 3)


def test_lists_of_one_do_not_make_regions() -> None:
    manager = LabelManager({"background": 0, "a": [1], "b": [2]}, None)
    assert not manager.has_regions
    assert manager.num_segmentation_heads == 3


def test_text_is_accepted_as_number() -> None:
    assert LabelManager({"background": "0", "a": "1"}, None).all_labels == [0, 1]


@pytest.mark.parametrize(
    ("labels", "order", "message"),
    [
        ({**PLAIN, "ignore": 2}, None, "highest label plus one, 3"),
        ({**PLAIN, "ignore": 5}, None, "highest label plus one, 3"),
        ({**PLAIN, "ignore": [3]}, None, "whole number"),
        ({**PLAIN, "ignore": "3"}, None, "whole number"),
        ({"background": 0, "wt": [1, 2], "et": 2}, None, "regions_class_order"),
        ({"background": 0, "wt": [1, 2], "et": 2}, [1], "each of the 2 regions"),
        ({"a": 1}, None, "background"),
        ({"background": [0], "a": 1}, None, "background"),
        ({"background": 1, "a": 0}, None, "background"),
        ({"background": 0, "a": "one"}, None, "'a' is 'one'"),
        ({"background": 0, "a": 1.5}, None, "'a' is 1.5"),
    ],
)
def test_unusable_labels(labels: dict[str, Any], order: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        LabelManager(labels, order)


def _both(values: Any) -> list[Any]:
    array = np.array(values, dtype=np.float32)
    return [array, torch.from_numpy(array)]


def test_labels_with_gaps_are_refused_by_training_and_written_as_they_are_by_prediction() -> None:
    manager = LabelManager({"background": 0, "b": 5, "a": 1}, None)
    assert manager.all_labels == [0, 1, 5]
    assert manager.num_segmentation_heads == 3
    with pytest.raises(DatasetError, match="consecutive"):
        manager.require_consecutive_labels()
    for given in _both([[3, 0, 0], [0, 3, 0], [0, 0, 3]]):
        for convert in (manager.convert_logits_to_segmentation, manager.convert_probabilities_to_segmentation):
            segmentation = convert(given)
            assert type(segmentation) is type(given) and str(segmentation.dtype).endswith("int64")
            assert segmentation.tolist() == [0, 1, 5]
    assert LabelManager(PLAIN, None).labels_of_channels is None


def test_who_has_a_nonlinearity_of_their_own() -> None:
    class Mine(LabelManager):
        def apply_inference_nonlin(self, logits: Any) -> Any:
            return super().apply_inference_nonlin(logits)

    assert LabelManager(PLAIN, None).has_default_nonlinearity
    assert LabelManager({**PLAIN, "ab": [1, 2]}, [1, 2, 1], force_use_labels=True).has_default_nonlinearity
    assert not LabelManager(PLAIN, None, inference_nonlin=torch.sigmoid).has_default_nonlinearity
    assert not Mine(PLAIN, None).has_default_nonlinearity


def test_argmax_takes_the_lowest_index_on_ties() -> None:
    logits = np.array([(0, 0, -1), (1, 3, 3), (2, 2, 5)], np.float32).T
    for given in _both(logits):
        manager = LabelManager(PLAIN, None)
        segmentation = manager.convert_logits_to_segmentation(given)
        assert type(segmentation) is type(given)
        assert str(segmentation.dtype).endswith("int64")
        assert segmentation.tolist() == [0, 1, 2]
        assert manager.convert_probabilities_to_segmentation(given).tolist() == [0, 1, 2]


def test_argmax_looks_at_the_precision_it_is_given() -> None:
    logits = np.array([[1.0001], [1.0002]], np.float32)
    manager = LabelManager({"background": 0, "a": 1}, None)
    assert manager.convert_logits_to_segmentation(logits).tolist() == [1]
    assert manager.convert_logits_to_segmentation(logits.astype(np.float16)).tolist() == [0]


@pytest.mark.parametrize("kind", ["array", "half array", "tensor", "half tensor"])
def test_regions_are_painted_in_order(kind: str) -> None:
    per_voxel = [(1, -1, -2), (1, 2, -2), (-1, 3, 4), (0, 0, 0), (1, 0.5, 1), (1e-8, -1, -1)]
    logits: Any = np.array(per_voxel, np.float16 if "half" in kind else np.float32).T
    logits = torch.from_numpy(logits.copy()) if "tensor" in kind else logits
    segmentation = LabelManager(BRATS, [1, 2, 3]).convert_logits_to_segmentation(logits)
    assert segmentation.tolist() == [1, 2, 3, 0, 3, 0]
    assert str(segmentation.dtype).endswith("int16")  # uint16 for arrays


@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
def test_smallest_half_precision_logits(make: Any) -> None:
    labels = {"background": 0, "wt": [1, 2], "et": 2}
    logits = make(np.array([[5.96e-8, 1.2e-7], [-1, -1]], np.float16))
    assert LabelManager(labels, [1, 2]).convert_logits_to_segmentation(logits).tolist() == [0, 1]


def test_probabilities_of_regions() -> None:
    manager = LabelManager({"background": 0, "wt": [1, 2], "et": 2}, [1, 2])
    for given in _both([[0.5, 0.51, 0.9, 0.1], [0, 0, 0.6, 0.7]]):
        segmentation = manager.convert_probabilities_to_segmentation(given)
        assert segmentation.tolist() == [0, 1, 2, 2]
        assert segmentation.dtype == (np.uint16 if isinstance(given, np.ndarray) else torch.int16)


def test_wrong_number_of_channels() -> None:
    with pytest.raises(DatasetError, match="2 channels"):
        LabelManager(PLAIN, None).convert_logits_to_segmentation(np.zeros((2, 4)))


def test_nonlinearity() -> None:
    logits = np.array([1, 2, 3], np.float16)[:, None]
    for given in (logits, torch.from_numpy(logits)):
        probabilities = LabelManager(PLAIN, None).apply_inference_nonlin(given)
        assert isinstance(probabilities, torch.Tensor) and probabilities.dtype == torch.float32
        np.testing.assert_allclose(probabilities[:, 0].numpy(), [0.0900, 0.2447, 0.6652], atol=5e-5)
    sigmoid = LabelManager(BRATS, [1, 2, 3]).apply_inference_nonlin(np.zeros((3, 2), np.float32))
    assert sigmoid.tolist() == [[0.5, 0.5]] * 3


def test_nonlinearity_of_ones_own() -> None:
    manager = LabelManager(BRATS, [1, 2, 3], inference_nonlin=lambda logits: logits * 0 + 0.9)
    assert manager.convert_logits_to_segmentation(torch.full((3, 2), -5.0)).tolist() == [3, 3]
    assert float(manager.apply_inference_nonlin(np.zeros((3, 1), np.float32))[0]) == pytest.approx(0.9)


def test_uncropping_of_probabilities() -> None:
    for given in _both(np.full((3, 2), 1 / 3)):
        full = LabelManager(PLAIN, None).revert_cropping_on_probabilities(given, [[1, 3]], [4])
        np.testing.assert_allclose(np.asarray(full[0]), [1, 1 / 3, 1 / 3, 1])
        np.testing.assert_allclose(np.asarray(full[1:]), [[0, 1 / 3, 1 / 3, 0]] * 2)
    for given in _both(np.full((3, 2), 0.7)):
        full = LabelManager(BRATS, [1, 2, 3]).revert_cropping_on_probabilities(given, [[1, 3]], [4])
        np.testing.assert_allclose(np.asarray(full), [[0, 0.7, 0.7, 0]] * 3, rtol=1e-6)


def test_output_type_follows_the_largest_value_that_can_be_written() -> None:
    assert LabelManager(PLAIN, None).output_dtype is np.uint8
    labels = {"background": 0, "wt": [1, 2], "et": 2}
    assert LabelManager(labels, [1, 300]).output_dtype is np.uint16
    assert LabelManager(labels, [1, 254]).output_dtype is np.uint8


def test_one_hot() -> None:
    values = np.array([0, 1, 2, 1, -1], np.int16)
    for given in (values, torch.from_numpy(values)):
        one_hot = convert_labelmap_to_one_hot(given, [1, 2])
        assert one_hot.tolist() == [[0, 1, 0, 1, 0], [0, 0, 1, 0, 0]]
        assert str(one_hot.dtype).endswith("uint8")
    assert convert_labelmap_to_one_hot(values, [1, 255]).dtype == np.uint16
    assert convert_labelmap_to_one_hot(values, [1], np.float32).dtype == np.float32
    assert convert_labelmap_to_one_hot(torch.from_numpy(values), [1], torch.float32).dtype == torch.float32


def test_input_channels_with_and_without_previous_stage() -> None:
    plans = PlansManager({"configurations": {}})
    dataset_json = {"channel_names": {"0": "a", "1": "b"}, "labels": IGNORE}
    assert determine_num_input_channels(plans, ConfigurationManager({}), dataset_json) == 2
    cascade = ConfigurationManager({"previous_stage": "3d_lowres"})
    assert determine_num_input_channels(plans, cascade, dataset_json) == 4
    old = {"modality": {"0": "a"}, "channel_names": {"0": "a", "1": "b"}, "labels": PLAIN}
    assert determine_num_input_channels(plans, ConfigurationManager({}), old) == 1
    with pytest.raises(DatasetError, match="channel_names"):
        determine_num_input_channels(plans, ConfigurationManager({}), {"labels": PLAIN})


def test_can_be_sent_to_a_worker() -> None:
    manager = pickle.loads(pickle.dumps(LabelManager(BRATS, [1, 2, 3])))
    assert manager.convert_logits_to_segmentation(np.full((3, 1), 2.0, np.float32)).tolist() == [3]
