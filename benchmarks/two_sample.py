"""Tests of whether two samples come from one distribution, with effect sizes and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[Any]


class Test(NamedTuple):
    """One comparison. The effect is the largest distance of the distribution functions (KS) or Cramer's V (chi2)."""

    what: str
    kind: str
    upstream: str
    ours: str
    p: float
    effect: float


def continuous(what: str, upstream: Array, ours: Array) -> Test:
    """Kolmogorov-Smirnov; the columns show mean and range."""
    if len(upstream) == 0 or len(ours) == 0:
        return Test(what, "KS", f"n={len(upstream)}", f"n={len(ours)}", float(len(upstream) == len(ours)), 0)
    found = stats.ks_2samp(upstream, ours)
    return Test(what, "KS", _summary(upstream), _summary(ours), float(found.pvalue), float(found.statistic))


def categories(what: str, upstream: Array, ours: Array) -> Test:
    """Chi-square on how often each value occurs; rare values count as one. Two values: Fisher's exact test."""
    values = np.unique(np.concatenate([upstream, ours]))
    table = np.array([[np.count_nonzero(side == value) for value in values] for side in (upstream, ours)])
    rare = table.sum(0) < 10
    if rare.sum() > 1 and (~rare).any():
        table = np.column_stack([table[:, ~rare], table[:, rare].sum(1)])
    if table.shape[1] == 1:
        return Test(what, "same", f"{values[0]:g} always", f"{values[0]:g} always", 1.0, 0.0)
    if table.shape[1] == 2:
        p = float(stats.fisher_exact(table).pvalue)
        columns = [f"{row[1] / row.sum():.4f} of {row.sum()}" for row in table]
    else:
        p = float(stats.chi2_contingency(table).pvalue)
        columns = [f"{table.shape[1]} values, n={row.sum()}" for row in table]
    statistic = stats.chi2_contingency(table, correction=False).statistic
    return Test(what, "chi2" if table.shape[1] > 2 else "Fisher", *columns, p, float((statistic / table.sum()) ** 0.5))


def _summary(values: Array) -> str:
    return f"{values.mean():.4g} ({values.min():.4g} to {values.max():.4g}), n={len(values)}"


def rejected(tests: Sequence[Test], level: float) -> list[Test]:
    """The tests that fail when all of them together may fail by chance with this probability (Holm)."""
    failures = []
    for rank, test in enumerate(sorted(tests, key=lambda one: one.p)):
        if test.p > level / (len(tests) - rank):
            break
        failures.append(test)
    return failures


def format_table(tests: Sequence[Test]) -> str:
    """A markdown table."""
    lines = ["| what | test | upstream | ours | p | effect |", "|---|---|---|---|---|---|"]
    lines += [f"| {t.what} | {t.kind} | {t.upstream} | {t.ours} | {t.p:.3g} | {t.effect:.3f} |" for t in tests]
    return "\n".join(lines)
