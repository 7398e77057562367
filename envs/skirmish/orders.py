"""Orders: the agents' from their actions, the enemy's from the map's script.

``units`` is one lane's UNIT [N], agents first.
"""

from __future__ import annotations

import math

import numpy as np

from envs.kernels.compiled import Record, rule
from envs.kernels.rng import uniform
from envs.skirmish.combat import can_be_healed, can_hit
from envs.skirmish.observe import EAST, FIRST_LOOK, NOOP, NORTH, SOUTH, STOP_ACTION, WEST
from envs.skirmish.physics import give_order
from envs.skirmish.records import ATTACK, ATTACK_MOVE, HEAL, MOVE, STOP
from envs.skirmish.sight import distance, may_target
from envs.skirmish.terrain import SIZE

MOVE_AMOUNT = 2.0


@rule
def in_mask(rules: Record, types: np.ndarray, unit: Record, other: Record) -> bool:
    """Return whether the order may be given; without an action mask, targets out of reach are dropped here."""
    return rules.action_mask != 0 or may_target(rules, types, unit, other, distance(unit, other))


@rule
def issue_orders(
    rules: Record, types: np.ndarray, listed: np.ndarray, units: np.ndarray, lane: Record, actions: np.ndarray
) -> None:
    """Turn the agents' actions [n] into orders; where the game would refuse one, the previous order stands.

    ``listed`` int32 [enemies] says which enemy each of the targets is.
    """
    n, first = rules.n_agents, rules.first_target
    for i in range(n):
        unit, kind, action = units[i], types[units[i].type], actions[i]
        if unit.health <= 0.0 or unit.scripted or action == NOOP:
            continue
        if action == STOP_ACTION:
            give_order(unit, kind, STOP, -1, unit.x, unit.y)
        elif action < 6:
            dx = MOVE_AMOUNT * ((action == EAST) - (action == WEST))
            dy = MOVE_AMOUNT * ((action == NORTH) - (action == SOUTH))
            x = min(max(unit.x + dx, 0.0), float(SIZE))
            y = min(max(unit.y + dy, 0.0), float(SIZE))
            give_order(unit, kind, MOVE, -1, x, y)
        elif action < first:
            angle = 2.0 * math.pi * (action - FIRST_LOOK) / (first - FIRST_LOOK)  # looking is not an order
            unit.facing_x = math.cos(angle)
            unit.facing_y = math.sin(angle)
        elif unit.attack_probability < 1.0 and uniform(lane) >= unit.attack_probability:
            pass  # the order fails
        elif kind.heals and rules.medivacs:
            if in_mask(rules, types, unit, units[action - first]) and can_be_healed(types, units, i, action - first):
                give_order(unit, kind, HEAL, action - first, unit.x, unit.y)
        else:
            target = n + listed[action - first]
            foe = units[target]
            if foe.health > 0.0 and can_hit(kind, types[foe.type]) and in_mask(rules, types, unit, foe):
                give_order(unit, kind, ATTACK, target, unit.x, unit.y)


@rule
def order_attack_move(rules: Record, units: np.ndarray, lane: Record) -> None:
    """Send the enemy to the map's point, or a random one on its segment; each unit keeps its place in the formation."""
    n = rules.n_agents
    centre_x = centre_y = 0.0
    for i in range(n, rules.n_units):
        centre_x += units[i].x / rules.n_enemies
        centre_y += units[i].y / rules.n_enemies
    share = uniform(lane) if rules.order_points > 1 else 0.0
    x = rules.order_ax + share * (rules.order_bx - rules.order_ax)
    y = rules.order_ay + share * (rules.order_by - rules.order_ay)
    for i in range(n, rules.n_units):
        unit = units[i]
        unit.order = ATTACK_MOVE
        unit.goal_x = x + unit.x - centre_x
        unit.goal_y = y + unit.y - centre_y


@rule
def order_hunt(rules: Record, types: np.ndarray, units: np.ndarray) -> None:
    """Order every enemy that is not already carrying out such an order to attack the agent nearest to it."""
    n = rules.n_agents
    for i in range(n, rules.n_units):
        unit = units[i]
        busy = unit.order == ATTACK and unit.target >= 0 and units[unit.target].health > 0.0
        if unit.health <= 0.0 or not unit.scripted or busy:
            continue
        nearest, least = -1, 1e9
        for j in range(n):
            dx, dy = units[j].x - unit.x, units[j].y - unit.y
            if units[j].health > 0.0 and dx * dx + dy * dy < least:
                nearest, least = j, dx * dx + dy * dy
        if nearest >= 0 and can_hit(types[unit.type], types[units[nearest].type]):
            unit.order, unit.target = ATTACK, nearest
