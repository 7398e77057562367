"""Attacks on actions as rules for one lane, equal in distribution to the classes that declare them (``attacks/``)."""

from __future__ import annotations

import numpy as np

from envs.kernels.compiled import Record, part
from envs.kernels.rng import below, uniform
from marl.core.rolling import MISSING, NOTHING, RANDOM, SINGLE, Harm

LOT = np.dtype([("rng", np.uint64), ("spent", np.int64), ("left", np.int64)])  # a lane's random stream and, of an
# attack, how much of its budget it has spent, and the remaining steps of a burst


@part
def draw_available(lot: Record, avail: np.ndarray) -> int:
    """Sample uniformly from what is available, bool [k]; return 0 if nothing is."""
    options = 0
    for a in range(len(avail)):
        options += avail[a]
    place = below(lot, options)
    for a in range(len(avail)):
        if avail[a]:
            if place == 0:
                return a
            place -= 1
    return 0


@part
def begin_harm(harm: Harm, lot: Record, alive: np.ndarray, missing: np.ndarray) -> None:
    """Sample who is missing in this episode, bool [n], from those ``alive`` bool [n]: all subsets of ``harm.number``
    agents are equally likely."""
    left, wanted = 0, harm.number if harm.kind == MISSING else 0
    for i in range(len(missing)):
        left += alive[i]
    for i in range(len(missing)):
        missing[i] = False
        if alive[i]:
            missing[i] = uniform(lot) * left < wanted
            wanted -= missing[i]
            left -= 1


@part
def pay(harm: Harm, lot: Record, actions: np.ndarray, hit: np.ndarray, forced: np.ndarray) -> None:
    """Execute ``forced`` where ``hit`` bool [n] as far as the budget allows, and charge it; agents with the highest
    indices are dropped first."""
    hits = 0
    for i in range(len(hit)):
        hit[i] = hit[i] and lot.spent + (0 if harm.by_step else hits) < harm.limit
        if hit[i]:
            actions[i] = forced[i]
            hits += 1
    lot.spent += min(hits, 1) if harm.by_step else hits


@part
def worst(q: np.ndarray, avail: np.ndarray) -> int:
    """Return the available action of the lowest value, the first one on a tie."""
    found = -1
    for a in range(len(q)):
        if avail[a] and (found < 0 or q[a] < q[found]):
            found = a
    return max(found, 0)


@part
def choose_single(
    harm: Harm, lot: Record, q: np.ndarray, avail: np.ndarray, alive: np.ndarray, actions: np.ndarray,
    hit: np.ndarray, forced: np.ndarray,
) -> None:  # fmt: skip
    """Choose one living agent and its worst action, if a burst begins or continues."""
    starts, goes_on = uniform(lot) < harm.p, lot.left > 0
    who = draw_available(lot, alive)
    forced[who] = worst(q[who], avail[who])
    changes = forced[who] != actions[who]
    lot.left = harm.number if starts and not goes_on and changes else max(lot.left - 1, 0)
    hit[who] = (starts or goes_on) and changes and alive[who]


@part
def do_harm(
    harm: Harm, lot: Record, missing: np.ndarray, q: np.ndarray, avail: np.ndarray, alive: np.ndarray,
    actions: np.ndarray, hit: np.ndarray, forced: np.ndarray,
) -> None:  # fmt: skip
    """Replace the intended ``actions`` [n] of an attacked lane by what is executed, and mark who was ``hit``, bool [n].
    ``q`` [n, A] are the victim's values; ``forced`` int64 [n] is scratch."""
    n = len(actions)
    for i in range(n):
        hit[i] = False
    if harm.kind == RANDOM:
        for i in range(n):
            strikes, forced[i] = uniform(lot) < harm.p, draw_available(lot, avail[i])
            hit[i] = strikes and alive[i] and forced[i] != actions[i]
    elif harm.kind == MISSING:
        for i in range(n):
            forced[i] = harm.idle
            hit[i] = missing[i] and alive[i]
    elif harm.kind == SINGLE:
        choose_single(harm, lot, q, avail, alive, actions, hit, forced)
    if harm.kind != NOTHING:
        pay(harm, lot, actions, hit, forced)
