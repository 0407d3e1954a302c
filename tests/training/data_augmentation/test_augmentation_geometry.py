"""Golden table of spec 02, 12."""

from __future__ import annotations

from math import pi

import pytest

from nnunet_lite.exceptions import PlansError
from nnunet_lite.training.data_augmentation.augmentation_geometry import configure_augmentation, get_patch_size

TABLE = """
128,128,128 -> 30,no,205,205,205 | 64,192,160 -> 30,no,178,289,200 | 40,56,40 -> 30,no,73,80,64
20,320,256 -> 180,yes,20,376,376 | 16,48,48 -> 30,no,44,77,58 | 48,144,144 -> 30,no,133,231,174
48,145,144 -> 180,yes,48,170,170 | 96,160,160 -> 30,no,191,257,219 | 28,256,256 -> 180,yes,28,301,301
14,256,224 -> 180,yes,14,301,301 | 80,192,160 -> 30,no,194,289,210 | 112,112,128 -> 30,no,179,189,196
8,16,16 -> 30,no,17,25,21 | 64,16,128 -> 30,no,75,91,168
256,256 -> 180,no,301,301 | 512,512 -> 180,no,602,602 | 320,320 -> 180,no,376,376 | 56,40 -> 180,no,65,65
192,128 -> 180,no,225,225 | 192,127 -> 15,no,256,149 | 48,192 -> 15,no,113,225
"""


@pytest.mark.parametrize("row", [row for line in TABLE.strip().splitlines() for row in line.split(" | ")])
def test_table(row: str) -> None:
    patch_text, result = row.split(" -> ")
    degrees, dummy, *initial = result.split(",")
    patch = [int(edge) for edge in patch_text.split(",")]
    geometry = configure_augmentation(patch)
    assert geometry.initial_patch_size == tuple(int(edge) for edge in initial)
    assert geometry.rotation_for_DA == pytest.approx((-int(degrees) * pi / 180, int(degrees) * pi / 180))
    assert geometry.do_dummy_2d_data_aug is (dummy == "yes")
    assert geometry.mirror_axes == tuple(range(len(patch)))


def test_wider_ranges_as_da5_uses_them() -> None:
    def da5(patch: list[int], degrees: float) -> tuple[int, ...]:
        bound = (-degrees / 180 * pi, degrees / 180 * pi)
        return get_patch_size(patch, bound, bound, bound, (0.7, 1.43))

    assert da5([128, 128, 128], 30) == (249, 249, 249)
    assert da5([20, 320, 256], 180)[1:] == (457, 457)
    assert da5([512, 512], 180) == (731, 731)


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(PlansError, match=r"\[3\] has 1 axes"):
        configure_augmentation([3])
