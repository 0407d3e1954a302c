"""What a transform is: randomness is drawn in one place and applied in another, to batches on any device."""

from __future__ import annotations

import contextlib
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from nnunet_lite.exceptions import ExtensionError
from nnunet_lite.training import activity

_global_generators = threading.RLock()  # a user's transform may itself call another one

Params = Any  # what one transform drew for one sample; None means "not applied to this sample"


class SampleShape(NamedTuple):
    """What drawing may depend on: number of image channels and spatial size of one sample."""

    channels: int
    spatial: tuple[int, ...]


class Batch(NamedTuple):
    """Images (B, C, *spatial) float32 and segmentations (B, S, *spatial), or a list of these per resolution."""

    image: Tensor
    segmentation: Tensor | list[Tensor]

    def labels(self) -> Tensor:
        """The segmentation while it is still one tensor."""
        assert isinstance(self.segmentation, Tensor), "label transforms come before deep supervision"
        return self.segmentation


class Source(NamedTuple):
    """The part of one enlarged patch that was read: image (C, *box), segmentation (S, *box) and where it lies."""

    image: Tensor
    segmentation: Tensor
    start: tuple[int, ...]
    patch_size: tuple[int, ...]


class Box(NamedTuple):
    """First index and size per axis, within the enlarged patch."""

    start: tuple[int, ...]
    size: tuple[int, ...]


class Transform(ABC):
    """Base of all transforms.

    `make_params` draws everything random for one sample; `apply` is a pure torch computation on a batch, given one
    entry of params per sample. `apply` may reuse the memory of the batch it is given. Called with the keywords
    `image` (C, *spatial) and `segmentation` (S, *spatial), a transform treats a single sample, as upstream's do.
    """

    def make_params(self, rng: Generator, shape: SampleShape) -> Params:
        """Draw for one sample; the default suits transforms without randomness."""
        return ()

    @abstractmethod
    def apply(self, batch: Batch, params: Sequence[Params]) -> Batch:
        """Treat all samples whose entry of `params` is not None."""

    def output_shape(self, shape: SampleShape) -> SampleShape:
        """Shape after this transform; to be overridden where it changes."""
        return shape

    def source_box(self, params: Params, patch_size: tuple[int, ...]) -> Box:
        """The part of the enlarged patch this transform needs as first of a pipeline."""
        return Box((0,) * len(patch_size), patch_size)

    def apply_to_sources(self, sources: Sequence[Source], params: Sequence[Params]) -> Batch:
        """`apply` to samples of which only their `source_box` was read."""
        image = torch.stack([source.image for source in sources])
        return self.apply(Batch(image, torch.stack([source.segmentation for source in sources])), params)

    def __call__(
        self, *, image: Tensor, segmentation: Tensor, rng: Generator | None = None, **others: Any
    ) -> dict[str, Any]:
        """Treat one sample; without `rng`, numpy's global generator decides. Other keywords are passed through."""
        rng = rng if rng is not None else np.random.default_rng(np.random.randint(2**32, size=4, dtype=np.uint32))
        params = self.make_params(rng, SampleShape(image.shape[0], tuple(image.shape[1:])))
        source = Source(image.clone(), segmentation.clone(), (0,) * (image.ndim - 1), tuple(image.shape[1:]))
        batch = self.apply_to_sources([source], [params])
        return {**others, **single_sample(batch)}


def single_sample(batch: Batch) -> dict[str, Any]:
    """A batch of one in the form of a per-sample result."""
    segmentation = batch.segmentation
    labels = segmentation[0] if isinstance(segmentation, Tensor) else [level[0] for level in segmentation]
    return {"image": batch.image[0], "segmentation": labels}


class RandomTransform(Transform):
    """Applies another transform to each sample with a given probability."""

    def __init__(self, transform: Transform, apply_probability: float = 1) -> None:
        self.transform = transform
        self.apply_probability = apply_probability

    def make_params(self, rng: Generator, shape: SampleShape) -> Params:
        return self.transform.make_params(rng, shape) if rng.uniform() < self.apply_probability else None

    def apply(self, batch: Batch, params: Sequence[Params]) -> Batch:
        return batch if all(param is None for param in params) else self.transform.apply(batch, params)


