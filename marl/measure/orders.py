"""Search over orders of items, such as the order in which a team sees its enemies, for one with a high score."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

HEAT = 0.5  # initial temperature, in units of the score
COLD = 0.8  # share of the steps after which only better orders are accepted
SWAPS = 0.7  # share of steps that swap two items; the others move one item to another place

Order = list[int]


def neighbour(order: Order, rng: np.random.Generator) -> Order:
    """Return ``order`` with two items swapped, or one item moved to another place. It must have at least two items."""
    found = list(order)
    i, j = (int(place) for place in rng.choice(len(order), 2, replace=False))
    if rng.random() < SWAPS:
        found[i], found[j] = found[j], found[i]
    else:
        found.insert(j, found.pop(i))
    return found


def anneal(score: Callable[[Order], float], start: Order, steps: int, rng: np.random.Generator) -> tuple[Order, float]:
    """Return the order with the highest score among ``start`` and ``steps`` others, and that score (simulated
    annealing, Kirkpatrick et al. 1983).

    Each order tried is a neighbour of the current one. It becomes the current one if it is better, and otherwise with
    probability exp(change / heat); heat falls linearly from ``HEAT`` to 0 after a share ``COLD`` of the steps.
    """
    present, now = start, score(start)
    best, most = present, now
    for step in range(steps):
        tried = neighbour(present, rng)
        value, heat = score(tried), HEAT * (1 - step / (COLD * steps))
        if value > now or (heat > 0 and rng.random() < math.exp((value - now) / heat)):
            present, now = tried, value
        if value > most:
            best, most = tried, value
    return best, most
