"""Search the orders of things, such as of the enemies that a team sees, for one with a great score."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

HEAT = 0.5  # at the beginning, in units of the score
COLD = 0.8  # share of the steps after which only better orders are taken
SWAPS = 0.7  # share of steps that swap two places; the others move one thing to another place

Order = list[int]


def neighbour(order: Order, rng: np.random.Generator) -> Order:
    """Return ``order`` with two places swapped, or one thing moved to another place. It has two things at least."""
    found = list(order)
    i, j = (int(place) for place in rng.choice(len(order), 2, replace=False))
    if rng.random() < SWAPS:
        found[i], found[j] = found[j], found[i]
    else:
        found.insert(j, found.pop(i))
    return found


def anneal(score: Callable[[Order], float], start: Order, steps: int, rng: np.random.Generator) -> tuple[Order, float]:
    """Return the order with the greatest score among ``start`` and ``steps`` others, and that score (simulated
    annealing, Kirkpatrick et al. 1983).

    Each order tried is a neighbour of the present one. It becomes the present one if it is better, and otherwise with
    probability exp(change / heat); heat falls from ``HEAT`` to 0 at a share of ``COLD`` of the steps.
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