class ComposeTransforms(Transform):
    """A pipeline. Callables that know only the keywords of a single sample may stand anywhere in `transforms`."""

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.transforms = list(transforms)

    def make_params(self, rng: Generator, shape: SampleShape) -> Params:
        drawn: list[Params] = []
        for transform in self.transforms:
            if isinstance(transform, Transform):
                drawn.append(transform.make_params(rng, shape))
                shape = transform.output_shape(shape)
            else:
                drawn.append(int(rng.integers(2**63)))
        return drawn

    def output_shape(self, shape: SampleShape) -> SampleShape:
        for transform in self.transforms:
            shape = transform.output_shape(shape) if isinstance(transform, Transform) else shape
        return shape

    def source_box(self, params: Params, patch_size: tuple[int, ...]) -> Box:
        if self.transforms and isinstance(self.transforms[0], Transform):
            return self.transforms[0].source_box(params[0], patch_size)
        return super().source_box(params, patch_size)

    def apply_to_sources(self, sources: Sequence[Source], params: Sequence[Params]) -> Batch:
        if not self.transforms or not isinstance(self.transforms[0], Transform):
            return super().apply_to_sources(sources, params)
        activity.note(f"applying {transform_name(self.transforms[0])} to")
        batch = self.transforms[0].apply_to_sources(sources, [param[0] for param in params])
        return self._apply_from(1, batch, params)

    def apply(self, batch: Batch, params: Sequence[Params]) -> Batch:
        return self._apply_from(0, batch, params)

    def _apply_from(self, first: int, batch: Batch, params: Sequence[Params]) -> Batch:
        for position, transform in enumerate(self.transforms[first:], first):
            own = [param[position] for param in params]
            activity.note(f"applying {transform_name(transform)} to")
            if isinstance(transform, Transform):
                batch = transform.apply(batch, own)
            else:
                batch = apply_per_sample(transform, batch, own)
        return batch


def transform_name(transform: Any) -> str:
    """What a transform is called, the one within for those that only decide whether it is applied."""
    inner = getattr(transform, "transform", transform)
    return getattr(inner, "__name__", type(inner).__name__)


def apply_per_sample(transform: Callable[..., dict[str, Any]], batch: Batch, seeds: Sequence[int]) -> Batch:
    """Run a callable of single samples on each sample of a batch, its global random generators seeded."""
    segmentations = [
        batch.segmentation[b] if isinstance(batch.segmentation, Tensor) else [level[b] for level in batch.segmentation]
        for b in range(len(seeds))
    ]
    results = []
    for image, segmentation, seed in zip(batch.image, segmentations, seeds, strict=True):
        with seeded_global_generators(seed):
            results.append(transform(image=image, segmentation=segmentation))
    return collate([sample_of(transform, result) for result in results])


def sample_of(transform: Any, result: Any) -> Batch:
    """What a callable of single samples returned. Raises ExtensionError if image or segmentation is not in it."""
    wanted = ("image", "segmentation")
    if isinstance(result, Mapping) and all(key in result for key in wanted):
        return Batch(result["image"], result["segmentation"])
    got = f"a dictionary of {', '.join(map(str, result)) or 'nothing'}" if isinstance(result, Mapping) else None
    got = got or ("None" if result is None else f"a {type(result).__name__}")
    raise ExtensionError(
        f"the transform {transform_name(transform)} returned {got}, expected a dictionary with {', '.join(wanted)}"
    )


@contextlib.contextmanager
def seeded_global_generators(seed: int) -> Iterator[None]:
    """Seed the generators a user's own transform may draw from: Python's, numpy's and torch's on the CPU.

    Afterwards they go on where they were, for others in this process; only one thread at a time is within.
    """
    with _global_generators:
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])


def collate(samples: Sequence[Batch]) -> Batch:
    """Stack samples without batch axis into one batch."""
    first = samples[0].segmentation
    images = torch.stack([torch.as_tensor(sample.image) for sample in samples])
    if isinstance(first, (list, tuple)):
        levels = [torch.stack([sample.segmentation[i] for sample in samples]) for i in range(len(first))]
        return Batch(images, levels)
    return Batch(images, torch.stack([torch.as_tensor(sample.segmentation) for sample in samples]))
