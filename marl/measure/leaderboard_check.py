"""Entries of a leaderboard, measured again: what was given, what is found, and whether the two agree."""

from __future__ import annotations

import logging
import math
import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from omegaconf import DictConfig

from marl.core.intervals import Interval, rate_interval
from marl.core.types import ConfigError
from marl.learn.actor import Act
from marl.measure import matrix
from marl.measure.entrants import Entrant, acting
from marl.measure.leaderboard import (
    Entry,
    attacks_digest,
    former_weights,
    matrix_config,
    measure_rows,
    same_seeds,
    weights_of,
)
from marl.measure.robustness import find_entrants
from marl.measure.suite import read_suite
from marl.run.compose import compose
from marl.run.renames import same_rules

log = logging.getLogger(__name__)
Verdict = Literal["equal", "within", "no"]
Option = Callable[[str, str], DictConfig]
SAME = 1e-9  # a share of episodes: allows for rounding of sums, but not for a single episode


@dataclass(frozen=True)
class Number:
    """A number of an entry, as it was given and as it was measured; a text says why there is none."""

    name: str
    given: Interval | str
    measured: Interval | str
    verdict: Verdict


@dataclass(frozen=True)
class Checked:
    """The outcome for an entry: its ``numbers``, or ``why`` there are none. ``wrong``: it cannot be confirmed although
    its weights are there."""

    entry: Entry
    numbers: tuple[Number, ...] = ()
    why: str | None = None
    wrong: bool = False

    @property
    def agrees(self) -> bool:
        return not self.wrong and all(number.verdict != "no" for number in self.numbers)


def check(cfg: DictConfig, entries: list[Entry], suite_name: str, option: Option) -> list[Checked]:
    """Measure again every entry whose weights are among the runs that ``cfg`` (conf/leaderboard.yaml) names, in the
    entry's own setting. ``option`` is as for ``marl.measure.robustness.find_entrants``.

    Cells are kept in ``check/`` below ``cfg.out``, so that a check that was stopped can continue; once it is complete
    they are removed, so that the next one measures again. Raise ConfigError for bad options, before anything is
    measured.
    """
    matrix.read_options(matrix_config(cfg))
    found, _ = find_entrants(matrix_config(cfg, act=None), None, option)
    folder = Path(cfg.out) / "check"
    results: list[Checked] = []
    stopped = False
    for entry in entries:
        outcome = None if stopped else _again(cfg, entry, found, suite_name, folder)
        stopped = outcome is None
        results.append(outcome or Checked(entry, why="the check was stopped; the same command continues"))
    if not stopped:
        shutil.rmtree(folder, ignore_errors=True)
    return results


def find_teams(found: list[Entrant], entry: Entry) -> tuple[list[Entrant], str | None]:
    """Return the teams among ``found`` with the weights of an entry, and the ``act`` with which they have them: those
    that play its task, or else its game under another name, or else any. No teams where not all of them are there."""
    ways: tuple[Callable[[Entrant], bool], ...] = (
        lambda one: one.task == entry.task,
        lambda one: _game(one) == entry.game,
        lambda one: True,
    )
    for fits in ways:
        for act in dict.fromkeys((entry.act, None, *get_args(Act))):
            try:
                teams = acting(found, act)
            except ConfigError:  # no actors among the runs
                continue
            if picked := _with_weights([one for one in teams if fits(one)], entry):
                return picked, act
    return [], None


def _game(one: Entrant) -> str:
    return matrix.digest({"env": same_rules(one.env)})


def _with_weights(playing: list[Entrant], entry: Entry) -> list[Entrant]:
    """Return the team of each of an entry's weights, preferably one of the seed that the entry gives it; none where
    not all are there."""
    there = defaultdict[str, list[Entrant]](list)
    for known in (former_weights, weights_of):
        for one in playing:
            there[known(one)].append(one)
    if not all(digest in there for digest in entry.weights):
        return []
    pairs = zip(entry.seeds, entry.weights, strict=True)
    return [next((one for one in there[key] if one.seed == seed), there[key][-1]) for seed, key in pairs]


def find_suite(cfg: DictConfig, entry: Entry, suite_name: str) -> DictConfig | None:
    """Return the suite of an entry: the one with its name or, if the command line names that one too, its suite with
    the changes made there, whichever has the same settings; None where neither has."""
    given = [lambda: compose(f"suite={entry.suite}", config="robustness").suite]
    for pick in [*given, *([lambda: cfg.suite] if suite_name == entry.suite else [])]:
        try:
            suite = pick()
            columns, baseline = read_suite(suite, list(entry.columns))
        except ConfigError:
            continue
        if baseline == entry.baseline and attacks_digest(columns, entry.baseline, entry.task) == entry.attacks:
            return suite
    return None


