"""Draws training patches: which cases, where, what part is read.

`generate_batch` makes a batch that depends on (seed, epoch, index) only, for BatchIterator. `next(loader)` draws anew
from numpy's global generator, which batchgenerators' augmenters seed in each of their processes.
"""

from __future__ import annotations

import os
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from nnunet_lite.exceptions import ArgumentError, DatasetError
from nnunet_lite.preprocessing.preprocess_command import preprocess_command
from nnunet_lite.training import activity
from nnunet_lite.training.data_augmentation.transforms import (
    Batch,
    Params,
    SampleShape,
    Source,
    Transform,
    collate,
    sample_of,
    seeded_global_generators,
)
from nnunet_lite.training.open_cases import OpenCases
from nnunet_lite.utilities.arrays import crop_and_pad
from nnunet_lite.utilities.logging import logger

ClassKey = int | tuple[int, ...]
ClassLocations = Mapping[ClassKey, Any]
UserTransform = Callable[..., dict[str, Any]]

_VOXELS_AT_ONCE = 2**16  # of the samples that are augmented together: steps are few, and the data stays in cache
_LOCATION_MEMORY = 2**27  # bytes of class locations kept per worker; the largest datasets do not fit


class Dataset(Protocol):
    """What the loader needs of a preprocessed dataset."""

    identifiers: Any

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, Any]:
        """Arrays (C, *spatial), (1, *spatial), previous stage (*spatial) or None, and the properties."""


class Annotations(Protocol):
    """What the loader needs of a label manager."""

    @property
    def has_ignore_label(self) -> bool:
        """Whether some voxels do not count."""

    @property
    def all_labels(self) -> Any:
        """Labels without the ignore label."""


class RawBatch(NamedTuple):
    """A batch as read, with everything that was drawn for it: all that is left is to apply the transforms."""

    sources: list[Source]
    params: list[Params]
    keys: list[str]


