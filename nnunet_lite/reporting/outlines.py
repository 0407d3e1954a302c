"""Outlines of classes along the borders of their voxels, as SVG paths, and their colours."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

_GOLDEN_ANGLE = 0.381966  # of a full turn: successive hues never come close to one another
_COLOURS = (  # on dark and gray; those of a line lie far apart
    *("#ff5a36", "#2fc4ff"),
    *("#ffd02e", "#b08cff"),
    *("#4be07a", "#ff7ad1"),
    *("#ff9d2e", "#7df0e0"),
)
PAIRS = len(_COLOURS) // 2  # classes up to which reference and prediction have colours of their own

_LETTERS_OF_CORNER = 2  # of a path, at least
_BORDERS = 20  # per letter of the longest path; more are smoothed first, since following them takes seconds

Step = tuple[int, int]  # along (y, x)


def outline_colour(index: int) -> str:
    """The colour of class `index` (from 0), bright enough for a dark image."""
    if index < len(_COLOURS):
        return _COLOURS[index]
    turn = index - len(_COLOURS)
    red, green, blue = colorsys.hls_to_rgb(turn * _GOLDEN_ANGLE % 1, (0.72, 0.66, 0.82)[turn % 3], 0.9)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def colours_of_class(number: int, classes: int) -> tuple[str, str]:
    """Colours of the reference and of the prediction of class `number` among so many; the same one if they are many."""
    if classes <= PAIRS:
        return outline_colour(2 * number), outline_colour(2 * number + 1)
    return outline_colour(number), outline_colour(number)


def outline_path(mask: NDArray[np.bool_], longest: int = 12_000) -> str:
    """The outline of a mask (y, x) as the `d` of an SVG path in voxels, x to the right, y down; "" for none.

    Follows the borders of voxels exactly; if that took more than `longest` letters, borders of blocks of voxels that
    are half full or more.
    """
    block = 1
    while True:
        coarse = _coarser(mask, block)
        is_last = block >= max(mask.shape)
        # noise is not followed at all: every corner takes two letters and more, every border some time
        if is_last or (_LETTERS_OF_CORNER * _corners(coarse) <= longest and _borders(coarse) <= _BORDERS * longest):
            path = _path(coarse, block)
            if is_last or len(path) <= longest:
                return path
        block *= 2


def _corners(mask: NDArray[np.bool_]) -> int:
    """How many times the outlines of a mask turn."""
    padded = np.pad(mask, 1)
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    touching = (a == d) & (b == c) & (a != b)  # two voxels at a corner
    return int(np.count_nonzero(a ^ b ^ c ^ d)) + 2 * int(np.count_nonzero(touching))


def _borders(mask: NDArray[np.bool_]) -> int:
    """Borders of voxels along the outlines of a mask."""
    padded = np.pad(mask, 1)
    return sum(int(np.count_nonzero(np.diff(padded, axis=axis))) for axis in (0, 1))


def _coarser(mask: NDArray[np.bool_], block: int) -> NDArray[np.bool_]:
    if block == 1:
        return mask
    height, width = (-(-size // block) * block for size in mask.shape)
    padded = np.zeros((height, width), bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    share = padded.reshape(height // block, block, width // block, block).mean((1, 3))
    return np.asarray(share >= 0.5)


def _path(mask: NDArray[np.bool_], block: int) -> str:
    """All closed outlines of a mask; the mask lies on the right of their direction."""
    steps = _steps(mask)
    parts: list[str] = []
    for start in list(steps):
        while start in steps:
            parts.append(_loop(start, steps, block))
    return "".join(parts)


def _steps(mask: NDArray[np.bool_]) -> dict[Step, list[Step]]:
    """Corner (y, x) -> directions of the voxel borders that begin there."""
    padded = np.pad(mask, 1).astype(np.int8)
    steps: dict[Step, list[Step]] = {}
    rows = np.diff(padded, axis=0)[:, 1:-1]  # (y of the border, x of the voxel); +1: the mask lies below
    for sign, shift, direction in ((1, 0, (0, 1)), (-1, 1, (0, -1))):
        for y, x in zip(*(axis.tolist() for axis in np.nonzero(rows == sign)), strict=True):
            steps.setdefault((y, x + shift), []).append(direction)
    columns = np.diff(padded, axis=1)[1:-1]  # +1: the mask lies to the right
    for sign, shift, direction in ((1, 1, (-1, 0)), (-1, 0, (1, 0))):
        for y, x in zip(*(axis.tolist() for axis in np.nonzero(columns == sign)), strict=True):
            steps.setdefault((y + shift, x), []).append(direction)
    return steps


def _loop(start: Step, steps: dict[Step, list[Step]], block: int) -> str:
    """Follow borders from a corner until they end there, and take them out; straight runs become one command."""
    here, direction, run = start, (0, 0), 0
    words = [f"M{start[1] * block} {start[0] * block}"]
    while here in steps:
        choices = steps[here]
        # where two voxels touch at a corner: the right turn, which keeps them apart
        right = (direction[1], -direction[0])
        following = right if len(choices) > 1 and right in choices else choices[0]
        choices.remove(following)
        if not choices:
            del steps[here]
        if following != direction and run:
            words.append(_command(direction, run * block))
            run = 0
        direction, run = following, run + 1
        here = (here[0] + direction[0], here[1] + direction[1])
        if here == start:
            break
    words.append("z")  # draws the last run
    return "".join(words)


def _command(direction: Step, length: int) -> str:
    y, x = direction
    return f"h{x * length}" if x else f"v{y * length}"
