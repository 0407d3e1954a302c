"""The pooled statistics are the limit of upstream's sampling."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.experiment_planning.intensity_statistics import pooled_properties, summarize, summary_size


def sampled(cases: list[np.ndarray], number: int) -> dict[str, float]:
    """What upstream does, with `number` samples per case."""
    pool = np.concatenate([case[np.random.RandomState(1234).randint(0, len(case), number)] for case in cases])
    low, median, high = np.percentile(pool, [0.5, 50, 99.5])
    return {
        "max": pool.max(),
        "mean": pool.mean(dtype=float),
        "median": median,
        "min": pool.min(),
        "percentile_00_5": low,
        "percentile_99_5": high,
        "std": pool.std(dtype=float),
    }


@pytest.mark.parametrize("size", [4096, 10**6])
def test_equals_sampling_with_equal_weight_per_case(size):
    rng = np.random.default_rng(0)
    cases = [rng.normal(1000 * i, 100 + 50 * i, 3000 * (i + 1)).astype(np.float32) for i in range(4)]
    found, expected = pooled_properties([summarize(case, size) for case in cases]), sampled(cases, 400_000)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=5e-3, abs=3), key
    assert found["max"] == max(case.max() for case in cases)
    assert found["mean"] == pytest.approx(np.mean([case.mean(dtype=float) for case in cases]), rel=1e-9)


def test_merging_moves_percentiles_by_less_than_two_hundredths_of_a_percent():
    values = np.random.default_rng(0).lognormal(5, 1, 200_000).astype(np.float32)
    summary = summarize(values, summary_size(10**4))
    assert summary.values.size <= 4097 and summary.counts.sum() == values.size
    exact, merged = pooled_properties([summarize(values, values.size)]), pooled_properties([summary])
    for key, percent in (("percentile_00_5", 0.5), ("median", 50), ("percentile_99_5", 99.5)):
        assert exact[key] == np.sort(values)[int(np.ceil(percent / 100 * values.size)) - 1]
        assert (values <= merged[key]).mean() == pytest.approx(percent / 100, abs=2e-4)
    for key in ("mean", "std", "min", "max"):
        assert merged[key] == exact[key]


def test_a_single_value_and_cases_without_foreground():
    none, one = summarize(np.empty(0, np.float32), 100), summarize(np.full(7, 3, np.float32), 100)
    assert pooled_properties([none, one]) == {
        "max": 3,
        "mean": 3,
        "median": 3,
        "min": 3,
        "percentile_00_5": 3,
        "percentile_99_5": 3,
        "std": 0,
    }
    with pytest.raises(DatasetError, match="foreground"):
        pooled_properties([none, none])


def test_summary_size_bounds_memory():
    assert summary_size(1) == 65536 and summary_size(100_000) == 4096
