"""Forecasts from plain numbers and a clock that the test turns."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nnunet_lite.inference.prediction_forecast import Forecast, PredictionProgress, precise_duration


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_known_before_a_tile_was_measured() -> None:
    clock = Clock()
    forecast = Forecast([10, 30], clock)
    assert (forecast.total, forecast.done, forecast.remaining()) == (40, 0, None)
    forecast.begin(10)
    clock.now += 60  # set-up of the first pass
    forecast.update(2)
    assert forecast.remaining() is None
    clock.now += 4
    forecast.update(2)
    assert forecast.remaining() == pytest.approx(36 * 2.0)


def test_the_number_of_tiles_is_corrected_when_a_case_comes() -> None:
    forecast = Forecast([10, 30, 20], Clock())
    forecast.begin(4)
    assert forecast.total == 54
    forecast.update(4)
    forecast.end()
    forecast.begin(40)
    assert (forecast.total, forecast.done) == (64, 4)


def test_a_case_that_starts_over_counts_once() -> None:
    forecast = Forecast([10, 5], Clock())
    forecast.begin(10)
    forecast.update(7)
    forecast.begin(10)
    assert (forecast.total, forecast.done) == (15, 0)
    forecast.update(10)
    forecast.end()
    assert (forecast.total, forecast.done) == (15, 10)


def test_tiles_of_a_failed_case_will_not_come() -> None:
    forecast = Forecast([10, 6, 5], Clock())
    forecast.begin(10)
    forecast.update(3)
    forecast.end()  # in the network
    forecast.end()  # before it
    assert (forecast.total, forecast.done) == (8, 3)


def test_cases_of_unknown_size_count_as_the_others_on_average() -> None:
    assert Forecast([10, None, 20]).total == 45
    assert Forecast([None, None]).total == 0
    unknown = Forecast([])
    unknown.begin(7)
    assert unknown.total == 7


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (9.97, "10 s"), (42, "42 s"), (63, "1 min 3 s"), (599, "9 min 59 s"), (1500, "25 min")],
)
def test_durations_of_what_is_over(seconds: float, text: str) -> None:
    assert precise_duration(seconds) == text


@contextmanager
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    caplog.clear()
    found: list[str] = []
    with caplog.at_level(logging.INFO, "nnunet_lite"):
        yield found
    found += [record.getMessage() for record in caplog.records]


def run_cases(progress: PredictionProgress, clock: Clock, cases: int, tiles: int, seconds: float) -> None:
    for number in range(cases):
        progress.case(f"case_{number}")
        progress.reset(tiles)
        for _ in range(tiles):
            clock.now += seconds
            progress.update(1)
        progress.case_ended(f"case_{number}")


def test_a_log_has_plain_lines(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with lines(caplog) as said, PredictionProgress([10, 10, 10], True, 2, 8, clock) as progress:
        run_cases(progress, clock, 2, 10, 2.0)
        progress.case_ended("case_2", failed=True)
        progress.finished(2, "/somewhere/out")
    assert said == [
        "Predicting 3 cases, at most 30 tiles (8 mirrored copies of each)",
        "It will take about 54 s (the first tiles were measured)",
        "1 of 3 cases: case_0, 20 s, about 40 s left",
        "2 of 3 cases: case_1, 40 s, about 20 s left",
        "3 of 3 cases: case_2 failed, 40 s",
        "2 cases predicted in 40 s (2 were there already): /somewhere/out",
    ]
    assert capfd.readouterr().err == "", "no bar outside a terminal"


def test_many_short_cases_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with lines(caplog) as said, PredictionProgress([2] * 500, True, clock=clock) as progress:
        run_cases(progress, clock, 500, 2, 0.1)
    assert 4 <= len(said) <= 8 and said[-1].startswith("500 of 500 cases: case_499")


def test_a_long_case_gives_signs_of_life(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with lines(caplog) as said, PredictionProgress([1000], True, clock=clock) as progress:
        run_cases(progress, clock, 1, 1000, 2.0)
    assert said[1:3] == [
        "It will take about 33 min (the first tiles were measured)",
        "0 of 1 case, now case_0, 5 min 2 s, about 28 min left",
    ]


def test_a_stream_of_unknown_length(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with lines(caplog) as said, PredictionProgress(None, True, clock=clock) as progress:
        run_cases(progress, clock, 2, 3, 1.0)
        progress.finished(2, None)
    assert said == ["1 case: case_0, 3.0 s", "2 cases: case_1, 6.0 s", "2 cases predicted in 6.0 s"]


def test_a_terminal_gets_one_bar_over_everything(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    clock = Clock()
    with lines(caplog) as said, PredictionProgress([4, 4], True, clock=clock) as progress:
        progress.case("first")
        progress.reset(2)
        progress.update(2)
        assert progress._bar is not None
        assert (progress._bar.total, progress._bar.n, progress._bar.desc) == (6, 2, "first: ")
        progress.case_ended("first")
    assert len(said) == 1
    with PredictionProgress([4, 4], False, clock=clock) as progress:
        assert progress._bar is None


@pytest.mark.parametrize(("columns", "bar"), [(0, False), (80, True)])
def test_a_terminal_without_a_width_gets_lines(monkeypatch: pytest.MonkeyPatch, columns: int, bar: bool) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns, 0)))
    with PredictionProgress([4, 4], True) as progress:
        assert (progress._bar is not None) == bar
