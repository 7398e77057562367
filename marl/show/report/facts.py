"""What a report says about its runs, before anything is drawn: the groups and where they come from, how their
configurations differ, their final scores, how soon they reach a level, and what is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marl.core.config import flatten
from marl.core.intervals import Interval
from marl.core.types import ConfigError
from marl.learn.rhythm import Rhythm
from marl.run.folders import read_meta
from marl.show.gather import LeftOut, Rows, Run, Tasks
from marl.show.plot import COLOURS, curve, final_values, summary

USUAL = ("eval/win_rate", "eval/return")  # scalars that are charted where nothing else is asked for
TITLES = {"eval/win_rate": "test win rate", "eval/return": "test return", "eval/length": "test episode length"}
OWN = ("seed", "run_path")  # options in which the runs of a group differ by definition
DASHES = ("solid", "dash", "dashdot")  # of lines that share a colour; the dotted ones are single seeds
UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone, in one environment. ``metas`` record where they come from; ``colour``
    and ``dash`` are the group's in all charts, the same in every environment."""

    task: str
    label: str
    runs: tuple[Run, ...]
    metas: tuple[dict[str, Any], ...]
    colour: str
    dash: str = "solid"

    @property
    def rows(self) -> list[Rows]:
        return [run.rows for run in self.runs]


def groups_of(tasks: Tasks) -> list[Group]:
    """Return the groups of all environments, environment by environment, each with its colour and, beyond the
    eighth, its dashes."""
    labels = sorted({label for groups in tasks.values() for label in groups})
    strokes = {label: stroke(k) for k, label in enumerate(labels)}
    return [
        Group(task, label, tuple(runs), tuple(read_meta(run.folder) for run in runs), *strokes[label])
        for task, groups in sorted(tasks.items())
        for label, runs in sorted(groups.items())
    ]


