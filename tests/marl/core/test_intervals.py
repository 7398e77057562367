"""Intervals by our few lines equal those of ``scipy.stats``; importing the framework does not wait for it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from marl.core.intervals import mean_interval, rate_interval


@pytest.mark.parametrize("n", [1, 2, 3, 10, 32, 1000])
def test_rates_have_the_interval_of_wilson(n: int) -> None:
    for k in {0, 1, n // 3, n - 1, n}:
        found = rate_interval(np.arange(n) < k)
        expected = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
        assert (found.mean, found.n) == (k / n, n)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert 0.0 <= found.low <= found.mean <= found.high <= 1.0


def test_eight_wins_of_ten_by_hand() -> None:
    """(0.8 + 3.8415 / 20 -+ 1.96 * sqrt(0.16 / 10 + 3.8415 / 400)) / (1 + 0.38415)."""
    found = rate_interval(np.arange(10) < 8)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@pytest.mark.parametrize("n", [2, 3, 5, 50])
def test_means_have_the_interval_of_student(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    found = mean_interval(values)
    expected = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12)


def test_a_command_that_trains_does_not_load_scipy_stats() -> None:
    """And only one that has something to measure loads ``scipy.special``."""
    code = "import sys, scripts.train; sys.exit(bool({'scipy.stats', 'scipy.special'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], timeout=600).returncode == 0
