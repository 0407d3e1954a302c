"""Where batches are augmented, and that whole batches on a device are the samples of the workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.loaders import MemoryDataset, Misbehaving, make_loader

from nnunet_lite.exceptions import ArgumentError, WorkerError
from nnunet_lite.training.augmentation_device import augmentation_device
from nnunet_lite.training.batch_iterator import BatchIterator
from nnunet_lite.training.data_augmentation import pipelines
from nnunet_lite.training.data_augmentation.augmentation_geometry import configure_augmentation
from nnunet_lite.training.data_augmentation.transforms import ComposeTransforms, RandomTransform, Transform

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)
OURS = pipelines.get_validation_transforms(None)


class Own(Transform):
    """A transform of a user that works on batches, but not on this one."""

    def apply(self, batch: Any, params: Any) -> Any:
        raise ZeroDivisionError("no such kernel")


MIXED = ComposeTransforms([OURS, RandomTransform(ComposeTransforms([Misbehaving("noise")]))])


@pytest.mark.parametrize(
    ("variable", "attribute", "device", "transforms", "expected"),
    [
        (None, "auto", CUDA, OURS, CUDA),
        (None, "auto", CUDA, ComposeTransforms([OURS, Own()]), CUDA),
        (None, "auto", CUDA, MIXED, None),
        (None, "auto", CUDA, Misbehaving("noise"), None),
        (None, "auto", CPU, OURS, None),
        (None, "auto", torch.device("mps"), OURS, None),
        (None, "cpu", CUDA, OURS, None),
        (None, "gpu", CUDA, MIXED, CUDA),
        ("CPU", "gpu", CUDA, OURS, None),
        ("gpu", "cpu", torch.device("mps"), OURS, torch.device("mps")),
        ("", "auto", CUDA, OURS, CUDA),
    ],
)
def test_choice(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, attribute: str, device: Any, transforms: Any, expected: Any
) -> None:
    monkeypatch.delenv("nnUNet_DA_device", raising=False)
    if variable is not None:
        monkeypatch.setenv("nnUNet_DA_device", variable)
    assert augmentation_device(attribute, device, transforms) == expected


@pytest.mark.parametrize(
    ("variable", "device", "transforms", "message"),
    [
        ("cuda", CUDA, OURS, r"^nnUNet_DA_device='cuda': expected auto, cpu \(in the workers\) or gpu$"),
        ("gpu", CPU, OURS, "nnUNet_DA_device=gpu.*-device cpu do not go together"),
        ("gpu", CUDA, Misbehaving("noise"), "the trainer gives Misbehaving; set nnUNet_DA_device=cpu"),
    ],
)
def test_mistakes(
    monkeypatch: pytest.MonkeyPatch, variable: str, device: torch.device, transforms: Any, message: str
) -> None:
    monkeypatch.setenv("nnUNet_DA_device", variable)
    with pytest.raises(ArgumentError, match=message):
        augmentation_device("auto", device, transforms)


def test_a_wrong_attribute_of_a_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_DA_device", raising=False)
    with pytest.raises(ArgumentError, match="^augmentation_device='host': expected auto"):
        augmentation_device("host", CPU, OURS)


SCALES = [[1.0, 1.0, 1.0], [0.5, 0.5, 0.5]]
PIPELINES = {"default": pipelines.get_training_transforms, "DA5": pipelines.get_heavy_training_transforms}


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_whole_batches_are_the_samples_of_the_workers(pipeline: str, cascade: bool) -> None:
    final = (12, 12, 12)
    geometry = configure_augmentation(final)
    regions: Any = [(1, 2), 2] if cascade else None
    transforms = PIPELINES[pipeline](
        final, geometry.rotation_for_DA, SCALES, geometry.mirror_axes, False, [True, False],
        is_cascaded=cascade, foreground_labels=[1, 2], regions=regions,
    )  # fmt: skip

    def loader() -> Any:
        dataset = MemoryDataset(["a", "b", "c"], cascade=cascade)
        return make_loader(
            geometry.initial_patch_size, final, dataset=dataset, batch_size=6, transforms=transforms,
            oversample_foreground_percent=0.33, seed=11,
        )  # fmt: skip

    alone = loader()
    with BatchIterator(loader(), device=CPU) as batches:  # as on a GPU, only that the device is this one
        assert batches.device == CPU
        for index in range(6):
            one, many = alone.generate_batch(0, index), next(batches)
            assert one["keys"] == many["keys"]
            torch.testing.assert_close(one["data"], many["data"], rtol=1e-4, atol=1e-5)
            for expected, level in zip(one["target"], many["target"], strict=True):
                assert torch.equal(expected, level)


def test_workers_only_read_for_a_device() -> None:
    loader = make_loader((8, 8, 8), (8, 8, 8), transforms=OURS, seed=3)
    with BatchIterator(make_loader((8, 8, 8), (8, 8, 8), transforms=OURS, seed=3), 1, device=CPU) as batches:
        for index in range(4):
            np.testing.assert_array_equal(next(batches)["data"], loader.generate_batch(0, index)["data"])


def test_a_failure_on_the_device_names_the_batch() -> None:
    loader = make_loader((8, 8, 8), (8, 8, 8), transforms=ComposeTransforms([Own()]), seed=3)
    with (
        BatchIterator(loader, device=CPU) as batches,
        pytest.raises(WorkerError, match=r"Batch 0 of epoch 0 \(cases .*augmentation on cpu.*no such kernel"),
    ):
        next(batches)


def test_transforms_of_single_samples_are_left_to_the_workers() -> None:
    with BatchIterator(make_loader((8, 8, 8), (8, 8, 8), transforms=Misbehaving("noise")), device=CPU) as batches:
        assert batches.device is None
        assert next(batches)["data"].shape == (2, 2, 8, 8, 8)
