"""Who sees whom and who may be targeted: ranges, the field of view, and sightings that friends do not share.

The last two are SMACv2's options (conic field of view; extended partial observability, EPO). All functions work on
one lane.
"""

from __future__ import annotations

import math

import numpy as np

from envs.kernels.compiled import Record, rule
from envs.kernels.rng import below, uniform

NOBODY = -1
TINY = 1e-7


@rule
def distance(one: Record, two: Record) -> float:
    return math.sqrt((two.x - one.x) * (two.x - one.x) + (two.y - one.y) * (two.y - one.y))


@rule
def in_cone(rules: Record, me: Record, dx: float, dy: float, gap: float) -> bool:
    """Return whether the offset (dx, dy) of length ``gap`` is in the field of view around the facing direction."""
    if rules.compat_conic == 0:
        return me.facing_x * dx + me.facing_y * dy > math.cos(rules.cone) * gap or gap == 0.0
    clamped = max(dx, TINY) if dx > 0.0 else min(dx, -TINY)  # as published: slopes are compared, half the circle folded
    facing = max(me.facing_x, TINY) if clamped > 0.0 else min(me.facing_x, -TINY)
    return abs(math.atan(dy / clamped) - math.atan(me.facing_y / facing)) < rules.cone


@rule
def sees(rules: Record, me: Record, other: Record, gap: float, sight: float) -> bool:
    """Return whether ``me`` sees ``other``: strictly within ``sight``; with a field of view, up to and including it."""
    if rules.conic:
        return gap <= sight and in_cone(rules, me, other.x - me.x, other.y - me.y, gap)
    return gap < sight


@rule
def may_target(rules: Record, types: np.ndarray, me: Record, other: Record, gap: float) -> bool:
    """Return whether ``other`` is near enough (and in view) to be the target of an attack or of healing."""
    if gap > types[me.type].shoot:
        return False
    return rules.conic == 0 or in_cone(rules, me, other.x - me.x, other.y - me.y, gap)


@rule
def forget_sightings(rules: Record, units: np.ndarray, owner: np.ndarray, seen: np.ndarray) -> None:
    """Update EPO after a step: enemies that a fallen agent had sighted first, and fallen enemies, must be sighted
    again.

    ``owner`` int32 [enemies] is the agent that sighted an enemy first, ``seen`` uint8 [enemies, n] the agents to which
    it is shown.
    """
    n = rules.n_agents
    for e in range(rules.n_enemies):
        if units[n + e].health <= 0.0 or (owner[e] != NOBODY and units[owner[e]].health <= 0.0):
            owner[e] = NOBODY
            for i in range(n):
                seen[e, i] = 0
        for i in range(n):
            if units[i].health <= 0.0:
                seen[e, i] = 0


@rule
def sight(
    rules: Record, types: np.ndarray, units: np.ndarray, lane: Record, owner: np.ndarray, seen: np.ndarray, i: int
) -> None:
    """Let agent ``i`` look under EPO: it owns the enemies that it is the first to see; each is shown to the others with
    probability ``prob_obs_enemy``.

    The published code lets corpses be sighted as well, which matters only to ``compat_epo_wipe``.
    """
    me, n = units[i], rules.n_agents
    for e in range(rules.n_enemies):
        foe = units[n + e]
        looks = foe.health > 0.0 or rules.compat_epo_wipe != 0
        if owner[e] != NOBODY or not looks or not sees(rules, me, foe, distance(me, foe), types[me.type].sight):
            continue
        owner[e] = i
        for j in range(n):
            if j == i or uniform(lane) < rules.prob_obs_enemy:
                seen[e, j] = 1


@rule
def shuffle(lane: Record, order: np.ndarray) -> None:
    """Write a random permutation of 0 .. n - 1 into ``order`` int32 [n]."""
    for k in range(order.shape[0]):
        other = below(lane, k + 1)
        order[k] = order[other]
        order[other] = k