def patch_bounds(
    shape: Sequence[int],
    patch_size: Sequence[int],
    final_patch_size: Sequence[int],
    pad_sides: Sequence[int] | None = None,
) -> tuple[list[int], list[int]]:
    """Smallest and largest start (inclusive) of a random patch per axis, which may lie partly outside the image.

    nnU-Net v2 2.8.1 behaviour (spec 02, 3.5): the enlarged patch may leave the image by what it is larger than the
    final patch and by `pad_sides`, or by what the image is smaller than the patch.
    """
    lows, highs = [], []
    more = pad_sides or (0,) * len(patch_size)
    for edge, patch, final, pad in zip(shape, patch_size, final_patch_size, more, strict=True):
        need = max(patch - final + pad, patch - edge)
        lows.append(-need // 2)
        highs.append(edge + need // 2 + need % 2 - patch)
    return lows, highs


def is_forced_foreground(position: int, batch_size: int, oversample_percent: float) -> bool:
    """Whether this position of a batch must contain foreground: the last ones of the batch do."""
    return not position < round(batch_size * (1 - oversample_percent))


class nnUNetDataLoader:
    """Makes batches of augmented patches; an endless iterator of them, too.

    Args:
        dataset: preprocessed cases (`identifiers`, `load_case`).
        batch_size: samples per batch.
        patch_size: size of the enlarged patch, whose position is drawn.
        final_patch_size: size of the patch the network sees. Two axes with 3D cases mean slices.
        label_manager: tells whether there is an ignore label.
        oversample_foreground_percent: share of samples that must contain foreground.
        sampling_probabilities: of each case, in the order of the dataset's identifiers; None for all alike.
        pad_sides: voxels per axis by which random patches may leave the image further, both sides together.
        transforms: a pipeline, or any callable of `image` and `segmentation` that treats one sample; None for none.
        probabilistic_oversampling: decide for every sample by chance instead of taking the last of each batch.
        seed: of everything random in `generate_batch`; None draws one, kept in the attribute `seed`.
        part_of: position of the first sample in a larger batch, and the size of that batch, of which this loader makes
            its part (several GPUs share a batch); None for a batch of its own.

    Raises:
        ArgumentError: not as many sampling probabilities as cases.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        patch_size: Sequence[int],
        final_patch_size: Sequence[int],
        label_manager: Annotations,
        oversample_foreground_percent: float = 0.0,
        sampling_probabilities: Sequence[float] | None = None,
        pad_sides: Sequence[int] | None = None,
        transforms: Transform | UserTransform | None = None,
        probabilistic_oversampling: bool = False,
        seed: int | None = None,
        part_of: tuple[int, int] | None = None,
    ) -> None:
        self.dataset = dataset
        self.identifiers = [str(name) for name in dataset.identifiers]
        self.batch_size = batch_size
        self.part_of = part_of
        self.slices = len(patch_size) == 2
        lead = (1,) if self.slices else ()
        self.patch_size = (*lead, *(int(edge) for edge in patch_size))
        self.final_patch_size = (*lead, *(int(edge) for edge in final_patch_size))
        self.oversample_foreground_percent = oversample_foreground_percent
        cases = len(self.identifiers)
        if sampling_probabilities is not None and len(sampling_probabilities) != cases:
            raise ArgumentError(
                f"{len(sampling_probabilities)} sampling_probabilities, expected one for each of {cases} cases"
            )
        self.sampling_probabilities = sampling_probabilities
        self.pad_sides = None if pad_sides is None else ((0,) * self.slices + tuple(int(pad) for pad in pad_sides))
        self.transforms = transforms
        self.probabilistic_oversampling = probabilistic_oversampling
        self.seed = secrets.randbits(63) if seed is None else int(seed)
        self.has_ignore = bool(label_manager.has_ignore_label)
        self.annotated_classes_key: tuple[int, ...] = (-1, *(int(label) for label in label_manager.all_labels))
        self.current_key = ""
        self.thread_id = 0
        self._stream: tuple[int, Generator] | None = None  # of next(), with the process it belongs to
        self._locations = _LocationCache(_LOCATION_MEMORY)
        self._open_cases = OpenCases()

    def __getstate__(self) -> dict[str, Any]:
        own = {"_stream": None, "_locations": _LocationCache(_LOCATION_MEMORY), "_open_cases": OpenCases()}
        return {**self.__dict__, **own}

    def set_thread_id(self, thread_id: int) -> None:
        """Called by batchgenerators' augmenters in each of their processes, after they have seeded numpy."""
        self.thread_id = thread_id
        self._stream = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        return self.generate_train_batch()

    def generate_train_batch(self) -> dict[str, Any]:
        """A batch as of `generate_batch`, drawn anew at each call; a subclass may make its batches here."""
        if self._stream is None or self._stream[0] != os.getpid():  # a forked process must not repeat its parent
            self._stream = os.getpid(), np.random.default_rng(np.random.randint(2**32, size=4, dtype=np.uint64))
        return self.augment(self._read(list(self._stream[1].spawn(self.batch_size + 1))))

    def generate_batch(self, epoch: int, index: int) -> dict[str, Any]:
        """Batch number `index` of an epoch.

        Returns:
            `data` float32 (B, C, *final), `target` int16 or bool (B, S, *final) or a list of these (deep supervision),
            `keys` the case of every sample.
        """
        return self.augment(self.read_batch(epoch, index))

    def case_ids(self, epoch: int, index: int) -> list[str]:
        """Cases of a batch, without reading anything."""
        return self._draw_cases(self._generators(epoch, index)[0])

    @torch.no_grad()
    def read_batch(self, epoch: int, index: int) -> RawBatch:
        """Draw everything random of a batch and read what it needs of its cases."""
        return self._read(self._generators(epoch, index))

    def _read(self, generators: Sequence[Generator]) -> RawBatch:
        own, *generators = generators
        keys = self._draw_cases(own)
        pairs = [self._read_sample(key, position, generators[position]) for position, key in enumerate(keys)]
        return RawBatch([source for source, _ in pairs], [params for _, params in pairs], keys)

    @torch.no_grad()
    def augment(self, raw: RawBatch, device: torch.device | None = None) -> dict[str, Any]:
        """Apply the transforms to a batch: a few samples at a time where they lie, or all at once on a device.

        On a device this takes, beside what is given and returned, at most the copies of one transform (about four times
        the images and labels of the batch) and the resampling of one slab of 2**22 voxels: 0.7 GiB in all for two
        patches of 128^3 (measured, all transforms applied), 1.6 GiB where every voxel lies at a border of labels.
        """
        if device is not None and isinstance(self.transforms, Transform):
            sources = [
                source._replace(
                    image=source.image.to(device, non_blocking=True),
                    segmentation=source.segmentation.to(device, non_blocking=True),
                )
                for source in raw.sources
            ]
            batch = self._apply(sources, raw.params, raw.keys)
        else:
            step = self._samples_at_once()
            groups = [slice(first, first + step) for first in range(0, len(raw.keys), step)]
            batch = _join([self._apply(raw.sources[g], raw.params[g], raw.keys[g]) for g in groups])
        return {"data": batch.image, "target": batch.segmentation, "keys": raw.keys}

    def _samples_at_once(self) -> int:
        """Samples that stay in a core's cache together; one where a user's own callable treats them one by one."""
        stages = getattr(self.transforms, "transforms", [self.transforms])
        if not all(isinstance(transform, Transform) for transform in stages):
            return 1
        return max(1, _VOXELS_AT_ONCE // int(prod(self.final_patch_size)))

    def _apply(self, sources: list[Source], params: list[Params], keys: list[str]) -> Batch:
        self.current_key = ", ".join(keys)
        activity.note("transforming", self.current_key)
        if isinstance(self.transforms, Transform):
            return self.transforms.apply_to_sources(sources, params)
        if self.transforms is None:
            return Batch(
                torch.stack([source.image for source in sources]),
                torch.stack([source.segmentation for source in sources]),
            )
        results = []
        for source, seed in zip(sources, params, strict=True):
            with seeded_global_generators(seed):
                results.append(self.transforms(image=source.image, segmentation=source.segmentation))
        return collate([sample_of(self.transforms, result) for result in results])

    def _generators(self, epoch: int, index: int) -> list[Generator]:
        """The generator of a batch and one for each of its samples."""
        sequence = np.random.SeedSequence(self.seed, spawn_key=(epoch, index))
        first, whole = self.part_of or (0, self.batch_size)
        samples = sequence.spawn(whole)[first : first + self.batch_size]
        return [np.random.default_rng(child) for child in (sequence, *samples)]

    def _draw_cases(self, rng: Generator) -> list[str]:
        number, probabilities = len(self.identifiers), self.sampling_probabilities
        first, whole = self.part_of or (0, self.batch_size)
        if probabilities is None:
            chosen = rng.integers(0, number, size=whole)
        else:
            chosen = rng.choice(number, size=whole, p=probabilities)
        return [self.identifiers[i] for i in chosen[first : first + self.batch_size]]

    def _read_sample(self, key: str, position: int, rng: Generator) -> tuple[Source, Params]:
        self.current_key = key
        activity.note("reading", key)
        if self.probabilistic_oversampling:
            forced = bool(rng.uniform() < self.oversample_foreground_percent)
        else:
            forced = is_forced_foreground(position, self.batch_size, self.oversample_foreground_percent)
        data, seg, previous, locations = self._open(key, needs_locations=forced or self.has_ignore)
        starts, _ = self.get_bbox(data.shape[1:], forced, locations, rng=rng)
        patch = self.patch_size[self.slices :]
        params, box_start, box_size = self._draw_params(rng, data.shape[0], patch)
        lead = (0,) * self.slices
        first = [start + offset for start, offset in zip(starts, (*lead, *box_start), strict=True)]
        size = (*self.patch_size[: self.slices], *box_size)
        labels = [_read(key, seg, first, size, -1).astype(np.int16, copy=False)]
        if previous is not None:
            labels.append(_read(key, _PreviousStage(previous), first, size, -1))
        image = _read(key, data, first, size, 0).astype(np.float32, copy=False)
        segmentation = np.concatenate([one.astype(np.int16, copy=False) for one in labels])
        if self.slices:
            image, segmentation = image[:, 0], segmentation[:, 0]
        return Source(torch.from_numpy(image), torch.from_numpy(segmentation), box_start, patch), params

    def _open(self, key: str, needs_locations: bool) -> tuple[Any, Any, Any, ClassLocations]:
        """Arrays of a case and, if needed, its class locations; the properties are read as seldom as possible."""
        locations = self._locations.get(key) if needs_locations else {}
        load_arrays = getattr(self.dataset, "load_arrays", None)
        if locations is not None and load_arrays is not None:
            return *self._open_cases.get(key, load_arrays), locations
        data, seg, previous, properties = self.dataset.load_case(key)
        if locations is None:
            locations = self._locations.put(key, properties["class_locations"])
        return data, seg, previous, locations

    def _draw_params(
        self, rng: Generator, channels: int, patch: tuple[int, ...]
    ) -> tuple[Params, tuple[int, ...], tuple[int, ...]]:
        """What the transforms drew, and the box of the enlarged patch they need."""
        if isinstance(self.transforms, Transform):
            params = self.transforms.make_params(rng, SampleShape(channels, patch))
            return params, *self.transforms.source_box(params, patch)
        return int(rng.integers(2**63)), (0,) * len(patch), patch

    def get_bbox(
        self,
        data_shape: Sequence[int],
        force_fg: bool,
        class_locations: ClassLocations | None,
        overwrite_class: ClassKey | None = None,
        verbose: bool = False,
        rng: Generator | None = None,
    ) -> tuple[list[int], list[int]]:
        """Position of a patch: first and one past the last index per axis (nnU-Net v2 2.8.1, spec 02, 3.5).

        Args:
            data_shape: spatial shape of the case.
            force_fg: centre the patch on a voxel of some class.
            class_locations: voxel indices (n, 4) or (n, 3) per label or region.
            overwrite_class: the class to take, instead of drawing one.
            verbose: log when a case has no foreground.
            rng: generator to draw from; None uses one of the moment.

        There is no upper bound for patches centred on a voxel, as upstream has none.
        """
        rng = rng if rng is not None else np.random.default_rng()
        lows, highs = patch_bounds(data_shape, self.patch_size, self.final_patch_size, self.pad_sides)
        voxels = self._voxels_to_centre_on(force_fg, class_locations or {}, overwrite_class, verbose, rng)
        if voxels is None:
            starts = [int(rng.integers(low, high + 1)) for low, high in zip(lows, highs, strict=True)]
        else:
            voxel = voxels[int(rng.integers(len(voxels)))][-len(lows) :]
            starts = [max(low, int(v) - edge // 2) for low, v, edge in zip(lows, voxel, self.patch_size, strict=True)]
        return starts, [start + edge for start, edge in zip(starts, self.patch_size, strict=True)]

    def _voxels_to_centre_on(
        self,
        forced: bool,
        locations: ClassLocations,
        overwrite_class: ClassKey | None,
        verbose: bool,
        rng: Generator,
    ) -> NDArray[Any] | None:
        annotated = self.annotated_classes_key
        if not forced:
            found = locations.get(annotated, ()) if self.has_ignore else ()
            return np.asarray(found) if len(found) else None
        eligible = [key for key, voxels in locations.items() if len(voxels) > 0]
        if annotated in eligible and len(eligible) > 1:
            eligible.remove(annotated)
        if overwrite_class is not None and overwrite_class in eligible:
            return np.asarray(locations[overwrite_class])
        if not eligible:
            if verbose:
                logger.info("%s has no foreground: taking a random patch", self.current_key)
            return None
        return np.asarray(locations[eligible[int(rng.integers(len(eligible)))]])


def _join(samples: list[Batch]) -> Batch:
    """Batches of one as one batch."""
    if len(samples) == 1:
        return samples[0]
    image = torch.cat([sample.image for sample in samples])
    first = samples[0].segmentation
    if isinstance(first, list):
        return Batch(image, [torch.cat([s.segmentation[level] for s in samples]) for level in range(len(first))])
    return Batch(image, torch.cat([sample.labels() for sample in samples]))


def _read(key: str, array: Any, first: Sequence[int], size: Sequence[int], fill: int) -> NDArray[Any]:
    """A part of a lazy array. Raises DatasetError, with the file, if it does not decompress."""
    try:
        return crop_and_pad(array, first, size, fill)
    except (RuntimeError, ValueError, OSError) as error:
        file = getattr(getattr(array, "schunk", None), "urlpath", None) or f"An array of case {key}"
        raise DatasetError(
            f"{file} is damaged or not readable ({error}). Check the disk; then delete the files of {key} there and "
            f"run {preprocess_command(Path(file).parent)} again"
        ) from error


class _PreviousStage:
    """A lazily read label map without channel axis, as signed integers with one."""

    dtype = np.dtype(np.int16)

    def __init__(self, array: Any) -> None:
        self._array = array
        self.schunk = getattr(array, "schunk", None)
        self.shape = (1, *array.shape)

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[np.int16]:
        return np.asarray(self._array[index[1:]])[None].astype(np.int16)


class _LocationCache:
    """Class locations of the cases used last, as small as they can be kept."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._used = 0
        self._cases: OrderedDict[str, ClassLocations] = OrderedDict()

    def get(self, case: str) -> ClassLocations | None:
        """Locations of a case if they are here."""
        if case in self._cases:
            self._cases.move_to_end(case)
        return self._cases.get(case)

    def put(self, case: str, locations: ClassLocations) -> ClassLocations:
        """Keep the locations of a case, and let go of those not used for longest."""
        compact = {key: _compact(voxels) for key, voxels in locations.items()}
        self._cases[case] = compact
        self._used += _size(compact)
        while self._used > self._memory and len(self._cases) > 1:
            self._used -= _size(self._cases.popitem(last=False)[1])
        return compact


def _compact(voxels: Any) -> NDArray[Any]:
    array = np.asarray(voxels)
    if array.size == 0:
        return np.zeros((0, 3), np.int16)
    return array[:, -3:].astype(np.int16 if array.max() < 2**15 else np.int32)


def _size(locations: ClassLocations) -> int:
    return sum(int(voxels.nbytes) for voxels in locations.values())