def stroke(k: int) -> tuple[str, str]:
    """Return the colour and the dashes of the line of group ``k``."""
    return COLOURS[k % len(COLOURS)], DASHES[k // len(COLOURS) % len(DASHES)]


def title_of(key: str) -> str:
    """Return what a scalar is called on the page."""
    return TITLES.get(key, key)


def metrics_of(groups: Sequence[Group], wanted: Sequence[str] | None) -> list[str]:
    """Return the scalars to chart for the groups of an environment: those ``wanted`` (None: the usual ones) that it
    has."""
    there = {key for group in groups for rows in group.rows for row in rows for key in row}
    return [key for key in wanted or USUAL if key in there]


def by_task(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Return the groups by environment."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.task, []).append(group)
    return found


# what was run


@dataclass(frozen=True)
class Origin:
    """What was run as a group, in words. Where its seeds differ, texts name every value once."""

    group: Group
    algorithm: str
    attack: str
    seeds: str
    steps: str
    rhythm: str
    begun: str  # the runs that it started from
    commits: list[str]
    machines: list[str]
    commands: list[str]


def origin(group: Group) -> Origin:
    """Return what was run as ``group``."""
    config = group.runs[0].config
    team = ["", "", *config["run_path"].split("/")][-2]
    algorithm, _, attack = team.rpartition("-")
    begun = [str(meta["init_from"]["run"]) for meta in group.metas if isinstance(meta.get("init_from"), dict)]
    return Origin(
        group, algorithm or team, attack, _seeds(group), _steps(group), _distinct(map(_rhythm, group.metas)),
        _distinct(begun), sorted({str(meta["commit"]) for meta in group.metas}),
        sorted({_machine(meta) for meta in group.metas}), [str(meta["command"]) for meta in group.metas],
    )  # fmt: skip


def _distinct(texts: Any) -> str:
    return "; ".join(dict.fromkeys(texts))


def _seeds(group: Group) -> str:
    short = sum(run.unfinished is not None for run in group.runs)
    return ", ".join(str(run.seed) for run in group.runs) + (f" ({short} unfinished)" if short else "")


def _steps(group: Group) -> str:
    """Return the environment steps of the last tests, from the least to the most."""
    ends = [max(int(row["env_steps"]) for row in rows) for rows in group.rows]
    return f"{min(ends):,}" if min(ends) == max(ends) else f"{min(ends):,} to {max(ends):,}"


def _rhythm(meta: dict[str, Any]) -> str:
    try:
        return str(Rhythm(**meta["rhythm"]))
    except (KeyError, TypeError, ConfigError):  # an older run, or one that learns from what it has just collected
        return UNKNOWN


def _machine(meta: dict[str, Any]) -> str:
    packages = meta.get("packages") or {}
    versions = [f"Python {meta['python']}"] if "python" in meta else []
    versions += [f"torch {packages['torch']}"] if "torch" in packages else []
    return "; ".join([str(meta.get("machine", f"machine {UNKNOWN}")), *versions])


# how configurations differ


@dataclass(frozen=True)
class Difference:
    """An option and its value in each group, as text; None where a group does not have it."""

    key: str
    values: list[str | None]


def differences(groups: Sequence[Group]) -> tuple[list[Difference], list[Difference]]:
    """Return the options whose values differ between groups, or between the seeds of one, and the options that only
    some of the groups have."""
    flat = [[flatten(run.config) for run in group.runs] for group in groups]
    keys = sorted({key for configs in flat for config in configs for key in config} - set(OWN))
    differ, partial = [], []
    for key in keys:
        values = [_values(configs, key) for configs in flat]
        if None in values:
            partial.append(Difference(key, values))
        elif len(set(values)) > 1 or any(len({_text(config.get(key)) for config in configs}) > 1 for configs in flat):
            differ.append(Difference(key, values))
    return differ, partial


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _values(configs: list[dict[str, Any]], key: str) -> str | None:
    """Return an option's value in a group; by seed where it differs; None where no run has it."""
    if not any(key in config for config in configs):
        return None
    texts = list(dict.fromkeys(_text(config.get(key)) for config in configs))
    return texts[0] if len(texts) == 1 else "by seed: " + "; ".join(texts)


def whole_config(group: Group) -> str:
    """Return the configuration of a group's first seed, as indented JSON."""
    return json.dumps(group.runs[0].config, indent=2, default=str)


# final scores


@dataclass(frozen=True)
class Final:
    """The final score of a group: the mean over its seeds with its interval, and the value of each that has one."""

    group: Group
    interval: Interval
    per_seed: dict[int, float]


def finals(tasks: Tasks, groups: Sequence[Group], key: str, last: int) -> list[Final]:
    """Return the final scores of the groups of one environment that have the scalar ``key``, averaged over the
    ``last`` tests of each seed."""
    task = {groups[0].task: {group.label: tasks[group.task][group.label] for group in groups}}
    entries = {entry["group"]: entry for entry in summary(task, last, (key,))}
    made = []
    for group in groups:
        entry = entries[group.label]
        if (found := entry["metrics"].get(key)) is not None:
            seeds = found.get("seeds", entry["seeds"])
            made.append(Final(group, Interval.from_dict(found), dict(zip(seeds, found["per_seed"], strict=True))))
    return made


# sample efficiency


@dataclass(frozen=True)
class Reached:
    """How soon the seeds of a group reach a level: the steps of the first test at or above it, of each seed that has
    one, in order; ``seeds`` counts all."""

    steps: list[int]
    seeds: int

    @property
    def median(self) -> float:
        """Return the median over all seeds, where one that never reaches the level counts as infinitely late."""
        padded = [float(step) for step in self.steps] + [math.inf] * (self.seeds - len(self.steps))
        middle = self.seeds // 2
        return padded[middle] if self.seeds % 2 else (padded[middle - 1] + padded[middle]) / 2

    def __str__(self) -> str:
        count = f"{len(self.steps)} of {self.seeds} seed{'s' * (self.seeds != 1)}"
        if not math.isfinite(self.median):
            return f"not reached by half of the seeds ({count})" if self.steps else f"not reached ({count})"
        return f"{self.median:,.0f} ({count})"


@dataclass(frozen=True)
class Efficiency:
    """Levels between ``start`` and ``best``, and how soon each group reaches them."""

    start: float
    best: float
    levels: list[float]
    reached: list[tuple[Group, list[Reached]]]


def efficiency(groups: Sequence[Group], key: str, fractions: Sequence[float], last: int) -> Efficiency | None:
    """Return how soon groups reach ``start + fraction * (best - start)``. ``best`` is the highest final mean of a
    group; ``start`` is 0, or the lowest mean of a group's first tests where that is negative. None where no group has
    the scalar, or none rises above the start."""
    having = [group for group in groups if len(final_values(group.rows, key, last))]
    if not having:
        return None
    best = max(float(final_values(group.rows, key, last).mean()) for group in having)
    first = [np.mean([values[0] for rows in group.rows if len(values := curve(rows, key)[1])]) for group in having]
    start = min(0.0, *map(float, first))
    if not best > start:
        return None
    levels = [start + fraction * (best - start) for fraction in fractions]
    return Efficiency(start, best, levels, [(g, [_reached(g, key, level) for level in levels]) for g in having])


def _reached(group: Group, key: str, level: float) -> Reached:
    steps = []
    for rows in group.rows:
        at, values = curve(rows, key)
        above = np.flatnonzero(values >= level - 1e-9 * max(1.0, abs(level)))  # allows for rounding
        if len(above):
            steps.append(int(at[above[0]]))
    return Reached(sorted(steps), len(group.runs))


# what is missing


def missing(groups: Sequence[Group], left: Sequence[LeftOut]) -> list[str]:
    """Return, in words, what a reader might expect of the runs but does not get."""
    notes = [f"Left out: {one.folder}: {one.why}." for one in left]
    for group in groups:
        notes += [f"{run.folder} is {run.unfinished}; it is averaged with the others." for run in group.runs
                  if run.unfinished is not None]  # fmt: skip
        if len(group.runs) == 1:
            notes.append(f"{group.label} in {group.task} has one seed, and so no interval.")
    silent = sum("machine" not in meta for group in groups for meta in group.metas)
    if silent:
        notes.append(f"{silent} of {sum(len(group.runs) for group in groups)} runs do not record their machine.")
    return notes
