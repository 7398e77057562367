"""Movement: straight, along walls, around opponents, and making room for friends.

Distances are in map units; one call moves one game loop. ``units`` is one lane's UNIT [N], agents first.
"""

from __future__ import annotations

import math

import numpy as np

from envs.kernels.compiled import Record, rule
from envs.skirmish.bodies import WIDEST_GAP, blocks, obstacles, turn_around
from envs.skirmish.observe import can_walk
from envs.skirmish.records import FIGHTING, IDLE, MOVING, Ground
from envs.skirmish.terrain import SIZE
from envs.skirmish.units import WALKS

EDGE = 0.01  # flyers keep this far from the map's border
HEADINGS = 7  # detours tried on either side, in steps of 22.5 degrees
COS = np.array([math.cos(math.radians(22.5 * k)) for k in range(HEADINGS + 1)])
SIN = np.array([math.sin(math.radians(22.5 * k)) for k in range(HEADINGS + 1)])


@rule
def is_clear(rules: Record, types: np.ndarray, units: np.ndarray, i: int, x: float, y: float) -> bool:
    """Return whether no body is in the way at (x, y); moving away from one that already overlaps is allowed."""
    me = units[i]
    kind = types[me.type]
    first, last = obstacles(rules, i)
    for j in range(first, last):
        other = units[j]
        dx, dy = other.x - x, other.y - y
        square = dx * dx + dy * dy
        if square >= WIDEST_GAP * WIDEST_GAP:
            continue
        body = types[other.type]
        gap = kind.inner_radius + body.inner_radius
        if square < gap * gap and blocks(rules, types, units, i, j):
            old_dx, old_dy = other.x - me.x, other.y - me.y
            if square < old_dx * old_dx + old_dy * old_dy:
                return False
    return True


@rule
def fits(walkable: np.ndarray, kind: Record, x: float, y: float) -> bool:
    """Return whether a unit may be here: flyers and striders anywhere on the map, others on walkable cells."""
    if kind.plane == WALKS:
        return can_walk(walkable, x, y)
    return EDGE <= x <= SIZE - EDGE and EDGE <= y <= SIZE - EDGE


@rule
def cell_of(x: float, y: float) -> int:
    """Return the index of the cell that holds a point; points off the map belong to the nearest cell."""
    return SIZE * min(max(int(y), 0), SIZE - 1) + min(max(int(x), 0), SIZE - 1)


@rule
def next_point(routes: np.ndarray, unit: Record, goal_x: float, goal_y: float) -> tuple[float, float]:
    """Return the point to head for now on the way to the goal around walls."""
    via = routes[cell_of(unit.x, unit.y), cell_of(goal_x, goal_y)]
    if via < 0:
        return goal_x, goal_y
    return via % SIZE + 0.5, via // SIZE + 0.5


@rule
def turn_to(kind: Record, unit: Record, dx: float, dy: float) -> bool:
    """Turn the body towards the offset (dx, dy) for one loop; return whether it now points there."""
    far = math.sqrt(dx * dx + dy * dy)
    if far < 1e-9:
        return True
    dx, dy = dx / far, dy / far
    old_x, old_y = unit.heading_x, unit.heading_y
    if old_x * dx + old_y * dy >= kind.turn_cos:
        unit.heading_x, unit.heading_y = dx, dy
        return True
    sin = kind.turn_sin if old_x * dy - old_y * dx >= 0.0 else -kind.turn_sin
    unit.heading_x = kind.turn_cos * old_x - sin * old_y
    unit.heading_y = sin * old_x + kind.turn_cos * old_y
    return False


@rule
def walk(
    rules: Record,
    types: np.ndarray,
    ground: Ground,
    units: np.ndarray,
    i: int,
    goal_x: float,
    goal_y: float,
    target: int,
) -> None:
    """Move one loop towards the goal (``target`` if that is a unit), around units in the way and along walls, once the
    body has turned there."""
    unit = units[i]
    kind = types[unit.type]
    if rules.routed and kind.plane == WALKS:
        goal_x, goal_y = next_point(ground.routes, unit, goal_x, goal_y)
    dx, dy = goal_x - unit.x, goal_y - unit.y
    far = math.sqrt(dx * dx + dy * dy)
    speed = kind.speed if i < rules.n_agents else kind.stock_speed
    if far < 1e-9 or speed == 0.0:
        unit.pose = IDLE
        unit.speed = 0.0
        return
    if kind.acceleration > 0.0:
        gain = kind.acceleration if i < rules.n_agents else kind.stock_acceleration
        unit.speed = min(unit.speed + gain, speed)
        speed = unit.speed
    turn_by = turn_around(rules, types, units, i, dx, dy, far, target)
    if turn_by != 0.0:
        cos, sin = math.cos(turn_by), math.sin(turn_by)
        dx, dy = cos * dx - sin * dy, sin * dx + cos * dy
    unit.pose = MOVING
    if not turn_to(kind, unit, dx, dy) and unit.heading_x * dx + unit.heading_y * dy < 0.0:
        return  # nobody walks backwards
    stride = min(speed, far) / far
    step_x, step_y = dx * stride, dy * stride
    side = unit.turn
    for k in range(2 * HEADINGS + 1):
        turn, sign = (k + 1) // 2, side if k % 2 == 1 else -side
        x = unit.x + COS[turn] * step_x - sign * SIN[turn] * step_y
        y = unit.y + sign * SIN[turn] * step_x + COS[turn] * step_y
        if not fits(ground.walkable, kind, x, y):
            if fits(ground.walkable, kind, x, unit.y):
                y = unit.y
            elif fits(ground.walkable, kind, unit.x, y):
                x = unit.x
            else:
                continue
        if is_clear(rules, types, units, i, x, y):
            unit.x = x
            unit.y = y
            if k > 0:
                unit.turn = sign
            return
    unit.pose = IDLE


@rule
def shift(walkable: np.ndarray, kind: Record, unit: Record, dx: float, dy: float) -> None:
    """Push a unit, unless it would leave its ground."""
    if fits(walkable, kind, unit.x + dx, unit.y + dy):
        unit.x += dx
        unit.y += dy


@rule
def separate(types: np.ndarray, walkable: np.ndarray, units: np.ndarray, first: int, last: int) -> None:
    """Make room among friends: movers push each other, idle units give way, nobody pushes a fighting unit."""
    for i in range(first, last):
        one = units[i]
        if one.health <= 0.0 or one.pose == FIGHTING:
            continue
        kind = types[one.type]
        for j in range(i + 1, last):
            two = units[j]
            dx, dy = two.x - one.x, two.y - one.y
            square = dx * dx + dy * dy
            if square >= WIDEST_GAP * WIDEST_GAP:
                continue
            body = types[two.type]
            gap = kind.inner_radius + body.inner_radius
            if square >= gap * gap or two.health <= 0.0 or two.pose == FIGHTING or body.plane != kind.plane:
                continue
            far = math.sqrt(square)
            if far < 1e-6:
                dx, dy, far = 1.0, 0.0, 1.0
                overlap = gap
            else:
                overlap = gap - far
            share = 0.5 if one.pose == two.pose else (1.0 if one.pose == IDLE else 0.0)
            shift(walkable, kind, one, -dx / far * overlap * share, -dy / far * overlap * share)
            shift(walkable, body, two, dx / far * overlap * (1.0 - share), dy / far * overlap * (1.0 - share))
