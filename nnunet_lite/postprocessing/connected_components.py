"""Which voxels lie outside the largest connected component of a label or region; arrays only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import cc3d
import numpy as np
from numpy.typing import NDArray

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.utilities.arrays import bounding_box, slices

LabelsOrRegions = int | tuple[int, ...] | Sequence[int | tuple[int, ...]]

_LARGEST_TABLE = 2**16  # label values above are looked up by sorting instead of in a table


class SmallComponents(NamedTuple):
    """Voxels outside the largest components of several masks that share no voxel."""

    voxels: NDArray[np.intp]  # flat index in the whole array
    owner: NDArray[np.intp]  # which of the masks each voxel belongs to


def members_of(labels_or_regions: Any) -> tuple[int, ...]:
    """All labels of a label, a region, or a list of either, in ascending order.

    Raises:
        ArgumentError: something that is no whole number.
    """
    found: set[int] = set()
    pending = [labels_or_regions]
    while pending:
        entry = pending.pop()
        if isinstance(entry, (list, tuple, set, np.ndarray)):
            pending.extend(entry)
        elif isinstance(entry, (int, np.integer)) and not isinstance(entry, bool):
            found.add(int(entry))
        else:
            raise ArgumentError(f"labels_or_regions {labels_or_regions!r}: expected labels, regions or a list of them")
    return tuple(sorted(found))


def remove_all_but_largest_component_from_segmentation(
    segmentation: NDArray[Any], labels_or_regions: Any, background_label: int = 0
) -> NDArray[Any]:
    """A copy of a label map in which a mask keeps its largest connected component (nnU-Net v2 2.8.1 behaviour).

    Args:
        segmentation: two or three axes.
        labels_or_regions: a label, a region, or a list of either, which together make the mask.
        background_label: what removed voxels become, also within an enclosing region.
    """
    removed = small_components(segmentation, [members_of(labels_or_regions)]).voxels
    result = np.array(segmentation)
    result.reshape(-1)[removed] = background_label
    return result


def groups_without_common_labels(entries: Sequence[Any]) -> list[list[Any]]:
    """Labels or regions in order, cut where one shares a label with another of its group.

    What is removed of one becomes background, so it matters to no other of its group: all are done at once.
    """
    groups: list[list[Any]] = []
    labels: set[int] = set()
    for entry in entries:
        own = set(members_of(entry))
        if not groups or labels & own or 0 in labels | own:
            groups.append([])
            labels = set()
        groups[-1].append(entry)
        labels |= own
    return groups


def without_small_components(segmentation: NDArray[Any], entries: Sequence[Any]) -> NDArray[Any]:
    """A copy of a label map in which each entry in turn keeps its largest component; the rest becomes background."""
    result = np.array(segmentation)
    for group in groups_without_common_labels(entries):
        result.reshape(-1)[small_components(result, [members_of(entry) for entry in group]).voxels] = 0
    return result


def small_components(segmentation: NDArray[Any], masks: Sequence[Iterable[int]]) -> SmallComponents:
    """Voxels to remove so that each mask keeps its largest connected component.

    Components touch at faces, edges or corners; all components of the largest size stay (nnU-Net v2 2.8.1 behaviour,
    spec 03, 6.5).

    Args:
        segmentation: label map of two or three axes.
        masks: the labels of each mask; no label may be in two of them.
    """
    painted = _paint(segmentation, masks)
    box = bounding_box(painted > 0)
    if box is None:
        return SmallComponents(np.empty(0, np.intp), np.empty(0, np.intp))
    inside = np.ascontiguousarray(painted[slices(box)])
    flat = inside.ndim == 2 or inside.shape[0] == 1
    plane = inside[0] if flat and inside.ndim == 3 else inside
    numbered = cc3d.connected_components(plane, connectivity=8 if flat else 26)
    numbered = numbered.reshape(inside.shape)
    owners = np.zeros(int(numbered.max()) + 1, np.intp)
    owners[numbered.ravel()] = inside.ravel()
    sizes = np.bincount(numbered.ravel())
    largest = np.zeros(len(masks) + 1, np.intp)
    np.maximum.at(largest, owners[1:], sizes[1:])
    is_small = sizes < largest[owners]
    is_small[0] = False
    found = np.nonzero(is_small[numbered])
    owner = owners[numbered[found]] - 1
    whole = tuple(axis + low for axis, (low, _) in zip(found, box, strict=True))
    return SmallComponents(np.ravel_multi_index(whole, segmentation.shape), owner)


def _paint(segmentation: NDArray[Any], masks: Sequence[Iterable[int]]) -> NDArray[Any]:
    """Number of the mask, counted from 1, that each voxel belongs to; 0 for none."""
    dtype = np.uint8 if len(masks) < 256 else np.uint16
    numbers = {int(label): number for number, mask in enumerate(masks, 1) for label in mask}
    if not numbers or segmentation.size == 0:
        return np.zeros(segmentation.shape, dtype)
    lowest, highest = int(segmentation.min()), int(segmentation.max())
    if highest - lowest >= _LARGEST_TABLE:
        painted = np.zeros(segmentation.shape, dtype)
        for label, number in numbers.items():
            painted[segmentation == label] = number
        return painted
    table = np.zeros(highest - lowest + 1, dtype)
    for label, number in numbers.items():
        if lowest <= label <= highest:
            table[label - lowest] = number
    return table[segmentation] if lowest == 0 else table[segmentation.astype(np.int64) - lowest]
