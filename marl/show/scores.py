"""The scores that methods are compared by: which tasks, methods and seeds take part, and on which scale.

Statistics over tasks and seeds need a rectangle: every method on the same tasks, and each with the same number of seeds
on all of them. What does not fit into it is left out, and ``notes`` say what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from marl.core.intervals import limits
from marl.core.types import ConfigError
from marl.show.gather import Run, Tasks
from marl.show.plot import curve

Bound = float | Mapping[str, float] | None  # of scores: of all tasks, or by task; None: that of the runs
Limits = dict[str, tuple[float, float]]  # task -> the values that become 0 and 1
POINTS = 21  # of sample-efficiency curves


@dataclass(frozen=True)
class Scores:
    """Normalised scores of ``methods`` on ``tasks``.

    ``final`` holds [seeds, tasks] for each method, ``curves`` [seeds, tasks, S] at the environment ``steps`` [S], and
    ``seeds`` which seeds those are. ``limits`` are the values that became 0 and 1, and ``scale`` says where they come
    from.
    """

    tasks: list[str]
    seeds: dict[str, dict[str, list[int]]]
    limits: Limits
    scale: str
    final: dict[str, np.ndarray]
    steps: np.ndarray
    curves: dict[str, np.ndarray]
    notes: list[str]

    @property
    def methods(self) -> list[str]:
        return list(self.final)


def require_bounds(low: Bound, high: Bound) -> None:
    """Raise ConfigError for bounds of scores of which one is missing, or that are in the wrong order."""
    if (low is None) != (high is None):
        raise ConfigError(f"scores.low={low} and scores.high={high} must be given together, or both be null")
    named = {*(low if isinstance(low, Mapping) else ()), *(high if isinstance(high, Mapping) else ())}
    for task in sorted(named) or [""]:
        ends = [bound.get(task) if isinstance(bound, Mapping) else bound for bound in (low, high)]
        where = f" of {task}" if task else ""
        for name, end in zip(("low", "high"), ends, strict=True):
            if low is not None and not (isinstance(end, int | float) and np.isfinite(end)):
                raise ConfigError(f"scores.{name}={end}{where} must be a number; a task's scores have two ends")
        if low is not None and not float(ends[0]) < float(ends[1]):  # type: ignore[arg-type]
            raise ConfigError(f"scores.low={ends[0]} must be below scores.high={ends[1]}{where}")


def scores_of(tasks: Tasks, key: str, *, last: int = 1, low: Bound = None, high: Bound = None) -> Scores:
    """Return the scores ``key`` of runs (``marl.show.gather.gather``) as far as they form a rectangle.

    A final score is the mean of a run's ``last`` tests. Rates are scores already. Others are normalised by their range,
    from ``low`` to ``high``, or, where these are None, from the least to the largest value in any test of a task's runs
    that take part. Raise ConfigError for bounds that are invalid, or lack a task.
    """
    require_bounds(low, high)
    notes: list[str] = []
    chosen = _equal_seeds(_common_tasks(_with_key(tasks, key, notes), notes), notes)
    ranges, scale = _ranges(chosen, key, low, high, notes)
    chosen = {task: groups for task, groups in chosen.items() if task in ranges}
    methods = sorted({label for groups in chosen.values() for label in groups})
    if late := [label for label in methods if any(r.unfinished for groups in chosen.values() for r in groups[label])]:
        notes.append(f"runs that have not come to their end take part: of {', '.join(late)}")
    drawn = {
        label: [[_normalised(run, key, ranges[task]) for task in chosen for run in [chosen[task][label][i]]]
                for i in range(len(next(iter(chosen.values()))[label]))]
        for label in methods
    }  # fmt: skip
    steps = _common_steps([c[0] for runs in drawn.values() for row in runs for c in row], notes)
    return Scores(
        tasks=list(chosen),
        seeds={label: {task: [run.seed for run in chosen[task][label]] for task in chosen} for label in methods},
        limits=ranges,
        scale=scale,
        final={label: np.array([[c[1][-last:].mean() for c in row] for row in runs]) for label, runs in drawn.items()},
        steps=steps,
        curves={
            label: np.array([[np.interp(steps, *c) for c in row] for row in runs]) for label, runs in drawn.items()
        },
        notes=notes,
    )


def _with_key(tasks: Tasks, key: str, notes: list[str]) -> Tasks:
    """Return the runs that have been tested for ``key``."""
    found: Tasks = {}
    for task, groups in tasks.items():
        for label, runs in groups.items():
            having = [run for run in runs if len(curve(run.rows, key)[0])]
            if having:
                found.setdefault(task, {})[label] = having
            if len(having) < len(runs):
                notes.append(f"{len(runs) - len(having)} of {len(runs)} runs of {label} in {task} have no {key}")
    return found


def _common_tasks(tasks: Tasks, notes: list[str]) -> Tasks:
    """Return the tasks that all methods have runs of."""
    methods = sorted({label for groups in tasks.values() for label in groups})
    common = {task: groups for task, groups in tasks.items() if len(groups) == len(methods)}
    for task in sorted(tasks.keys() - common.keys()) if common else ():
        missing = [label for label in methods if label not in tasks[task]]
        notes.append(f"{task} is left out, for it has no runs of {', '.join(missing)}")
    if not common:
        where = {label: [task for task in tasks if label in tasks[task]] for label in methods}
        held = "; ".join(f"{label} has {', '.join(have)}" for label, have in where.items())
        notes.append(f"no task has runs of all methods, so that nothing is compared ({held or 'there are no runs'})")
    return common


def _equal_seeds(tasks: Tasks, notes: list[str]) -> Tasks:
    """Return the same number of seeds of a method on every task: the smallest, as many as it has on each of them."""
    methods = sorted({label for groups in tasks.values() for label in groups})
    tasks = {
        task: {label: sorted(groups[label], key=lambda run: run.seed) for label in methods}
        for task, groups in tasks.items()
    }
    count = {label: min(len(groups[label]) for groups in tasks.values()) for label in methods}
    for label in methods:
        for task, groups in tasks.items():
            runs, n = groups[label], count[label]
            if len(runs) > n:
                used = ", ".join(str(run.seed) for run in runs[:n])
                notes.append(
                    f"{label} has {len(runs)} seeds on {task} and {n} elsewhere: only seeds {used} take part there"
                )
    if len(set(count.values())) > 1:
        held = ", ".join(f"{label} {n}" for label, n in count.items())
        notes.append(f"methods have different numbers of seeds: {held}")
    return {task: {label: groups[label][: count[label]] for label in methods} for task, groups in tasks.items()}


def _ranges(tasks: Tasks, key: str, low: Bound, high: Bound, notes: list[str]) -> tuple[Limits, str]:
    """Return the values of ``key`` that become 0 and 1, by task, and where they come from."""
    if np.isfinite(limits(key)[1]):
        return dict.fromkeys(tasks, limits(key)), f"{key} is a rate and counts as it is"
    if low is not None and high is not None:
        found: Limits = {}
        for task in tasks:
            ends = [bound.get(task) if isinstance(bound, Mapping) else bound for bound in (low, high)]
            if ends[0] is None or ends[1] is None:
                raise ConfigError(f"scores.low and scores.high say nothing of {task}; there are {', '.join(tasks)}")
            found[task] = float(ends[0]), float(ends[1])
        return found, f"{key} is 0 at scores.low and 1 at scores.high"
    found = {}
    for task, groups in tasks.items():
        values = np.concatenate([curve(run.rows, key)[1] for runs in groups.values() for run in runs])
        if values.min() < values.max():
            found[task] = float(values.min()), float(values.max())
        else:
            notes.append(f"{task} is left out, for all its tests have {key} {values[0]:g}: scores have no range")
    return found, f"{key} is 0 at the least and 1 at the largest value of any test of a task's runs"


def _normalised(run: Run, key: str, ends: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return (environment steps, scores) of one run."""
    steps, values = curve(run.rows, key)
    return steps, (values - ends[0]) / (ends[1] - ends[0])


def _common_steps(tested: list[np.ndarray], notes: list[str]) -> np.ndarray:
    """Return evenly spaced steps [S] between the latest first and the earliest last test of all runs."""
    if not tested:
        return np.zeros(0)
    first, last, longest = max(s[0] for s in tested), min(s[-1] for s in tested), max(s[-1] for s in tested)
    if first >= last:
        notes.append(f"there are no curves, for the runs share no span of steps (from {first:,} to {last:,})")
        return np.zeros(0)
    if last < 0.9 * longest:
        notes.append(f"curves end at step {last:,}, where the shortest run does; the longest ends at {longest:,}")
    return np.linspace(first, last, POINTS)
