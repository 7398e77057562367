"""The numbers of a cross-play matrix: self-play, cross-play, the worst case, held-out partners, BR-Prox.

BR-Prox (Wang et al. 2023, arXiv 2310.05208) is an agent's return with a partner as a share of the return of a best
response to that partner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marl.core.intervals import ANY, Interval, Limits, limits, mean_interval, student
from marl.measure.entrants import Entrant
from marl.measure.matrix import METRICS, Results, in_columns
from marl.measure.networks import same_team
from marl.measure.partners import Partner


@dataclass(frozen=True)
class Pair:
    """A player in one seat and another in the rest. ``seats``: the mean when the first has seat i (a single one where
    it plays with itself). ``std`` over all ``n`` episodes."""

    mean: float
    std: float
    n: int
    seats: tuple[float, ...]


Cell = Pair | str | None  # a text says why there is no number; None: not asked for


@dataclass(frozen=True)
class Sheet:
    """Runs in the rows; the same runs and then partners in the columns. ``limits``: for every partner the most that is
    known to be possible with it, and whether a run was trained for that (else it is the best row's)."""

    metric: str
    rows: list[Entrant]
    partners: list[Partner]
    cells: list[list[Cell]]  # [rows, rows + partners]
    limits: list[tuple[float, bool]]

    def values(self) -> np.ndarray:
        """Return means [rows, rows + partners]; nan where there is none."""
        return np.array([[cell.mean if isinstance(cell, Pair) else math.nan for cell in row] for row in self.cells])


@dataclass(frozen=True)
class Worst:
    value: Interval
    who: str


@dataclass(frozen=True)
class Held:
    """A method with one population: each value is a mean over the method's seeds. ``worst_seat``: the lowest over
    partners and seats, which reveals a convention about seats that ``worst``, a mean over them, hides. ``trained``:
    whether every partner has a best response that was trained for it; otherwise BR-Prox is an upper bound."""

    population: str
    mean: Interval
    worst: Worst
    worst_seat: Interval
    br_prox: Interval | None
    br_prox_iqm: Interval | None
    trained: bool
    by_run: tuple[float, ...]  # the mean of each run; nan where it met nobody


@dataclass(frozen=True)
class Method:
    """``cross``, ``ratio``: None with one seed. ``with_others``: by method, the mean over pairs of different runs.
    ``held_out``: with all populations, weighted equally; None where there are fewer than two."""

    label: str
    seeds: tuple[int, ...]
    self_play: Interval | None
    self_std: float
    cross: Interval | None
    cross_std: float
    ratio: Interval | None
    worst: Worst | None
    with_others: dict[str, Interval]
    held: list[Held]
    held_out: Interval | None


@dataclass(frozen=True)
class CrossMatrix:
    """A measured sheet, its methods, and how they came about."""

    sheet: Sheet
    methods: list[Method]
    game: str
    episodes: int
    complete: bool
    about: dict[str, Any]

    def __repr__(self) -> str:
        rows, partners, left = len(self.sheet.rows), len(self.sheet.partners), "" if self.complete else "; incomplete"
        return f"<CrossMatrix of {self.game}; runs: {rows}; partners: {partners}; episodes: {self.episodes}{left}>"

    def __str__(self) -> str:
        """Return methods and what they reach as lines of text; ``marl.show.crossplay_report`` has the whole tables."""
        populations = list(dict.fromkeys(held.population for method in self.methods for held in method.held))
        lines = [["", "self-play", "cross-play", *populations]]
        for method in self.methods:
            means = {held.population: held.mean for held in method.held}
            found = [method.self_play, method.cross, *(means.get(name) for name in populations)]
            lines.append([method.label, *("-" if one is None else f"{one.mean:.2f}" for one in found)])
        return in_columns(f"{self.game}: {self.sheet.metric} over {self.episodes} episodes a pair", lines)


def score_pair(seatings: Sequence[Results | str], metric: str) -> Cell:
    """Return one pair from the results of its seatings; the first that is missing says why."""
    values = []
    for results in seatings:
        if isinstance(results, str):
            return results
        values.append(results[METRICS[metric]].astype(np.float64))
    together = np.concatenate(values)
    spread = float(np.std(together, ddof=1)) if len(together) > 1 else 0.0
    return Pair(float(together.mean()), spread, len(together), tuple(float(one.mean()) for one in values))


def find_limits(
    rows: Sequence[Entrant], partners: Sequence[Partner], cells: Sequence[Sequence[Cell]],
    responses: Sequence[Sequence[Cell]],
) -> list[tuple[float, bool]]:  # fmt: skip
    """Return for every partner the return of the best response to it, or else of the best row, itself included; see
    ``Sheet``. ``responses`` holds for every partner what its best responses reach with it."""
    found = []
    for k, (partner, answers) in enumerate(zip(partners, responses, strict=True)):
        trained = [cell.mean for cell in answers if isinstance(cell, Pair)]
        column = [
            cells[i][i if same_team(entrant, partner.entrant) else len(rows) + k] for i, entrant in enumerate(rows)
        ]
        seen = [cell.mean for cell in column if isinstance(cell, Pair)]
        found.append((max(trained or seen, default=math.nan), bool(trained)))
    return found


def share_limits(metric: str) -> Limits:
    """Return the lowest and highest possible ratio of two values of a metric: for win rates it is never below 0."""
    return (0.0, math.inf) if limits(metric)[0] == 0 else ANY


def jackknife(estimate: Callable[[np.ndarray], float], n: int, possible: Limits = ANY) -> Interval:
    """Return Student's t interval of a statistic of ``n`` exchangeable runs, which its pairs share, by leaving out one
    run at a time (Tukey 1958), cut to what is ``possible``; it is unbounded for fewer than three runs. ``estimate``
    receives the runs to use."""
    every = np.arange(n)
    whole = estimate(every)
    if n < 3:
        return Interval(whole, -math.inf, math.inf, n)
    parts = n * whole - (n - 1) * np.array([estimate(np.delete(every, i)) for i in every])
    half = float(student(n - 1) * np.std(parts, ddof=1) / math.sqrt(n))
    return Interval(whole, whole - half, whole + half, n).within(possible)


def interquartile(values: np.ndarray) -> float:
    """Return the interquartile mean of the values that are not nan."""
    from scipy import stats  # see marl.core.intervals

    return float(stats.trim_mean(values[~np.isnan(values)], 0.25))


def methods(sheet: Sheet) -> list[Method]:
    """Return a summary of every method, in the order of the rows. Runs that lack a number are left out of what needs
    it."""
    groups: dict[str, list[int]] = {}
    for i, entrant in enumerate(sheet.rows):
        groups.setdefault(entrant.label, []).append(i)
    return [_method(sheet, label, members, groups) for label, members in groups.items()]


def _method(sheet: Sheet, label: str, members: list[int], groups: dict[str, list[int]]) -> Method:
    values = sheet.values()[:, : len(sheet.rows)]
    own = values[np.ix_(members, members)]
    whole = ~np.isnan(own).any(1)
    seeds = tuple(sheet.rows[i].seed for i in members)
    alone = np.diag(own)[~np.isnan(np.diag(own))]
    kept, inside = [m for m, ok in zip(members, whole, strict=True) if ok], own[np.ix_(whole, whole)]
    cross = ratio = worst = None
    possible = limits(sheet.metric)
    others = _off_diagonal(inside)
    if len(kept) > 1:
        cross = jackknife(lambda use: float(_off_diagonal(inside[np.ix_(use, use)]).mean()), len(kept), possible)
        if np.diag(inside).mean() > 0:
            ratio = jackknife(lambda use: _share(inside[np.ix_(use, use)]), len(kept), share_limits(sheet.metric))
        worst = _worst_pair(sheet, kept, inside)
    held = _held(sheet, members)
    return Method(
        label, seeds, mean_interval(alone, possible) if len(alone) else None, _spread(alone), cross, _spread(others),
        ratio, worst, _with_others(values, members, label, groups, possible), held, _held_out(held, possible),
    )  # fmt: skip


def _off_diagonal(square: np.ndarray) -> np.ndarray:
    return square[~np.eye(len(square), dtype=bool)]


def _share(square: np.ndarray) -> float:
    return float(_off_diagonal(square).mean() / np.diag(square).mean())


def _spread(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _worst_pair(sheet: Sheet, kept: list[int], inside: np.ndarray) -> Worst:
    masked = inside + np.where(np.eye(len(inside), dtype=bool), np.inf, 0.0)
    one, other = np.unravel_index(int(masked.argmin()), masked.shape)
    low = float(masked.min())
    names = f"seeds {sheet.rows[kept[one]].seed} and {sheet.rows[kept[other]].seed}"
    return Worst(Interval(low, -math.inf, math.inf, 1), names)


def _with_others(
    values: np.ndarray, members: list[int], label: str, groups: dict[str, list[int]], possible: Limits
) -> dict[str, Interval]:
    """Return, by other method, the mean over the method's runs of their means over pairs with that method's runs."""
    found = {}
    for other, theirs in groups.items():
        block = values[np.ix_(members, theirs)]
        if other != label and not np.isnan(block).all():
            rows = block[~np.isnan(block).all(1)]
            found[other] = mean_interval(np.nanmean(rows, axis=1), possible)
    return found


def _held(sheet: Sheet, members: list[int]) -> list[Held]:
    """Return the method's scores with each population. Partners that one of its runs could not meet are left out for
    all of them; a run that is a partner itself counts with the others."""
    values, first = sheet.values(), len(sheet.rows)
    possible, shared = limits(sheet.metric), share_limits(sheet.metric)
    populations: dict[str, list[int]] = {}
    for k, partner in enumerate(sheet.partners):
        populations.setdefault(partner.population, []).append(k)
    found = []
    for population, every in populations.items():
        chosen = [k for k in every if not any(isinstance(sheet.cells[i][first + k], str) for i in members)]
        block = values[np.ix_(members, [first + k for k in chosen])]  # nan: itself
        met = ~np.isnan(block).all(0)
        if not met.any():
            continue
        block, chosen = block[:, met], [k for k, ok in zip(chosen, met, strict=True) if ok]
        some = ~np.isnan(block).all(1)
        block, by_run = block[some], np.full(len(members), np.nan)
        by_run[some] = np.nanmean(block, axis=1)
        seated = [[cell.seats for k in chosen if isinstance(cell := sheet.cells[i][first + k], Pair)] for i in members]
        best = np.array([sheet.limits[k][0] for k in chosen])
        shares = block / best if (best > 0).all() else None
        hardest = sheet.partners[chosen[int(np.nanmean(block, axis=0).argmin())]].name
        found.append(Held(
            population, mean_interval(by_run[some], possible),
            Worst(mean_interval(np.nanmin(block, axis=1), possible), hardest),
            mean_interval(np.array([min(min(seats) for seats in pairs) for pairs in seated if pairs]), possible),
            None if shares is None else mean_interval(np.nanmean(shares, axis=1), shared),
            None if shares is None else mean_interval(np.array([interquartile(row) for row in shares]), shared),
            all(sheet.limits[k][1] for k in chosen), tuple(by_run),
        ))  # fmt: skip
    return found


def _held_out(held: list[Held], possible: Limits) -> Interval | None:
    """Return the mean over populations, of the runs that met all of them; None for fewer than two populations."""
    means = np.array([one.by_run for one in held])
    if len(held) < 2 or np.isnan(means).any(0).all():
        return None
    return mean_interval(means[:, ~np.isnan(means).any(0)].mean(0), possible)
