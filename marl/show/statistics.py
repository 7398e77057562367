"""Statistics over tasks and seeds as Agarwal et al. (2021, "Deep reinforcement learning at the edge of the statistical
precipice") recommend them, with their library rliable: ``pip install -e .[report]``.

rliable takes a ``random_state``, but resamples from NumPy's global generator. That is seeded here for every estimate,
and restored: equal input gives equal intervals, whatever was sampled before and whichever other methods are compared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np

from marl.core.intervals import limits
from marl.core.seeding import globals_kept
from marl.core.types import ConfigError
from marl.run.progress import quiet
from marl.show.gather import Tasks
from marl.show.scores import Bound, Limits, Scores, scores_of

REPS = 2000  # resamples of an interval
TAUS = np.linspace(0.0, 1.0, 101)  # where profiles are taken
STATISTICS = ("iqm", "median", "mean", "optimality_gap")


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95% interval; ``low`` and ``high`` are None where seeds are too few for one."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Pair:
    """The probability that a run of ``first`` scores higher than one of ``second``, averaged over tasks; ties count
    half."""

    first: str
    second: str
    probability: Estimate


@dataclass(frozen=True)
class Band:
    """A statistic along ``x`` [S], with the ends of its 95% interval at each point; None where there is none."""

    x: list[float]
    value: list[float]
    low: list[float] | None
    high: list[float] | None


@dataclass(frozen=True)
class Aggregate:
    """The results of methods over ``tasks``, all from normalised scores (``marl.show.scores.Scores``).

    ``intervals`` holds the estimates of ``STATISTICS`` for each method, ``pairs`` every ordered pair of methods,
    ``profiles`` the share of runs above a score along the score, ``curves`` the IQM along environment steps.
    ``scores`` are final scores [seeds, tasks] of each method, ``seeds`` which seeds they are by method and task.
    ``limits`` and ``scale`` say how scores were normalised, ``notes`` what could not be used or computed.
    """

    key: str
    tasks: list[str]
    seeds: dict[str, dict[str, list[int]]]
    limits: Limits
    scale: str
    scores: dict[str, list[list[float]]]
    intervals: dict[str, dict[str, Estimate]]
    pairs: list[Pair]
    profiles: dict[str, Band]
    curves: dict[str, Band]
    notes: list[str]

    @property
    def methods(self) -> list[str]:
        return list(self.intervals)

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON."""
        return asdict(self)


def load_rliable() -> tuple[ModuleType, ModuleType]:
    """Return ``rliable.library`` and ``rliable.metrics``; raise ConfigError if they are not installed, or not with
    versions of other packages that they work with."""
    try:
        # absl, which rliable logs with, keeps sys.stderr as it was at import and closes it when logging is set up again
        with redirect_stderr(sys.__stderr__):
            from rliable import library, metrics
    except ImportError as error:
        raise ConfigError("statistics need rliable: pip install -e .[report]") from error
    except TypeError as error:  # arch before 8, which rliable needs, with pandas 3
        raise ConfigError(
            f"statistics need rliable, which does not load beside pandas {version('pandas')}: pip install -e .[report]"
        ) from error
    return library, metrics


def aggregate(
    tasks: Tasks, key: str, *, last: int = 1, seed: int = 0, low: Bound = None, high: Bound = None,
    versus: str | None = None, reps: int = REPS,
) -> Aggregate:  # fmt: skip
    """Return the results of the groups of runs in ``tasks`` (``marl.show.gather.gather``) in the scalar ``key``.

    A method is a group; groups of the same name on different tasks are the same method. Intervals are 95% percentile
    intervals of ``reps`` stratified bootstraps, which resample seeds within each task and are seeded by ``seed``.
    ``last``, ``low`` and ``high`` are those of ``marl.show.scores.scores_of``. With ``versus``, pairs are only those
    with this method. Raise ConfigError for a ``versus`` that is no group, for bad bounds, and where rliable is missing.
    """
    known = sorted({label for groups in tasks.values() for label in groups})
    if versus is not None and versus not in known:
        raise ConfigError(f"versus={versus} is no group of these runs; there are {', '.join(known)}")
    library, metrics = load_rliable()
    scores = scores_of(tasks, key, last=last, low=low, high=high)
    estimates = _Estimates(library, metrics, reps, seed, rate=limits(key) == (0, 1))
    notes = [*scores.notes, *_few(scores)]
    return Aggregate(
        key=key,
        tasks=scores.tasks,
        seeds=scores.seeds,
        limits=scores.limits,
        scale=scores.scale,
        scores={method: values.tolist() for method, values in scores.final.items()},
        intervals={method: estimates.statistics(values) for method, values in scores.final.items()},
        pairs=_pairs(scores, estimates, versus),
        profiles={method: estimates.profile(values) for method, values in scores.final.items()},
        curves={m: estimates.curve(scores.steps, values) for m, values in scores.curves.items() if len(scores.steps)},
        notes=notes,
    )


