"""Win rates over the budget: every attack that has one, at several budgets, on the same episodes.

A cell at another budget is derived from the column's own cell, and identified by that cell's key and the budget. What
an attack has learnt is not learnt again: the fit is that of the column. Where a column at budget 0 is nothing but the
baseline, it is not measured again.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from marl.core.checks import require_at_least
from marl.core.intervals import Interval, limits, mean_interval
from marl.core.protocols import NoAttack
from marl.core.types import ConfigError
from marl.measure import matrix
from marl.measure.entrants import Entrant, Tree
from marl.measure.matrix import METRICS, Results
from marl.measure.robustness_scores import Curves, Row, over_seeds, score_rows

Found = dict[str, Results | str]  # of an entrant: by column


def read_budgets(given: Any, attacks: dict[str, Tree], baseline: str | None) -> list[int]:
    """Return the budgets, in order, that ``budgets=`` asks for, none for null; ``attacks`` are those of the columns, by
    name. Raise ConfigError for what cannot be a curve."""
    if given is None:
        return []
    budgets = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if not all(isinstance(budget, int) and not isinstance(budget, bool) for budget in budgets) or len(budgets) < 2:
        raise ConfigError(f"budgets={given} must be at least two whole numbers, such as [0,2,4,8,12]")
    for budget in budgets:
        require_at_least("", 0, budgets=budget)
    if sorted(set(budgets)) != budgets:
        raise ConfigError(f"budgets={given} must rise")
    if baseline is None or baseline not in attacks:
        raise ConfigError("budgets: the suite's baseline must be among the columns; drops are relative to it")
    if not any(own_budget(attack) is not None for name, attack in attacks.items() if name != baseline):
        raise ConfigError(f"budgets={given}: none of the columns has a budget; there are {', '.join(attacks)}")
    return budgets


def own_budget(attack: Tree) -> int | None:
    """Return the budget in an attack's configuration, its own or that of the first part that has one; else None. For a
    curriculum (``budgets``) it is the first one, whatever its parts have."""
    if attack.get("budgets"):
        return int(attack["budgets"][0])
    if attack.get("budget") is not None:
        return int(attack["budget"])
    found = (own_budget(node) for node in attack.values() if isinstance(node, dict))
    return next((budget for budget in found if budget is not None), None)


def is_baseline(cell: Any, baseline: Any) -> bool:
    """Return whether a cell at budget 0 is the same as the baseline: the baseline has no attack, the game is the same,
    and every part of the cell's attack has a budget."""
    same = cell.team["env"] == baseline.team["env"]
    return same and _does_nothing(baseline.team["attack"]) and _all_limited(cell.team["attack"])


def _does_nothing(attack: Tree) -> bool:
    return pkgutil.resolve_name(str(attack["_target_"])) is NoAttack


def _all_limited(attack: Tree, given: bool = False) -> bool:
    """Return whether an attack, or every part of it, has a budget, its own or ``given`` by a curriculum."""
    if "budget" in attack:
        return given or attack["budget"] is not None
    parts = [attack.get("attack"), *(attack.get("attacks") or {}).values()]
    found = [_all_limited(part, given or bool(attack.get("budgets"))) for part in parts if isinstance(part, dict)]
    return bool(found) and all(found)


def with_budget(node: Any, budget: int) -> Any:
    """Return an attack's configuration with this budget in place of every one that it has."""
    if not isinstance(node, dict):
        return node
    changed = {name: with_budget(value, budget) for name, value in node.items()}
    own = {"budget": budget, "budgets": [budget]}
    return changed | {name: value for name, value in own.items() if node.get(name) is not None}


def at(cell: Any, budget: int) -> Any:
    """Return the cell with another budget; with the budget that its attack has, the cell itself."""
    attack = with_budget(cell.team["attack"], budget)
    if attack == cell.team["attack"]:
        return cell
    key = matrix.digest({"budget": budget, "of": cell.key})
    path = cell.path.with_name(f"{key}{cell.path.suffix}")
    team = {**cell.team, "attack": attack}
    return replace(cell, title=f"{cell.title}, budget {budget}", key=key, path=path, team=team)


