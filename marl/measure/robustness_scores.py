"""The numbers of a robustness matrix: per run over episodes, per method over its seeds, per method over its tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from marl.core.intervals import Interval, Limits, difference_limits, limits, mean_interval, rate_interval, student
from marl.core.types import ConfigError
from marl.measure.entrants import Entrant
from marl.measure.matrix import METRICS, Results, in_columns

SHARES = ("every", "every_by_luck")  # what reports call the shares won in every column, and in every replay


@dataclass(frozen=True)
class Score:
    """The score of a row in a column. Intervals are 95%: of a run over its episodes (win rate: Wilson's), of a method
    over its seeds and of all tasks together Student's t, those of rates cut to what a rate can be. ``drop``: how much
    lower the metric is than without attack."""

    win_rate: Interval
    returns: Interval
    return_std: float  # over episodes, or over seeds
    length: float
    attacked_steps: float
    attacked_actions: float
    drop: Interval | None

    def metric(self, name: str) -> Interval:
        return self.win_rate if name == "win_rate" else self.returns


@dataclass(frozen=True)
class Every:
    """The share of episodes won in all of ``columns``, which share the episodes' starts. ``luck``: what it would be at
    least, and at most, if no attack had changed anything: the share won without attack to the power of the number of
    columns, if every replay is won or lost independently, and that share itself, if all replays are the same."""

    share: Interval
    columns: tuple[str, ...]
    luck: tuple[float, float]


@dataclass(frozen=True)
class Replayed:
    """The share of the baseline's episodes that were won there and in all ``replays`` replays without attack: together
    as many plays as ``Every`` has columns. ``alike``: nothing is sampled after the start of episodes, and all replays
    are equal."""

    share: Interval
    replays: int
    alike: bool


Cells = dict[str, "Score | str"]  # by column; a text says why there is no score


@dataclass(frozen=True)
class Row:
    """``level``: a run, the method that it is a seed of, or a method's mean over tasks. ``leads``: by column, how much
    higher a method's metric is than that of the method it is compared with."""

    level: Literal["run", "method", "tasks"]
    task: str
    label: str
    seeds: tuple[int, ...]
    cells: Cells
    source: dict[str, Any] | None = None
    leads: dict[str, Interval] = field(default_factory=dict)
    every: Every | None = None  # None where there are fewer than two columns, or a method's runs differ in theirs
    by_luck: Replayed | str | None = None  # a text says why there is none; None where it was not asked for, or no every

    def worst(self, metric: str, baseline: str | None) -> str | None:
        """Return the column with the lowest metric, excluding the baseline."""
        means = {
            name: cell.metric(metric).mean
            for name, cell in self.cells.items()
            if isinstance(cell, Score) and name != baseline
        }
        return min(means, key=lambda name: means[name]) if means else None


@dataclass(frozen=True)
class Curves:
    """The metric over the budget: ``rows`` by budget, always in the same order, with cells of ``columns`` and baseline;
    ``areas`` of these rows by column, the mean over the budgets from the first to the last."""

    columns: list[str]
    rows: dict[int, list[Row]]
    areas: list[dict[str, Interval]]


@dataclass(frozen=True)
class Matrix:
    """Scored rows and their provenance. ``metric`` is what drops, the worst column and the colours refer to."""

    name: str
    rows: list[Row]
    columns: list[str]
    baseline: str | None
    metric: str
    episodes: int
    complete: bool
    about: dict[str, Any]  # commit, command, seed, lanes, and what the columns are
    versus: str | None = None  # the method that leads are counted over
    curves: Curves | None = None  # where budgets were asked for

    def __repr__(self) -> str:
        runs = sum(row.level == "run" for row in self.rows)
        left = "" if self.complete else "; incomplete"
        return (
            f"<Matrix {self.name}; runs: {runs}; columns: {', '.join(self.columns)}; episodes: {self.episodes}{left}>"
        )

    def __str__(self) -> str:
        """Return methods by columns as lines of text; ``marl.show.robustness_report`` has the whole table."""
        shown = [row for row in self.rows if row.level != "run"]
        cells = [[_short(row.cells.get(name), self.metric) for name in self.columns] for row in shown]
        lines = [["", *self.columns], *([f"{r.label} ({r.task})", *own] for r, own in zip(shown, cells, strict=True))]
        return in_columns(f"{self.name}: {self.metric} over {self.episodes} episodes a cell", lines)


def _short(cell: Score | str | None, metric: str) -> str:
    return f"{cell.metric(metric).mean:.2f}" if isinstance(cell, Score) else "-"


def score_run(results: Results, natural: Results | None, metric: str) -> Score:
    """Return one run's score; the drop is over paired episodes, which have the same start."""
    key = METRICS[metric]
    returns = results["return"]
    spread = float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0
    drop = None
    if natural is not None:
        drop = mean_interval(natural[key].astype(float) - results[key], difference_limits(metric))
    return Score(
        rate_interval(results["won"]), mean_interval(returns), spread, float(results["length"].mean()),
        float(results["hits"].mean()), float(results["hit_actions"].mean()), drop,
    )  # fmt: skip


def won_every(results: dict[str, Results | str], baseline: str | None) -> Every | None:
    """Return the share of one run's episodes that it won in every column that was measured."""
    found = {name: value["won"].astype(bool) for name, value in results.items() if not isinstance(value, str)}
    natural = found.get(baseline) if baseline is not None else None
    if natural is None or len(found) < 2:
        return None
    won = np.logical_and.reduce(list(found.values()))
    share = float(natural.mean())
    return Every(rate_interval(won.astype(float)), tuple(found), (share ** len(found), share))


def won_again(natural: Results | str | None, replays: list[Results | str], columns: int) -> Replayed | str:
    """Return the share of one run's episodes that it won without attack and in every replay, as many plays as
    ``columns``. Where nothing was sampled in the first replay, that one stands for all."""
    plays = [natural, *replays]
    for one in plays:
        if isinstance(one, str):
            return one
    found = [one for one in plays if isinstance(one, dict)]
    alike = len(found) > 1 and not found[1]["chance"].any()
    if len(found) != columns and not alike:
        return "not measured yet"
    won = np.logical_and.reduce([one["won"].astype(bool) for one in found])
    return Replayed(rate_interval(won.astype(float)), columns - 1, alike)


def luck_together(groups: list[list[Replayed | str | None]]) -> Replayed | str | None:
    """Return a method's share won in every replay from those of its runs, by task, where all of them have one."""
    found = [one for runs in groups for one in runs]
    if len(found) == 1:
        return found[0]
    for one in found:
        if not isinstance(one, Replayed):
            return one
    known = [[one for one in runs if isinstance(one, Replayed)] for runs in groups]
    parts = [np.array([one.share.mean for one in runs]) for runs in known]
    first = known[0][0]
    alike = all(one.alike for runs in known for one in runs)
    return Replayed(over_seeds(parts, limits("win_rate")), first.replays, alike)


def every_together(groups: list[list[Every | None]]) -> Every | None:
    """Return a method's share won in every column from those of its runs, by task; a single run keeps its own. None
    where not all runs were measured in the same columns: it could then exceed the win rate of the weakest column."""
    found = [one for runs in groups for one in runs if one is not None]
    if len(found) < sum(map(len, groups)) or len({one.columns for one in found}) != 1:
        return None
    if len(found) == 1:
        return found[0]
    parts = [np.array([one.share.mean for one in runs if one is not None]) for runs in groups]
    least, most = (
        float(np.mean([np.mean([one.luck[k] for one in runs if one is not None]) for runs in groups])) for k in (0, 1)
    )
    return Every(over_seeds(parts, limits("win_rate")), found[0].columns, (least, most))


def over_seeds(groups: list[np.ndarray], possible: Limits) -> Interval:
    """Return the mean over the seeds of one task, or over several tasks, its interval cut to what is ``possible``."""
    return (mean_interval(groups[0]) if len(groups) == 1 else over_tasks(groups)).within(possible)


def over_tasks(groups: list[np.ndarray]) -> Interval:
    """Return the mean over tasks of the means over seeds, with Student's t interval whose variance and degrees of
    freedom (Satterthwaite 1946) come from the spread of the seeds within each task: tasks are chosen, not sampled."""
    mean, n = float(np.mean([values.mean() for values in groups])), sum(map(len, groups))
    if any(len(values) < 2 for values in groups):
        return Interval(mean, -math.inf, math.inf, n)
    parts = np.array([values.var(ddof=1) / len(values) for values in groups])
    if not parts.any():
        return Interval(mean, mean, mean, n)
    freedom = parts.sum() ** 2 / (parts**2 / np.array([len(values) - 1 for values in groups])).sum()
    half = float(student(freedom) * math.sqrt(parts.sum()) / len(groups))
    return Interval(mean, mean - half, mean + half, n)


def combine(tasks: list[list[Score]], metric: str) -> Score:
    """Return the score of a method from those of its seeds, in one task or several; drops are of ``metric``. A single
    run keeps its own score."""
    if len(tasks) == 1 and len(tasks[0]) == 1:
        return tasks[0][0]

    def gather(value: Any) -> list[np.ndarray]:
        return [np.array([value(score) for score in scores], dtype=np.float64) for scores in tasks]

    def mean(value: Any) -> float:
        return float(np.mean([values.mean() for values in gather(value)]))

    every = [score for scores in tasks for score in scores]
    drops = all(score.drop is not None for score in every)
    spread = [float(np.std([s.returns.mean for s in scores], ddof=1)) if len(scores) > 1 else 0.0 for scores in tasks]
    return Score(
        over_seeds(gather(lambda s: s.win_rate.mean), limits("win_rate")),
        over_seeds(gather(lambda s: s.returns.mean), limits("return")), float(np.mean(spread)),
        mean(lambda s: s.length), mean(lambda s: s.attacked_steps), mean(lambda s: s.attacked_actions),
        over_seeds(gather(lambda s: s.drop.mean), difference_limits(metric)) if drops else None,
    )  # fmt: skip


def score_rows(
    entrants: list[Entrant],
    cells: list[dict[str, Results | str]],
    baseline: str | None,
    metric: str,
    replays: list[list[Results | str]] | None = None,
) -> list[Row]:
    """Return rows of runs, of methods (each before its runs) and, where a method plays several tasks, of methods over
    tasks.

    ``cells`` holds for every entrant its columns' results, or why there are none; ``replays`` holds the same for its
    replays without attack, where these were asked for.
    """
    runs = []
    for k, (entrant, results) in enumerate(zip(entrants, cells, strict=True)):
        found = results.get(baseline) if baseline is not None else None
        natural = found if isinstance(found, dict) else None
        scores: Cells = {
            name: value if isinstance(value, str) else score_run(value, natural, metric)
            for name, value in results.items()
        }
        every = won_every(results, baseline)
        luck = None if replays is None or every is None else won_again(natural, replays[k], len(every.columns))
        row = Row("run", entrant.task, entrant.label, (entrant.seed,), scores, entrant.source)
        runs.append(replace(row, every=every, by_luck=luck))
    methods: dict[str, dict[str, list[Row]]] = {}
    for row in runs:
        methods.setdefault(row.label, {}).setdefault(row.task, []).append(row)
    rows = []
    for label, by_task in methods.items():
        for task, members in by_task.items():
            rows += [_together("method", task, label, [members], metric), *members]
    for label, by_task in methods.items():
        if len(by_task) > 1:
            rows.append(_together("tasks", ", ".join(by_task), label, list(by_task.values()), metric))
    return rows


def _together(level: Literal["method", "tasks"], task: str, label: str, groups: list[list[Row]], metric: str) -> Row:
    """Return one row for the runs of a method, by task. A column counts the runs that have a score there; where a
    whole task has none, neither has the row."""
    cells: Cells = {}
    for name in groups[0][0].cells:
        scores = [[s for row in rows if isinstance(s := row.cells[name], Score)] for rows in groups]
        missing = [row.cells[name] for rows, found in zip(groups, scores, strict=True) if not found for row in rows]
        cells[name] = missing[0] if missing else combine(scores, metric)
    seeds = sorted({seed for rows in groups for row in rows for seed in row.seeds})
    every = every_together([[row.every for row in rows] for rows in groups])
    luck = None if every is None else luck_together([[row.by_luck for row in rows] for rows in groups])
    return Row(level, task, label, tuple(seeds), cells, every=every, by_luck=luck)


def pick_versus(versus: str | None, entrants: list[Entrant]) -> str | None:
    """Return the name of the method that ``versus`` means: the name itself, or the only one that contains it (as whole
    words). Raise ConfigError, listing the names, where there is none or more than one."""
    labels = list(dict.fromkeys(entrant.label for entrant in entrants))
    if versus is None or versus in labels:
        return versus
    meant = [label for label in labels if f" {versus.strip()} " in f" {label} "]
    if len(meant) != 1:
        found = "means more than one row" if meant else "is not a row of this matrix"
        raise ConfigError(f"versus={versus} {found}; there are {', '.join(meant or labels)}")
    return meant[0]


def add_leads(rows: list[Row], versus: str, metric: str) -> list[Row]:
    """Return the rows, those of methods with their leads over the method ``versus``. Runs are paired by seed and task,
    because teams that started from the same one share its properties; intervals are Student's t over the pairs, and
    over tasks as for other scores. Columns that lack a pair in a task have no lead."""
    runs = {(row.task, row.label, row.seeds): row.cells for row in rows if row.level == "run"}

    def leads(label: str, tasks: list[str], column: str) -> Interval | None:
        groups = []
        for task in tasks:
            pairs = [
                (runs[task, label, seeds][column], cells[column])
                for (where, who, seeds), cells in runs.items()
                if (where, who) == (task, versus) and (task, label, seeds) in runs
            ]
            found = [
                mine.metric(metric).mean - other.metric(metric).mean
                for mine, other in pairs
                if isinstance(mine, Score) and isinstance(other, Score)
            ]
            if not found:
                return None
            groups.append(np.array(found))
        return over_seeds(groups, difference_limits(metric))

    def led(row: Row) -> Row:
        if row.level == "run" or row.label == versus:
            return row
        tasks = [row.task] if row.level == "method" else [t for t, who, _ in runs if who == row.label]
        found = {name: leads(row.label, list(dict.fromkeys(tasks)), name) for name in row.cells}
        return replace(row, leads={name: lead for name, lead in found.items() if lead is not None})

    return [led(row) for row in rows]