def _why_changed(entry: Entry, teams: list[Entrant], act: str | None) -> str | None:
    """Return what an entry says otherwise than its ``teams``, which have its weights with ``act``: the game, how they
    act, their seeds, or that all differ; None where nothing does. Earlier versions wrote an ``act`` for teams that have
    no choice, too."""
    if (twins := same_seeds(_as_given(entry, teams))) is not None:
        return twins
    for one in teams:
        if _game(one) != entry.game:
            return f"the options of {entry.task} are not those of the entry"
        if (physics := matrix.physics_of(one.env)) != entry.physics:
            return f"the rules of {entry.task} have changed since: version {physics}, the entry has {entry.physics}"
    if act != entry.act and any("act" in one.content.get("algo", {}) for one in teams):
        return f"act={entry.act or 'null'}, but its weights are those of act={act or 'null'}"
    pairs = zip(entry.seeds, teams, strict=True)
    own = [seed if one.opens["run"] is None else one.seed for seed, one in pairs]  # imports have none of their own
    return f"seeds={list(entry.seeds)}, but its runs have the seeds {own}" if own != list(entry.seeds) else None


def _as_given(entry: Entry, teams: list[Entrant]) -> list[Entrant]:
    return [replace(one, label=entry.name, seed=seed) for seed, one in zip(entry.seeds, teams, strict=True)]


def _again(
    cfg: DictConfig, entry: Entry, found: list[Entrant], suite_name: str, folder: Path
) -> Checked | None:  # fmt: skip
    """Return an entry next to what is measured now, or why it is not; None where the measurement was stopped."""
    teams, act = find_teams(found, entry)
    if not teams:
        return Checked(entry, why="its weights are not among the runs")
    if others := sorted({one.task for one in teams} - {entry.task}):
        known = all(_game(one) == entry.game for one in teams)  # otherwise they may have played both games
        return Checked(entry, why=f"its weights play {', '.join(others)}", wrong=known)
    if (why := _why_changed(entry, teams, act)) is not None:
        return Checked(entry, why=why, wrong=True)
    if (suite := find_suite(cfg, entry, suite_name)) is None:
        why = f"the suite {entry.suite} has other columns, or has changed since: its columns have other settings"
        return Checked(entry, why=why, wrong=True)
    own = matrix_config(
        cfg, suite=suite, only=list(entry.columns), episodes=entry.episodes, n_envs=entry.n_envs, seed=entry.seed,
        act=entry.act, fit=entry.fit, luck=entry.by_luck is not None, out=str(folder),
    )  # fmt: skip
    playing = _as_given(entry, teams)
    try:
        made, measured, reasons = measure_rows(own, entry.suite, lambda: (playing, []), playing, entry.by)
    except ConfigError as error:
        return Checked(entry, why=str(error), wrong=True)
    if not made.complete:
        return None
    return Checked(entry, compare(entry, measured[0])) if measured else Checked(entry, why=reasons[0], wrong=True)


def compare(given: Entry, measured: Entry) -> tuple[Number, ...]:
    """Return every number of an entry next to the measured one. The win rate without attack and that of the weakest
    column must also match the entry's own columns."""

    def number(name: str, mine: Interval | str | None, other: Interval | str | None) -> Number:
        mine, other = "-" if mine is None else mine, "-" if other is None else other
        if isinstance(mine, str) or isinstance(other, str):
            return Number(name, mine, other, "equal" if isinstance(mine, str) and isinstance(other, str) else "no")
        return Number(name, mine, other, agreement(mine, other, given.episodes, len(given.seeds)))

    rates = [value for value in given.columns.values() if isinstance(value, Interval)]
    attacked = [v for name, v in given.columns.items() if isinstance(v, Interval) and name != given.baseline]
    which = " / ".join(dict.fromkeys((given.weakest.column, measured.weakest.column)))
    weakest = number(f"weakest column ({which})", given.weakest.win_rate, measured.weakest.win_rate)
    natural = number("without attack", given.without_attack, measured.without_attack)
    if given.without_attack != given.columns[given.baseline]:
        natural = replace(natural, verdict="no")
    least = min(rate.mean for rate in attacked or rates)
    if given.weakest.win_rate != given.columns[given.weakest.column] or given.weakest.win_rate.mean > least:
        weakest = replace(weakest, verdict="no")
    names = dict.fromkeys([*given.columns, *measured.columns])
    return (
        natural, weakest, number("every column", given.every, measured.every),
        *([number("by luck", given.by_luck, measured.by_luck)] if given.by_luck is not None else []),
        *(number(name, given.columns.get(name), measured.columns.get(name)) for name in names),
    )  # fmt: skip


def agreement(given: Interval, measured: Interval, episodes: int, runs: int) -> Verdict:
    """Return how two win rates of the same teams agree: "equal", interval included; "within": each lies in the other's
    95% interval over all episodes of the runs; or "no". Seeds are not a source of chance here, since the same teams
    play again."""
    if given.n != measured.n:
        return "no"
    ends = (given.mean, measured.mean), (given.low, measured.low), (given.high, measured.high)
    if all(math.isclose(a, b, abs_tol=SAME) for a, b in ends):
        return "equal"
    several = runs > 1 and measured.n <= runs
    total = episodes * (measured.n if several else 1)
    mine, other = (rate_interval(np.arange(total) < round(one.mean * total)) for one in (given, measured))
    if not several and not all(
        math.isclose(a, b, abs_tol=1e-6) for a, b in ((mine.low, given.low), (mine.high, given.high))
    ):
        return "no"  # the interval of one run follows from its win rate
    inside = mine.low <= measured.mean <= mine.high and other.low <= given.mean <= other.high
    return "within" if inside else "no"
