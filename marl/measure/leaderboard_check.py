"""Entries of a leaderboard, measured again: what was given, what is found, and whether the two agree."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from omegaconf import DictConfig

from marl.core.intervals import Interval, rate_interval
from marl.core.types import ConfigError
from marl.measure import matrix
from marl.measure.entrants import Entrant
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


def check(cfg: DictConfig, entries: list[Entry], option: Option) -> list[Checked]:
    """Measure again every entry whose weights are among the runs that ``cfg`` (conf/leaderboard.yaml) names, in the
    entry's own setting. ``option`` is as for ``marl.measure.robustness.find_entrants``.

    Cells are kept in ``check/`` below ``cfg.out``, so that a check that was stopped can continue; once it is complete
    they are removed, so that the next one measures again. Raise ConfigError for bad options, before anything is
    measured.
    """
    matrix.read_options(matrix_config(cfg))
    find_entrants(matrix_config(cfg, act=None), None, option)
    folder = Path(cfg.out) / "check"
    results: list[Checked] = []
    stopped = False
    for entry in entries:
        if stopped:
            results.append(Checked(entry, why="the check was stopped; the same command continues"))
            continue
        teams = find_teams(cfg, entry, option)
        wrong = _why_changed(entry, teams) if teams else None
        suite = find_suite(cfg, entry) if teams and wrong is None else None
        if not teams:
            results.append(Checked(entry, why="its weights are not among the runs"))
        elif wrong is not None:
            results.append(Checked(entry, why=wrong, wrong=True))
        elif suite is None:
            why = f"the suite {entry.suite} has changed since: its columns have other settings"
            results.append(Checked(entry, why=why, wrong=True))
        else:
            found = _again(cfg, entry, teams, suite, folder)
            stopped = found is None
            results.append(found or Checked(entry, why="the check was stopped; the same command continues"))
    if not stopped:
        shutil.rmtree(folder, ignore_errors=True)
    return results


def find_teams(cfg: DictConfig, entry: Entry, option: Option) -> list[Entrant]:
    """Return the teams with the weights of an entry, under its name and seeds; none where not all are there."""
    for act in dict.fromkeys((entry.act, None)):  # earlier versions wrote it for teams that have no choice, too
        try:
            found, _ = find_entrants(matrix_config(cfg, act=act), None, option)
        except ConfigError:  # no actors among the runs
            continue
        playing = [one for one in found if one.task == entry.task]
        there = {known(one): one for known in (former_weights, weights_of) for one in playing}
        if all(digest in there for digest in entry.weights):
            pairs = zip(entry.seeds, entry.weights, strict=True)
            return [replace(there[digest], label=entry.name, seed=seed) for seed, digest in pairs]
    return []


def find_suite(cfg: DictConfig, entry: Entry) -> DictConfig | None:
    """Return the suite of an entry: the one in ``cfg`` or the one with the entry's suite name, whichever has the same
    settings; None where neither has."""
    for pick in (lambda: cfg.suite, lambda: compose(f"suite={entry.suite}", config="robustness").suite):
        try:
            suite = pick()
            columns, baseline = read_suite(suite, list(entry.columns))
        except ConfigError:
            continue
        if baseline == entry.baseline and attacks_digest(columns, baseline, entry.task) == entry.attacks:
            return suite
    return None


def _why_changed(entry: Entry, teams: list[Entrant]) -> str | None:
    """Return how the game differs from the one that the entry was measured in, or which of its seeds are the same
    team; None where the game is the same and all teams differ."""
    if (twins := same_seeds(teams)) is not None:
        return twins
    for one in teams:
        if matrix.digest({"env": one.env}) != entry.game:
            return f"the options of {entry.task} are not those of the entry"
        if (physics := matrix.physics_of(one.env)) != entry.physics:
            return f"the rules of {entry.task} have changed since: version {physics}, the entry has {entry.physics}"
    return None


def _again(cfg: DictConfig, entry: Entry, teams: list[Entrant], suite: DictConfig, folder: Path) -> Checked | None:
    """Return an entry next to what is measured now; None where that was stopped."""
    own = matrix_config(
        cfg, suite=suite, only=list(entry.columns), episodes=entry.episodes, n_envs=entry.n_envs, seed=entry.seed,
        act=entry.act, fit=entry.fit, luck=entry.by_luck is not None, out=str(folder),
    )  # fmt: skip
    try:
        made, found, reasons = measure_rows(own, entry.suite, lambda: (teams, []), teams, entry.by)
    except ConfigError as error:
        return Checked(entry, why=str(error), wrong=True)
    if not made.complete:
        return None
    return Checked(entry, compare(entry, found[0])) if found else Checked(entry, why=reasons[0], wrong=True)


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
