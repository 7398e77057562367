"""Paths around standing bodies: a mover that would run into one takes an outer tangent of the whole cluster.

Bodies are circles. Those with no room for the mover between them form a cluster; of the two tangents to it the mover
takes the shorter one, and changes sides only where the other one is clearly shorter. ``units`` is one
lane's UNIT [N], agents first; x points along the way that is blocked, y to the left of it.
"""

from __future__ import annotations

import math

import numpy as np

from envs.kernels.compiled import Record, rule
from envs.skirmish.records import FIGHTING, MOVING
from envs.skirmish.units import STRIDES, STRUCTURE, UNIT_TYPES

NOBODY = -1
FORESIGHT = 4.0  # bodies farther ahead may be gone by then
WIDEST_GAP = 2.0 * max(unit.inner_radius for unit in UNIT_TYPES)  # bodies farther apart never touch
OUTSIDE, REACHED, SPREAD = (
    0,
    1,
    2,
)  # a body's mark: not known to be in the cluster; in it; in it and so are its neighbours
CLOSED = 0.9 * math.pi  # a tangent that points this far back leads nowhere
NO_WAY = 1e9
LOYALTY = 0.8  # the path on the side taken before counts as this share of its length
CLEARANCE = 0.02  # radians kept from the tangent


@rule
def obstacles(rules: Record, i: int) -> tuple[int, int]:
    """Return the first index, and one past the last, of the units that can be in the way of unit ``i``."""
    if rules.friends_block:
        return 0, rules.n_units
    return (rules.n_agents, rules.n_units) if i < rules.n_agents else (0, rules.n_agents)


@rule
def collide(one: Record, two: Record) -> bool:
    """Return whether bodies of these two types collide: those in the same plane do, and striders also collide with
    structures."""
    if one.plane == two.plane:
        return True
    return (one.plane == STRIDES and (two.attributes & STRUCTURE) != 0) or (
        two.plane == STRIDES and (one.attributes & STRUCTURE) != 0
    )


@rule
def blocks(rules: Record, types: np.ndarray, units: np.ndarray, i: int, j: int) -> bool:
    """Return whether unit ``i`` may not walk through ``j``: an opponent or, with ``friends_block``, a fighting
    friend."""
    one, two, n = units[i], units[j], rules.n_agents
    if j == i or two.health <= 0.0 or not collide(types[one.type], types[two.type]):
        return False
    return (i < n) != (j < n) or two.pose == FIGHTING


@rule
def stands_in_way(rules: Record, types: np.ndarray, units: np.ndarray, i: int, j: int) -> bool:
    """Return whether ``j`` blocks unit ``i`` and stays where it is, so that a way around it is worth planning."""
    return units[j].pose != MOVING and blocks(rules, types, units, i, j)


@rule
def first_blocker(
    rules: Record, types: np.ndarray, units: np.ndarray, i: int, dx: float, dy: float, far: float, target: int
) -> int:
    """Return the unit that ``i`` runs into first on its way (dx, dy) of length ``far``, before it reaches
    ``target``."""
    me = units[i]
    kind = types[me.type]
    found, nearest = NOBODY, far
    if target != NOBODY:
        nearest -= kind.range + kind.radius + types[units[target].type].radius
    nearest = min(nearest, FORESIGHT)
    first, last = obstacles(rules, i)
    for j in range(first, last):
        x, y = units[j].x - me.x, units[j].y - me.y
        ahead = x * dx + y * dy
        if ahead <= 0.0 or ahead > (FORESIGHT + WIDEST_GAP) * far:
            continue
        along, across, gap = ahead / far, (y * dx - x * dy) / far, kind.inner_radius + types[units[j].type].inner_radius
        if abs(across) >= gap or j == target or not stands_in_way(rules, types, units, i, j):
            continue
        hit = along - math.sqrt(gap * gap - across * across)
        if hit < nearest:
            found, nearest = j, hit
    return found


@rule
def length_via(angle: float, tangent: float, far: float) -> float:
    """Return the length of the path to (far, 0) via the point at distance ``tangent`` in direction ``angle``."""
    x, y = tangent * math.cos(angle), tangent * math.sin(angle)
    return tangent + math.sqrt((far - x) * (far - x) + y * y) if abs(angle) < CLOSED else NO_WAY


@rule
def spread(rules: Record, types: np.ndarray, units: np.ndarray, i: int, k: int, target: int) -> bool:
    """Mark as REACHED the units that leave no room for ``i`` between themselves and ``k``; return whether there are
    any."""
    radius, one, found = types[units[i].type].inner_radius, units[k], False
    first, last = obstacles(rules, i)
    for j in range(first, last):
        two = units[j]
        if two.mark != OUTSIDE or j == target or not stands_in_way(rules, types, units, i, j):
            continue
        room = types[one.type].inner_radius + types[two.type].inner_radius + 2.0 * radius
        x, y = two.x - one.x, two.y - one.y
        if x * x + y * y < room * room:
            two.mark = REACHED
            found = True
    return found


@rule
def turn_around(
    rules: Record, types: np.ndarray, units: np.ndarray, i: int, dx: float, dy: float, far: float, target: int
) -> float:
    """Return the angle, in radians to the left, by which unit ``i`` must leave its way (dx, dy) of length ``far``.

    It is 0 where nobody stands in the way, or no side is open.
    """
    blocker = first_blocker(rules, types, units, i, dx, dy, far, target)
    if blocker == NOBODY:
        return 0.0
    first, last = obstacles(rules, i)
    for j in range(first, last):
        units[j].mark = OUTSIDE
    units[blocker].mark = REACHED
    me = units[i]
    left, right, left_way, right_way = -math.pi, math.pi, NO_WAY, NO_WAY
    growing = True
    while growing:
        growing = False
        for k in range(first, last):
            body = units[k]
            if body.mark != REACHED:
                continue
            body.mark = SPREAD
            growing |= spread(rules, types, units, i, k, target)
            x, y = body.x - me.x, body.y - me.y
            square, gap = x * x + y * y, types[me.type].inner_radius + types[body.type].inner_radius
            angle = math.atan2((y * dx - x * dy) / far, (x * dx + y * dy) / far)
            half = math.asin(min(gap / max(math.sqrt(square), gap), 1.0))
            tangent = math.sqrt(max(square - gap * gap, 0.0))
            if angle + half > left:
                left = angle + half
                left_way = length_via(left, tangent, far)
            if angle - half < right:
                right = angle - half
                right_way = length_via(right, tangent, far)
    if left_way >= NO_WAY and right_way >= NO_WAY:
        return 0.0
    if left_way * (LOYALTY if me.turn > 0 else 1.0) <= right_way * (LOYALTY if me.turn < 0 else 1.0):
        me.turn = 1
        return left + CLEARANCE
    me.turn = -1
    return right - CLEARANCE