def _few(scores: Scores) -> list[str]:
    """Return notes on methods with too few seeds or scores."""
    notes = []
    if alone := [method for method, values in scores.final.items() if len(values) == 1]:
        notes.append(f"a single seed has no interval: {', '.join(alone)}")
    if small := [method for method, values in scores.final.items() if values.size < 4]:
        notes.append(f"of fewer than four scores nothing is trimmed, and the IQM is the mean: {', '.join(small)}")
    return notes


def _pairs(scores: Scores, estimates: _Estimates, versus: str | None) -> list[Pair]:
    """Return every ordered pair; the second order of two methods is the complement of the first."""
    pairs = []
    for i, first in enumerate(scores.methods):
        for second in scores.methods[i + 1 :]:
            if versus is None or versus in (first, second):
                forth = estimates.improvement(scores.final[first], scores.final[second])
                low, high = (None if end is None else 1 - end for end in (forth.high, forth.low))
                pairs += [Pair(first, second, forth), Pair(second, first, Estimate(1 - forth.value, low, high))]
    if versus is not None:
        pairs = [pair for pair in pairs if pair.second == versus]
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def improvement(first: np.ndarray, second: np.ndarray) -> float:
    """Return ``metrics.probability_of_improvement`` of scores [seeds, tasks], without the p-value that scipy computes
    there for every task and resample."""
    ahead = first[:, None] - second[None]  # [seeds, seeds, tasks]
    return float((ahead > 0).mean() + 0.5 * (ahead == 0).mean())


@dataclass(frozen=True)
class _Estimates:
    """Statistics of scores [seeds, tasks, ...] with the intervals of rliable."""

    library: ModuleType
    metrics: ModuleType
    reps: int
    seed: int
    rate: bool  # scores lie within 0 and 1

    def statistics(self, scores: np.ndarray) -> dict[str, Estimate]:
        """Return the estimates of ``STATISTICS`` over final scores [seeds, tasks]."""
        m = self.metrics
        functions = (m.aggregate_iqm, m.aggregate_median, m.aggregate_mean, m.aggregate_optimality_gap)
        found = self._estimated(scores, lambda drawn: np.array([f(drawn) for f in functions]), self.rate)
        return dict(zip(STATISTICS, found, strict=True))

    def improvement(self, first: np.ndarray, second: np.ndarray) -> Estimate:
        """Return the probability that a run of the ``first`` scores higher."""
        return self._estimated([first, second], lambda x, y: np.array([improvement(x, y)]), True)[0]

    def profile(self, scores: np.ndarray) -> Band:
        """Return the share of all runs whose score is above each of ``TAUS`` (a score distribution)."""
        return _band(TAUS, self._estimated(scores, above, True))

    def curve(self, steps: np.ndarray, scores: np.ndarray) -> Band:
        """Return the IQM along ``steps`` [S] of scores [seeds, tasks, S]."""
        return _band(steps, self._estimated(scores, iqm_along, self.rate))

    def _estimated(
        self, scores: np.ndarray | list[np.ndarray], function: Callable[..., np.ndarray], rate: bool
    ) -> list[Estimate]:
        """Return a statistic [k] of scores with its intervals, cut at 0 and 1 for a ``rate``. A single seed has none,
        since resampling would only repeat it."""
        together = scores if isinstance(scores, list) else [scores]
        if min(map(len, together)) < 2:
            return [Estimate(value, None, None) for value in function(*together).tolist()]
        with quiet("absl"), globals_kept(self.seed):
            points, ends = self.library.get_interval_estimates({"": scores}, function, reps=self.reps)
        low, high = ends[""].clip(0, 1) if rate else ends[""]
        return [Estimate(*found) for found in zip(points[""].tolist(), low.tolist(), high.tolist(), strict=True)]


def _band(x: np.ndarray, found: list[Estimate]) -> Band:
    low = [one.low for one in found if one.low is not None]
    high = [one.high for one in found if one.high is not None]
    return Band(x.tolist(), [one.value for one in found], low or None, high or None)


def iqm_along(scores: np.ndarray) -> np.ndarray:
    """Return ``metrics.aggregate_iqm`` of scores [seeds, tasks, S] at each step, all steps in one call of scipy."""
    from scipy.stats import trim_mean  # takes long to import, as rliable does

    return np.asarray(trim_mean(scores.reshape(-1, scores.shape[-1]), 0.25, axis=0))


def above(scores: np.ndarray) -> np.ndarray:
    """Return the share of scores [seeds, tasks] above each of ``TAUS``, as ``library.create_performance_profile``."""
    return (scores[..., None] > TAUS).mean((0, 1))
