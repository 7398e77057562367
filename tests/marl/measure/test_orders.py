"""The search over orders, on scores whose greatest is known."""

from __future__ import annotations

import numpy as np
import pytest

from marl.measure import orders
from marl.measure.orders import Order, anneal, neighbour


def in_place(order: Order) -> float:
    """Return how many things stand at the place of their number."""
    return float(sum(thing == place for place, thing in enumerate(order)))


def test_a_neighbour_is_a_swap_or_a_move() -> None:
    rng, start = np.random.default_rng(0), [0, 1, 2, 3, 4]
    found = [neighbour(start, rng) for _ in range(300)]
    assert start == [0, 1, 2, 3, 4] and all(sorted(order) == start and order != start for order in found)
    swaps = sum(in_place(order) == 3 for order in found)
    assert 0.6 * 300 < swaps < 0.95 * 300, "7 of 10, and those moves by one place that are swaps"
    assert [1, 2, 3, 4, 0] in found and [4, 0, 1, 2, 3] in found


def test_the_best_order_is_found_and_tried_as_often_as_said() -> None:
    tried: list[Order] = []

    def score(order: Order) -> float:
        tried.append(order)
        return in_place(order)

    assert anneal(score, [6, 5, 4, 3, 2, 1, 0], 400, np.random.default_rng(1)) == ([0, 1, 2, 3, 4, 5, 6], 7.0)
    assert len(tried) == 401 and tried[0] == [6, 5, 4, 3, 2, 1, 0]
    assert anneal(score, [1, 0], 0, np.random.default_rng(1)) == ([1, 0], 0.0)


def test_heat_leaves_a_summit_that_is_not_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    """From [0, 1, 2, 3], worth 1, all neighbours are worth 0.8, but the reverse is worth 2."""

    def score(order: Order) -> float:
        return {(0, 1, 2, 3): 1.0, (3, 2, 1, 0): 2.0}.get(tuple(order), 0.8)

    found = [anneal(score, [0, 1, 2, 3], 60, np.random.default_rng(seed))[1] for seed in range(20)]
    assert found.count(2.0) >= 10
    monkeypatch.setattr(orders, "HEAT", 1e-9)
    assert {anneal(score, [0, 1, 2, 3], 60, np.random.default_rng(seed))[1] for seed in range(20)} == {1.0}


def test_the_same_seed_finds_the_same() -> None:
    a, b = (anneal(in_place, [3, 2, 1, 0], 5, np.random.default_rng(4)) for _ in range(2))
    assert a == b
