"""The rules of the battle, one unit at a time and one game loop after another (16 loops are a game second).

Every rule and constant, with its source, is in docs/skirmish.md. ``units`` is one lane's UNIT [N], agents first;
functions change it in place.
"""

from __future__ import annotations

import numpy as np

from envs.kernels.compiled import Record, rule
from envs.kernels.rng import uniform
from envs.skirmish.bodies import NOBODY
from envs.skirmish.combat import (
    can_be_healed,
    choose_patient,
    choose_target,
    in_reach,
    land_hit,
    preferred,
    release,
)
from envs.skirmish.movement import separate, turn_to, walk
from envs.skirmish.records import ATTACK, ATTACK_MOVE, FIGHTING, HEAL, IDLE, MOVE, STOP, Ground
from envs.skirmish.splash import burn, burst_the_fallen, sweep
from envs.skirmish.units import BIOLOGICAL, LINE

VERSION = 5  # of everything that affects a battle; docs/skirmish.md says what each stands for

SHIELD_DELAY, SHIELD_RATE = 160, 2.0 / 16.0  # loops without damage before shields recharge; points per loop
ENERGY_RATE, MAX_ENERGY = 0.5625 / 16.0, 200.0
HEAL_RATE, HEAL_COST = 9.0 / 16.0, 0.33  # health per loop, energy per health
PERIOD_NOISE_LOW, PERIOD_NOISE_SPAN = -1.0, 3.0  # loops, uniform


@rule
def recover(unit: Record, kind: Record) -> None:
    """Recover one loop's worth of weapon cooldown, shield, health and energy."""
    unit.cooldown = max(unit.cooldown - 1.0, 0.0)
    unit.recovery = max(unit.recovery - 1.0, 0.0)
    unit.quiet += 1
    if unit.shield < kind.shield and unit.quiet >= SHIELD_DELAY:
        unit.shield = min(unit.shield + SHIELD_RATE, kind.shield)
    if kind.regeneration > 0.0:
        unit.health = min(unit.health + kind.regeneration, kind.health)
    if kind.heals:
        unit.energy = min(unit.energy + ENERGY_RATE, MAX_ENERGY)


@rule
def give_order(unit: Record, kind: Record, order: int, target: int, goal_x: float, goal_y: float) -> None:
    """Replace the order. Unless it repeats the old one, this breaks off a wind-up or a sweeping beam.

    Stopping a unit that stands without an order changes nothing: a weapon that fires on its own continues.
    """
    if order == STOP and unit.order == STOP and kind.free_fire:
        return
    if not (order == ATTACK and unit.target == target):
        if unit.windup > 0.0:
            unit.windup = 0.0
            unit.cooldown = 0.0
        if kind.splash == LINE:
            unit.impact = 0.0
    unit.recovery = 0.0
    unit.order = order
    unit.target = target
    unit.goal_x = goal_x
    unit.goal_y = goal_y


@rule
def fight(rules: Record, types: np.ndarray, ground: Ground, units: np.ndarray, lane: Record, i: int) -> None:
    """Attack the target: walk until the weapon reaches it, then turn to it and fire whenever ready."""
    unit = units[i]
    foe = units[unit.target]
    kind = types[unit.type]
    if not in_reach(types, unit, foe, 0.0):
        if unit.recovery <= 0.0:
            walk(rules, types, ground, units, i, foe.x, foe.y, unit.target)
        return
    unit.pose = FIGHTING
    unit.speed = 0.0
    faces = turn_to(kind, unit, foe.x - unit.x, foe.y - unit.y)
    if faces and unit.cooldown <= 0.0:
        unit.cooldown = max(kind.period + PERIOD_NOISE_LOW + PERIOD_NOISE_SPAN * uniform(lane), 0.0)
        unit.windup = kind.damage_point
        if unit.windup <= 0.0:
            release(rules, types, units, i)


@rule
def treat(rules: Record, types: np.ndarray, ground: Ground, units: np.ndarray, i: int) -> None:
    """Heal the target until it is well or the energy is gone."""
    unit = units[i]
    patient = units[unit.target]
    if not in_reach(types, unit, patient, 0.0):
        walk(rules, types, ground, units, i, patient.x, patient.y, unit.target)
        return
    unit.pose = IDLE
    unit.speed = 0.0
    dose = min(HEAL_RATE, types[patient.type].health - patient.health, unit.energy / HEAL_COST)
    patient.health += dose
    unit.energy -= dose * HEAL_COST


