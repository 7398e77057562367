"""Means and rates with their 95% confidence intervals.

Quantiles come from ``scipy.special``. ``scipy.stats`` has ready-made intervals, but takes half as long to import as
torch, and every run would wait for it. ``scipy.special`` is imported only when a quantile is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Limits = tuple[float, float]  # the smallest and the largest value that a mean can have
ANY: Limits = (-math.inf, math.inf)
RESAMPLES = 10_000


def limits(metric: str) -> Limits:
    """Return the smallest and the largest value of a metric: 0 and 1 for a win rate."""
    return (0.0, 1.0) if metric.endswith("win_rate") else ANY


def difference_limits(metric: str) -> Limits:
    """Return the smallest and the largest difference between two values of a metric: -1 and 1 for a win rate."""
    low, high = limits(metric)
    return low - high, high - low


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% confidence interval over ``n`` values. It prints as ``0.83 [0.75, 0.88], n=100``."""

    mean: float
    low: float
    high: float
    n: int

    def __repr__(self) -> str:
        return f"{self.mean:.2f}" + (f" [{self.low:.2f}, {self.high:.2f}]" if self.bounded else "") + f", n={self.n}"

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.low)

    def within(self, limits: Limits) -> Interval:
        """Return the interval clipped to ``limits``; an unbounded one stays unbounded."""
        return replace(self, low=max(self.low, limits[0]), high=min(self.high, limits[1])) if self.bounded else self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Interval:
        """Read an interval back from the dict that ``as_dict`` made."""
        low = -math.inf if values["low"] is None else float(values["low"])
        high = math.inf if values["high"] is None else float(values["high"])
        return cls(float(values["mean"]), low, high, int(values["n"]))

    def as_dict(self) -> dict[str, float | None]:
        """Return a dict for JSON, which has no infinity: an unbounded end becomes None."""
        low, high = (end if math.isfinite(end) else None for end in (self.low, self.high))
        return {"mean": self.mean, "low": low, "high": high, "n": self.n}


def student(freedom: float) -> float:
    """Return the 97.5% quantile of Student's t distribution."""
    from scipy.special import stdtrit  # see above

    return float(stdtrit(freedom, 0.975))


def mean_interval(values: np.ndarray, possible: Limits = ANY) -> Interval:
    """Return the mean with Student's t interval, clipped to ``possible``; it is unbounded for a single value."""
    values = np.asarray(values, dtype=np.float64)
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Interval(mean, -math.inf, math.inf, n)
    half = float(student(n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n).within(possible)


def bootstrap_bounds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the percentile bootstrap interval of the mean over axis 0. They lie within the range of
    the values, even for two runs, and are the same in every call."""
    n = len(values)
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)  # [resamples, n]
    low, high = np.quantile(counts @ values / n, (0.025, 0.975), axis=0)
    return np.clip(low, values.min(0), values.max(0)), np.clip(high, values.min(0), values.max(0))


def bootstrap_interval(values: np.ndarray) -> Interval:
    """Return the mean with its percentile bootstrap interval, which is unbounded for a single value."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return mean_interval(values)
    low, high = bootstrap_bounds(values)
    return Interval(float(values.mean()), float(low), float(high), len(values))


def rate_interval(successes: np.ndarray) -> Interval:
    """Return the success rate with Wilson's interval (Wilson 1927), as in ``scipy.stats.binomtest``."""
    from scipy.special import ndtri  # see above

    n, k, z = len(successes), int(np.sum(successes)), float(ndtri(0.975))
    p = k / n
    center, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((center + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    return Interval(p, low if k > 0 else 0.0, high if k < n else 1.0, n)
