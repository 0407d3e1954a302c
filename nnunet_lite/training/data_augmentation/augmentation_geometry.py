"""What the patch size decides: rotation range, dummy 2D augmentation, mirror axes, size of the patch that is read."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin
from typing import NamedTuple

from nnunet_lite.configuration import ANISO_THRESHOLD
from nnunet_lite.exceptions import PlansError

INITIAL_PATCH_SCALE_RANGE = (0.85, 1.25)  # upstream's constant; scaling itself really draws from 0.7 to 1.4


class AugmentationGeometry(NamedTuple):
    """Decisions of spec 02, 4.1: angles in radians (low, high); sizes in voxels; axes counted without the channel."""

    rotation_for_DA: tuple[float, float]
    do_dummy_2d_data_aug: bool
    initial_patch_size: tuple[int, ...]
    mirror_axes: tuple[int, ...]


def configure_augmentation(
    patch_size: Sequence[int],
    allow_dummy_2d: bool = True,
    scale_range: tuple[float, float] = INITIAL_PATCH_SCALE_RANGE,
) -> AugmentationGeometry:
    """Geometry of the default augmentation for a 2D or 3D patch (nnU-Net v2 2.8.1 behaviour).

    Args:
        patch_size: final patch, 2 or 3 axes.
        allow_dummy_2d: whether slices of strongly anisotropic 3D patches are rotated within their plane only.
        scale_range: zoom that the enlarged patch provides for.

    Raises:
        PlansError: the patch has neither two nor three axes.
    """
    patch = [int(edge) for edge in patch_size]
    if len(patch) not in (2, 3):
        raise PlansError(f"patch_size {patch} has {len(patch)} axes; expected 2 or 3, correct it in the plans")
    if len(patch) == 2:
        dummy_2d = False
        degrees = 15 if max(patch) / min(patch) > 1.5 else 180
    else:
        dummy_2d = allow_dummy_2d and max(patch) / patch[0] > ANISO_THRESHOLD
        degrees = 180 if dummy_2d else 30
    rotation = (-degrees / 360 * 2 * pi, degrees / 360 * 2 * pi)
    initial = get_patch_size(patch, rotation, rotation, rotation, scale_range)
    if dummy_2d:
        initial = (patch[0], *initial[1:])
    return AugmentationGeometry(rotation, dummy_2d, initial, tuple(range(len(patch))))


def get_patch_size(
    final_patch_size: Sequence[int],
    rot_x: float | Sequence[float],
    rot_y: float | Sequence[float],
    rot_z: float | Sequence[float],
    scale_range: Sequence[float],
) -> tuple[int, ...]:
    """Size of the patch to read so that rotating and zooming it mostly fills the final patch.

    Upstream's rule with upstream's name: one sign of each angle is considered, so the result is a little asymmetric.

    Args:
        final_patch_size: patch the network sees, 2 or 3 axes.
        rot_x: angle range in radians around the first axis, or its bound; at most a right angle counts.
        rot_y: the same around the second axis.
        rot_z: the same around the third axis; 2D uses `rot_x`.
        scale_range: zoom range; the lower end enlarges the patch.
    """
    patch = [float(edge) for edge in final_patch_size]
    candidates = [patch]
    for axis, bound in enumerate((rot_x, rot_y, rot_z) if len(patch) == 3 else (rot_x,)):
        angle = min(pi / 2, max(abs(value) for value in (bound if isinstance(bound, Sequence) else (bound,))))
        candidates.append(_rotated(patch, axis if len(patch) == 3 else 2, angle))
    return tuple(int(max(abs(c[d]) for c in candidates) / min(scale_range)) for d in range(len(patch)))


def _rotated(edges: list[float], axis: int, angle: float) -> list[float]:
    """The vector of edge lengths turned around one axis."""
    first, second = [d for d in range(max(3, len(edges))) if d != axis]
    sign = -1 if axis == 1 else 1
    result = list(edges)
    result[first] = edges[first] * cos(angle) + sign * edges[second] * sin(angle)
    result[second] = -sign * edges[first] * sin(angle) + edges[second] * cos(angle)
    return result