def measure(
    plan: Sequence[dict[str, Any]], found: Sequence[Found], baseline: str, budgets: list[int], processes: int | str,
    *, more: bool,
) -> tuple[dict[int, list[Found]], list[Any], bool]:  # fmt: skip
    """Measure the columns that have a budget at each of ``budgets``, for every entrant (``plan``: its cells by column,
    ``found``: their results). Return the results by budget and entrant, with the baseline's, then the cells, and
    whether nothing is left to do. With ``more`` false, only read what is kept."""
    names = {name for row in plan for name, cell in row.items() if own_budget(cell.team["attack"]) is not None}
    limited = [{name: cell for name, cell in row.items() if name in names - {baseline}} for row in plan]
    cells = {
        k: [
            {name: None if k == 0 and is_baseline(one, cells[baseline]) else at(one, k) for name, one in row.items()}
            for row, cells in zip(limited, plan, strict=True)
        ]
        for k in budgets
    }
    every = [cell for rows in cells.values() for row in rows for cell in row.values() if cell is not None]
    outcome = matrix.measure(every, processes) if more else matrix.Outcome({}, complete=False)
    results: dict[int, list[Found]] = {k: [] for k in budgets}
    for k in budgets:
        for row, there in zip(cells[k], found, strict=True):
            natural = there[baseline]
            here = {name: natural if cell is None else matrix.read_cell(cell, outcome) for name, cell in row.items()}
            results[k].append({baseline: natural, **here})
    return results, every, outcome.complete


def score(results: dict[int, list[Found]], entrants: list[Entrant], baseline: str, metric: str) -> Curves:
    """Return the scores of rows at each budget, and the area under their curves."""
    rows = {k: score_rows(entrants, found, baseline, metric) for k, found in results.items()}
    columns = [name for name in next(iter(results.values()))[0] if name != baseline]
    runs = {
        (one.task, one.label, one.seed): {name: episodes_area(results, i, name, metric) for name in columns}
        for i, one in enumerate(entrants)
    }
    return Curves(columns, rows, [_areas(row, runs, columns, metric) for row in next(iter(rows.values()))])


def episodes_area(results: dict[int, list[Found]], entrant: int, column: str, metric: str) -> np.ndarray | None:
    """Return the area under the curve of each episode [episodes]: the mean of its metric over the budgets from the
    first to the last, interpolated linearly in between. None where a budget was not measured."""
    values = []
    for found in results.values():
        one = found[entrant][column]
        if isinstance(one, str):
            return None
        values.append(one[METRICS[metric]].astype(np.float64))
    budgets = list(results)
    return np.asarray(np.trapezoid(np.stack(values), budgets, axis=0) / (budgets[-1] - budgets[0]))


def _areas(
    row: Row, runs: dict[tuple[str, str, int], dict[str, np.ndarray | None]], columns: list[str], metric: str
) -> dict[str, Interval]:
    """Return a row's areas by column: a run's with an interval over its episodes, a method's over its seeds and tasks
    as for other scores. Columns that some run lacks are left out."""
    theirs = dict.fromkeys(task for task, label, _ in runs if label == row.label)
    tasks = list(theirs) if row.level == "tasks" else [row.task]
    groups = [[runs[task, row.label, seed] for seed in row.seeds if (task, row.label, seed) in runs] for task in tasks]
    areas = {}
    for name in columns:
        found = [[one[name] for one in group] for group in groups]
        known = [[values for values in group if values is not None] for group in found]
        if [*map(len, found)] != [*map(len, known)]:
            continue
        if len(known) == 1 and len(known[0]) == 1:
            areas[name] = mean_interval(known[0][0], limits(metric))
        else:
            means = [np.array([values.mean() for values in group]) for group in known]
            areas[name] = over_seeds(means, limits(metric))
    return areas
