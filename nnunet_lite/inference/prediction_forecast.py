"""How far a prediction is and how long it will take: one bar over all tiles of all cases, or plain lines in a log.

Images are cropped before they are predicted, so tiles counted from headers are an upper bound; the number of a case is
corrected when its turn comes. Time per tile is measured: the first pass, with what is set up in it, does not count.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from nnunet_lite.utilities.durations import duration
from nnunet_lite.utilities.logging import logger, stderr_is_terminal
from nnunet_lite.utilities.wording import counted

_MEASURED = 3.0  # seconds of tiles before the first forecast
_WORTH_SAYING = 20.0  # seconds; of shorter predictions nobody needs a forecast
_ALL_LINES = 20  # cases; of more of them not each gets a line
_BETWEEN_LINES = 30.0  # seconds between lines of many cases
_SIGN_OF_LIFE = 300.0  # seconds between lines of a long case


class Forecast:
    """The time left of work that is counted in tiles.

    Args:
        expected: tiles of each case in order; None where the header does not tell.
        clock: seconds.
    """

    def __init__(self, expected: Sequence[int | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        known = [tiles for tiles in expected if tiles is not None]
        average = round(sum(known) / len(known)) if known else 0
        self._left = deque(average if tiles is None else tiles for tiles in expected)  # present case first
        self._ahead = sum(self._left)
        self._past = 0  # tiles of cases that are over
        self._current = 0  # tiles of the present case that are done
        self._first: tuple[float, int] | None = None  # time and tiles after the first pass

    @property
    def done(self) -> int:
        """Tiles that are done."""
        return self._past + self._current

    @property
    def total(self) -> int:
        """Tiles of all cases, as far as that is known now."""
        return self._past + self._ahead

    def begin(self, tiles: int) -> None:
        """The present case turns out to have so many tiles; once more, where it starts over."""
        expected = self._left.popleft() if self._left else 0
        self._left.appendleft(tiles)
        self._ahead += tiles - expected
        self._current = 0

    def update(self, tiles: int) -> None:
        """So many tiles of the present case are done."""
        self._current += tiles
        if self._first is None:
            self._first = (self._clock(), self.done)

    def end(self) -> None:
        """The present case is over, whether all of its tiles came or not."""
        self._ahead -= self._left.popleft() if self._left else 0
        self._past += self._current
        self._current = 0

    def measured(self) -> float:
        """Seconds of measuring so far."""
        return 0.0 if self._first is None else self._clock() - self._first[0]

    def remaining(self) -> float | None:
        """Seconds that the tiles left will take at the speed so far; None as long as that is unknown."""
        if self._first is None or self.done <= self._first[1]:
            return None
        seconds_per_tile = self.measured() / (self.done - self._first[1])
        return seconds_per_tile * max(0, self.total - self.done)


class PredictionProgress:
    """Says how far a prediction is; the network's side counts tiles with `reset` and `update`.

    Args:
        tiles: of each case in order, from headers, all members of an ensemble together; None: nobody knows how many
            cases will come.
        show_bar: a bar instead of lines, where there is a terminal.
        skipped: cases that were done before.
        copies: mirrored copies that are predicted of each tile.
        clock: seconds.
        name_cases: False leaves it to the caller to say which case is predicted, lines of a long case excepted.
    """

    def __init__(
        self,
        tiles: Sequence[int | None] | None,
        show_bar: bool,
        skipped: int = 0,
        copies: int = 1,
        clock: Callable[[], float] = time.monotonic,
        *,
        name_cases: bool = True,
    ) -> None:
        self._forecast = Forecast(tiles or (), clock)
        self._number = None if tiles is None else len(tiles)
        self._skipped = skipped
        self._copies = copies
        self._clock = clock
        self._start = self._said = clock()
        self._name = ""
        self._through = 0  # cases that the network is done with
        self._told = False  # the first forecast
        self._name_cases = name_cases
        self._bar = _bar(self._forecast.total) if show_bar and _has_room_for_a_bar() else None

    def __enter__(self) -> PredictionProgress:
        if self._number is not None:
            total = self._forecast.total
            tiles = f", at most {counted(total, 'tile')}" if total else ""
            copies = f" ({self._copies} mirrored copies of each)" if self._copies > 1 and tiles else ""
            logger.info("Predicting %s%s%s", counted(self._number, "case"), tiles, copies)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def case(self, name: str) -> None:
        """A case comes to the network."""
        self._name = name
        if self._bar is not None:
            self._bar.set_description(name, refresh=True)

    def reset(self, total: float | None = None) -> None:
        """The present case has so many tiles."""
        self._forecast.begin(int(total or 0))
        self._refresh()

    def update(self, n: float | None = 1) -> None:
        """So many tiles of it are done."""
        self._forecast.update(int(n or 0))
        self._refresh()
        left = self._forecast.remaining()
        if not self._told and left is not None and self._forecast.measured() >= _MEASURED:
            self._told = True
            if self._bar is None and left > _WORTH_SAYING:
                logger.info("It will take about %s (the first tiles were measured)", duration(left))
        elif self._bar is None and self._clock() - self._said > _SIGN_OF_LIFE:
            self._say(f"{self._so_far()}, now {self._name}")

    def case_ended(self, name: str, failed: bool = False) -> None:
        """The network is done with a case, or it never came so far."""
        self._forecast.end()
        self._refresh()
        self._through += 1
        recently = self._clock() - self._said < _BETWEEN_LINES and (self._number or 0) > _ALL_LINES
        says = self._name_cases and self._bar is None
        if says and (failed or not recently or self._through == self._number):
            self._say(f"{self._so_far()}: {name}{' failed' if failed else ''}")

    def finished(self, done: int, place: str | None) -> None:
        """The last line: how many cases are predicted and where, a folder or the only file."""
        where = f": {os.path.abspath(place)}" if place else ""
        before = f" ({self._skipped} were there already)" if self._skipped else ""
        logger.info("%s predicted in %s%s%s", counted(done, "case"), self._elapsed(), before, where)

    def forecast(self) -> str:
        """The time left, to follow what is said; nothing as long as that is unknown."""
        left = self._forecast.remaining()
        return f", about {duration(left)} left" if left and self._through != self._number else ""

    def _say(self, what: str) -> None:
        logger.info("%s, %s%s", what, self._elapsed(), self.forecast())
        self._said = self._clock()

    def _so_far(self) -> str:
        if self._number is None:
            return counted(self._through, "case")
        return f"{self._through} of {counted(self._number, 'case')}"

    def _elapsed(self) -> str:
        return precise_duration(self._clock() - self._start)

    def _refresh(self) -> None:
        if self._bar is not None:
            self._bar.total = self._forecast.total
            self._bar.update(self._forecast.done - self._bar.n)


def precise_duration(seconds: float) -> str:
    """Seconds of something that is over: 0.4 s, 42 s, 1 min 3 s, then as a forecast has it."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if 60 <= whole < 600 else duration(seconds)


def _has_room_for_a_bar() -> bool:
    """Whether stderr is a terminal; one without a width (docker run -t, CI) gets lines, it would show no bar."""
    if not stderr_is_terminal():
        return False
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns != 0
    except (OSError, ValueError):  # a terminal only by its word
        return True


def _bar(total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit="tile", smoothing=0.05, leave=False, dynamic_ncols=True)