@rule
def escort(rules: Record, types: np.ndarray, ground: Ground, units: np.ndarray, i: int) -> None:
    """Keep a scripted Medivac with nobody to heal and no order near the closest friend that it could heal."""
    unit, n = units[i], rules.n_agents
    first, last = (0, n) if i < n else (n, rules.n_units)
    nearest, least = -1, 1e9
    for j in range(first, last):
        friend = units[j]
        dx, dy = friend.x - unit.x, friend.y - unit.y
        if j == i or friend.health <= 0.0 or (types[friend.type].attributes & BIOLOGICAL) == 0:
            continue
        if dx * dx + dy * dy < least:
            nearest, least = j, dx * dx + dy * dy
    if nearest >= 0 and not in_reach(types, unit, units[nearest], 0.0):
        walk(rules, types, ground, units, i, units[nearest].x, units[nearest].y, nearest)
    else:
        unit.pose = IDLE
        unit.speed = 0.0


@rule
def take_turn(
    rules: Record, types: np.ndarray, ground: Ground, units: np.ndarray, lane: Record, i: int, choose: bool
) -> None:
    """Play one loop of unit ``i``; ``choose``: scripted units look for targets in this loop."""
    unit = units[i]
    if unit.health <= 0.0:
        if unit.impact > 0.0 and types[unit.type].missile_speed > 0.0:
            land_hit(rules, types, units, i)
        return
    kind = types[unit.type]
    recover(unit, kind)
    if unit.impact > 0.0 and kind.splash == LINE:
        sweep(rules, types, units, i)
        return
    if unit.impact > 0.0:
        land_hit(rules, types, units, i)
    if unit.windup > 0.0:
        unit.windup -= 1.0
        if unit.windup <= 0.0:
            release(rules, types, units, i)
        return
    if unit.scripted and unit.order == ATTACK and unit.target >= 0 and units[unit.target].health > 0.0:
        pass  # an order to attack a unit overrides its own choice
    elif unit.scripted:
        if unit.order == ATTACK:
            unit.order = STOP
        if kind.heals:
            choose_patient(rules, types, units, i)
        elif choose or (unit.target >= 0 and units[unit.target].health <= 0.0):
            choose_target(rules, types, units, i)
    elif unit.target >= 0:
        lost = units[unit.target].health <= 0.0
        if lost or (unit.order == HEAL and not can_be_healed(types, units, i, unit.target)):
            unit.order = STOP
            unit.target = -1
    if kind.free_fire and not unit.scripted and unit.order == STOP:
        if unit.target < 0 or not in_reach(types, unit, units[unit.target], 0.0):
            unit.target = preferred(rules, types, units, i, kind.range)
    if unit.target >= 0 and kind.heals:
        treat(rules, types, ground, units, i)
    elif unit.target >= 0:
        fight(rules, types, ground, units, lane, i)
    elif (unit.order == MOVE or unit.order == ATTACK_MOVE) and unit.recovery <= 0.0:
        walk(rules, types, ground, units, i, unit.goal_x, unit.goal_y, NOBODY)
    elif unit.scripted and kind.heals and rules.hunt:
        escort(rules, types, ground, units, i)
    else:
        unit.pose = IDLE
        unit.speed = 0.0


@rule
def play_loop(
    rules: Record, types: np.ndarray, ground: Ground, units: np.ndarray, lane: Record, start: int, choose: bool
) -> None:
    """Play one game loop: the beam hits that are due; every unit once, beginning with unit ``start``; then bursts;
    then friends make room."""
    N = rules.n_units
    burn(rules, types, units)
    for k in range(N):
        i = start + k
        take_turn(rules, types, ground, units, lane, i if i < N else i - N, choose)
    if rules.bursts:
        burst_the_fallen(rules, types, units)
    separate(types, ground.walkable, units, 0, rules.n_agents)
    separate(types, ground.walkable, units, rules.n_agents, N)
