"""The pipelines as a whole: order, probabilities, samples and batches alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nnunet_lite.training.data_augmentation.pipelines import get_training_transforms, get_validation_transforms
from nnunet_lite.training.data_augmentation.transforms import (
    Batch,
    ComposeTransforms,
    RandomTransform,
    SampleShape,
    Transform,
)

SCALES = [[1, 1, 1], [0.5, 0.5, 0.5]]


def outline(transforms: ComposeTransforms) -> list[tuple[str, float]]:
    def entry(transform: Any) -> tuple[str, float]:
        inner = transform.transform if isinstance(transform, RandomTransform) else transform
        return type(inner).__name__.removesuffix("Transform"), getattr(transform, "apply_probability", 1)

    return [entry(transform) for transform in transforms.transforms]


def test_training_pipeline_is_the_table() -> None:
    transforms = get_training_transforms(
        (8, 8, 8), (-0.5, 0.5), SCALES, (0, 1, 2), True, [False, True], True, [1, 2], [(1, 2), 2], 3
    )
    assert outline(transforms) == [
        ("Spatial", 1),
        ("GaussianNoise", 0.1),
        ("GaussianBlur", 0.2),
        ("MultiplicativeBrightness", 0.15),
        ("Contrast", 0.15),
        ("SimulateLowResolution", 0.25),
        ("Gamma", 0.1),
        ("Gamma", 0.3),
        ("Mirror", 1),
        ("MaskImage", 1),
        ("RemoveLabel", 1),
        ("MoveSegAsOneHotToData", 1),
        ("ApplyRandomBinaryOperator", 0.4),
        ("RemoveRandomConnectedComponentFromOneHotEncoding", 0.2),
        ("ConvertSegmentationToRegions", 1),
        ("DownsampleSegForDS", 1),
    ]
    inverted, plain = (transform.transform for transform in transforms.transforms[6:8])
    assert (inverted.p_invert_image, plain.p_invert_image) == (1, 0)


def test_optional_rows() -> None:
    names = [name for name, _ in outline(get_training_transforms((8, 8), 0.3, None, None, False, [False]))]
    assert names[-3:] == ["Gamma", "Gamma", "RemoveLabel"]
    assert outline(get_validation_transforms(None)) == [("RemoveLabel", 1)]


def test_two_thirds_of_the_samples_are_only_cropped() -> None:
    transforms = get_training_transforms((8, 8, 8), 0.5, None, (0, 1, 2), False)
    rng = np.random.default_rng(0)
    drawn = [transforms.make_params(rng, SampleShape(1, (12, 12, 12))) for _ in range(2000)]
    assert abs(np.mean([params[0] is None for params in drawn]) - 0.64) < 0.03
    boxes = [transforms.source_box(params, (12, 12, 12)) for params in drawn if params[0] is None]
    assert set(boxes) == {((2, 2, 2), (8, 8, 8))}


def test_one_implementation_for_samples_and_batches() -> None:
    transforms = get_training_transforms((8, 9, 10), 0.5, SCALES, (0, 1, 2), False, [True, False])
    rng = np.random.default_rng(5)
    images, seg = torch.randn(6, 2, 12, 13, 14), torch.randint(-1, 3, (6, 1, 12, 13, 14), dtype=torch.int16)
    params = [transforms.make_params(rng, SampleShape(2, (12, 13, 14))) for _ in range(6)]
    together = transforms.apply(Batch(images.clone(), seg.clone()), params)
    for b in range(6):
        alone = transforms.apply(Batch(images[b : b + 1].clone(), seg[b : b + 1].clone()), params[b : b + 1])
        torch.testing.assert_close(alone.image[0], together.image[b])
        for one, many in zip(alone.segmentation, together.segmentation, strict=True):
            assert torch.equal(one[0], many[b])


def test_called_as_upstreams_pipelines_are() -> None:
    transforms = get_training_transforms((8, 8), 0.5, [[1, 1], [0.5, 0.5]], (0, 1), False)
    image, seg = torch.randn(1, 12, 12), torch.zeros(1, 12, 12, dtype=torch.int16)
    before = image.clone()
    np.random.seed(3)
    first = transforms(image=image, segmentation=seg)
    assert torch.equal(image, before)
    np.random.seed(3)
    again = transforms(image=image, segmentation=seg, name="case")
    assert torch.equal(first["image"], again["image"]) and again["name"] == "case"
    assert first["image"].shape == (1, 8, 8) and [tuple(s.shape) for s in first["segmentation"]] == [
        (1, 8, 8),
        (1, 4, 4),
    ]


def test_users_callables_and_own_transforms_fit_in() -> None:
    class AddOne(Transform):
        def apply(self, batch: Batch, params: Any) -> Batch:
            return batch._replace(image=batch.image + 1)

    def double(image: torch.Tensor, segmentation: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"image": image * 2, "segmentation": segmentation + 1}

    nested = ComposeTransforms([ComposeTransforms([AddOne(), double]), double])
    result = nested(image=torch.zeros(1, 2, 2), segmentation=torch.zeros(1, 2, 2))
    assert result["image"].unique().tolist() == [4] and result["segmentation"].unique().tolist() == [2]
