"""Chunk and block rule of stored arrays: the table of spec 01, 9.6."""

from __future__ import annotations

import blosc2
import numpy as np
import pytest

from nnunet_lite.preprocessing.blosc2_layout import comp_blosc2_params, select_filter

CUBE = (128, 128, 128)


@pytest.mark.parametrize(
    ("image", "patch", "itemsize", "block", "chunk"),
    [
        ((1, 432, 512, 512), CUBE, 4, (1, 32, 32, 32), (1, 96, 128, 128)),
        ((1, 432, 512, 512), CUBE, 2, (1, 64, 32, 32), (1, 128, 192, 128)),
        ((2, 20, 320, 320), (20, 320, 256), 4, (1, 8, 64, 64), (1, 16, 320, 256)),
        ((1, 20, 320, 320), (20, 320, 256), 2, (1, 8, 128, 64), (1, 20, 320, 320)),
        ((1, 36, 50, 35), (40, 56, 40), 4, (1, 32, 32, 32), (1, 36, 50, 35)),
        ((1, 36, 50, 35), (40, 56, 40), 2, (1, 36, 50, 35), (1, 36, 50, 35)),
        ((1, 300, 512, 512), (512, 512), 4, (1, 1, 256, 128), (1, 1, 512, 512)),
        ((1, 300, 512, 512), (512, 512), 2, (1, 1, 256, 256), (1, 1, 512, 512)),
        ((3, 1, 1024, 2048), (512, 1024), 4, (1, 1, 128, 256), (1, 1, 768, 1536)),
        ((1, 1, 72, 80), (80, 80), 4, (1, 1, 72, 80), (1, 1, 72, 80)),
        ((2, 9, 35, 33), (10, 40, 32), 4, (1, 9, 35, 32), (1, 9, 35, 33)),
        ((4, 138, 170, 138), (128, 160, 112), 4, (1, 32, 32, 32), (1, 128, 128, 96)),
        ((1, 138, 170, 138), (128, 160, 112), 2, (1, 32, 64, 32), (1, 138, 170, 128)),
        ((1, 138, 170, 138), CUBE, 1, (1, 64, 64, 32), (1, 138, 170, 138)),
        ((1, 14, 237, 208), (14, 256, 224), 4, (1, 4, 128, 64), (1, 14, 237, 208)),
        ((1, 600, 600, 600), (192, 192, 192), 4, (1, 32, 32, 32), (1, 128, 128, 96)),
        ((1, 200, 20, 20), CUBE, 4, (1, 128, 16, 16), (1, 192, 20, 20)),
        ((1, 100, 100, 100), (64, 192, 160), 4, (1, 32, 32, 32), (1, 96, 100, 100)),
        ((1, 64, 64, 64), (1, 64, 64), 4, (1, 1, 64, 64), (1, 1, 64, 64)),
        ((1, 64, 640, 640), (1, 64, 64), 4, (1, 1, 64, 64), (1, 1, 96, 96)),
        ((2, 1, 237, 208), (256, 224), 4, (1, 1, 237, 128), (1, 1, 237, 208)),
    ],
)
def test_table(
    image: tuple[int, ...], patch: tuple[int, ...], itemsize: int, block: tuple[int, ...], chunk: tuple[int, ...]
) -> None:
    assert comp_blosc2_params(image, patch, itemsize) == (block, chunk)


def test_larger_blocks_on_request() -> None:
    assert comp_blosc2_params((1, 432, 512, 512), CUBE, 4, max_block_nbytes=2**19) == (
        (1, 64, 64, 32),
        (1, 128, 128, 96),
    )


@pytest.mark.parametrize(("image", "patch"), [((3, 4, 5), CUBE), ((1, 4, 5, 6), (4,)), ((1, 0, 5, 6), CUBE)])
def test_impossible_sizes_are_refused(image: tuple[int, ...], patch: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected four"):
        comp_blosc2_params(image, patch)


def test_filter_is_the_one_that_compresses_better() -> None:
    smooth = np.linspace(0, 1, 64 * 64 * 64, dtype=np.float32).reshape(1, 64, 64, 64)
    labels = np.zeros((1, 64, 64, 64), np.int16)
    chosen = [
        select_filter(array, (1, 32, 32, 32), (1, 64, 64, 64), blosc2.Codec.LZ4HC, 5) for array in (smooth, labels)
    ]
    assert chosen == [blosc2.Filter.SHUFFLE, blosc2.Filter.NOFILTER]


def test_a_small_array_with_one_channel_ends_the_search() -> None:
    array = np.zeros((1, 24, 56, 56), np.float32)
    assert select_filter(array, (1, 32, 64, 64), (1, 24, 56, 56), blosc2.Codec.LZ4HC, 5) is blosc2.Filter.NOFILTER
