"""The share of episodes won under every attack: by hand, never above the weakest column, and how luck bounds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from marl.measure.robustness_scores import Every, Score, every_together, score_rows, won_every


def results(*won: int) -> dict[str, np.ndarray]:
    n = len(won)
    zeros = {name: np.zeros(n) for name in ("return", "length", "hits", "hit_actions")}
    return {"won": np.array(won, dtype=float), **zeros}


class Run:
    """What ``score_rows`` reads of an entrant."""

    def __init__(self, task: str, label: str, seed: int) -> None:
        self.task, self.label, self.seed, self.source = task, label, seed, None


def test_by_hand() -> None:
    """Of four episodes the first is won everywhere; three of four are won without attack."""
    cells: dict[str, Any] = {
        "natural": results(1, 1, 1, 0), "a": results(1, 0, 1, 1), "b": results(1, 1, 0, 1), "c": "not possible: no",
    }  # fmt: skip
    every = won_every(cells, "natural")
    assert every is not None and every.share.mean == 0.25 and every.columns == ("natural", "a", "b")
    assert every.luck == (0.75**3, 0.75)
    assert 0.0 < every.share.low < 0.25 < every.share.high < 1.0, "Wilson's interval of one of four"
    assert won_every(cells, None) is None and won_every(cells, "c") is None
    assert won_every({"natural": cells["natural"], "c": "no"}, "natural") is None, "one column is not every"


def test_episodes_are_paired() -> None:
    """Both attacks cost the same episodes, so half are won; a twin that forgets which is which finds a quarter."""
    lost = results(1, 1, 0, 0)
    every = won_every({"natural": results(1, 1, 1, 1), "a": lost, "b": lost}, "natural")
    assert every is not None and every.share.mean == 0.5
    turned = {name: np.roll(values, 1) for name, values in lost.items()}
    twin = won_every({"natural": results(1, 1, 1, 1), "a": lost, "b": turned}, "natural")
    assert twin is not None and twin.share.mean == 0.25


def test_it_is_never_above_the_weakest_column() -> None:
    """For runs, methods and methods over tasks; where runs differ in their columns there is none."""
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(50):
        entrants = [Run(task, "team", seed) for task in ("one", "two") for seed in range(3)]
        p = rng.uniform(0.3, 1.0, 4)
        cells = [
            {f"c{k}": results(*(rng.random(20) < p[k]).astype(int)) for k in range(4)} for _ in entrants
        ]  # fmt: skip
        for row in score_rows(entrants, cells, "c0", "win_rate"):  # type: ignore[arg-type]
            weakest = min(cell.win_rate.mean for cell in row.cells.values() if isinstance(cell, Score))
            assert row.every is not None and row.every.share.mean <= weakest + 1e-12
            assert row.every.luck[0] <= row.every.luck[1]
            compared += 1
    assert compared == 50 * (6 + 2 + 1)


def test_runs_that_were_measured_in_other_columns_are_not_put_together() -> None:
    """Their mean could lie above the weakest column: here it would be 0.5, and column b is 0."""
    full = {"natural": results(1, 1), "a": results(1, 1), "b": results(0, 0)}
    part = {"natural": results(1, 1), "a": results(1, 1), "b": "not possible: no"}
    rows = score_rows([Run("one", "team", 0), Run("one", "team", 1)], [full, part], "natural", "win_rate")  # type: ignore[arg-type,list-item]
    method, *runs = rows
    shares = [row.every.share.mean for row in runs if row.every is not None]
    assert shares == [0.0, 1.0] and method.every is None
    weakest = method.cells["b"]
    assert isinstance(weakest, Score) and weakest.win_rate.mean < float(np.mean(shares)), "the twin that averages them"


def test_the_mean_over_tasks_counts_tasks_alike() -> None:
    def run(won: int) -> Every | None:
        return won_every({"natural": results(1, 1), "a": results(*[1] * won, *[0] * (2 - won))}, "natural")

    every = every_together([[run(2)], [run(0), run(0)]])
    assert every is not None and every.share.mean == 0.5 and every.luck == (1.0, 1.0)
    assert every_together([[run(2), None]]) is None
    alone = run(1)
    assert every_together([[alone]]) is alone, "a single run keeps its own interval"


@pytest.mark.parametrize("won", [0, 1])
def test_luck_is_exact_where_nothing_is_left_to_it(won: int) -> None:
    every = won_every({name: results(won, won) for name in ("natural", "a", "b")}, "natural")
    assert every is not None and every.luck == (won, won) and every.share.mean == won
