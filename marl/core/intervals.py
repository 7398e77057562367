"""Means and rates with their 95% confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% confidence interval over ``n`` values."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.low)

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


def mean_interval(values: np.ndarray) -> Interval:
    """Return the mean with Student's t interval; the interval of a single value is unbounded."""
    values = np.asarray(values, dtype=np.float64)
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Interval(mean, -math.inf, math.inf, n)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def rate_interval(successes: np.ndarray) -> Interval:
    """Return the rate of successes with Wilson's interval."""
    n, k = len(successes), int(np.sum(successes))
    ci = stats.binomtest(k, n).proportion_ci(confidence_level=0.95, method="wilson")
    return Interval(k / n, float(ci.low), float(ci.high), n)
