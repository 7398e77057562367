"""Attacks: reach, damage, retaliation, and the choice of targets and patients.

Units act in turn and hits count at once, so each unit sees what those before it did in the same loop. ``units`` is one
lane's UNIT [N], agents first. Sources of the rules and constants: docs/skirmish.md.
"""

from __future__ import annotations

import math

import numpy as np

from envs.kernels.compiled import Record, rule
from envs.skirmish.units import BIOLOGICAL, BURST, LINE

HELP_RADIUS = 4.0  # idle friends within this distance answer an attack together
LEAST_DAMAGE = 0.5
ARMED = 1.0  # impact of a dead unit that has yet to burst
SHORTEST_FLIGHT = 0.01  # loops; 0 would mean that no hit is pending
HEAL_START, HEAL_SEARCH = 5.0, 6.0  # energy a Medivac needs to begin on its own; how far it then looks for patients


@rule
def can_hit(kind: Record, victim_kind: Record) -> bool:
    return (kind.targets & victim_kind.layers) != 0


@rule
def within(one: Record, two: Record, gap: float) -> bool:
    dx, dy = two.x - one.x, two.y - one.y
    return dx * dx + dy * dy <= gap * gap


@rule
def in_reach(types: np.ndarray, one: Record, two: Record, slop: float) -> bool:
    """Return whether the weapon (or healing) of ``one`` reaches ``two``; range counts from edge to edge."""
    kind = types[one.type]
    return within(one, two, kind.range + slop + kind.radius + types[two.type].radius)


@rule
def answer_attack(rules: Record, types: np.ndarray, units: np.ndarray, attacker: int, victim: int) -> None:
    """Turn a scripted victim without a target on its attacker, and likewise its nearby friends that have none."""
    n = rules.n_agents
    first, last = (0, n) if victim < n else (n, rules.n_units)
    for j in range(first, last):
        friend = units[j]
        free = friend.health > 0.0 and friend.scripted and friend.target < 0
        if free and (j == victim or within(friend, units[victim], HELP_RADIUS)):
            if can_hit(types[friend.type], types[units[attacker].type]):
                friend.target = attacker


@rule
def fall(unit: Record, kind: Record) -> None:
    """Kill a unit. A unit that bursts does so at the end of the loop."""
    unit.health = 0.0
    unit.shield = 0.0
    unit.target = -1
    unit.windup = 0.0
    if kind.splash == BURST:
        unit.impact = ARMED


@rule
def strike(rules: Record, types: np.ndarray, units: np.ndarray, attacker: int, victim: int) -> None:
    """Apply one hit: shields absorb it in full, armour reduces what is left for health."""
    unit, weapon, body = units[victim], types[units[attacker].type], types[units[victim].type]
    damage = weapon.damage
    if (weapon.bonus_against & body.attributes) != 0:
        damage += weapon.bonus
    absorbed = min(unit.shield, damage)
    unit.shield -= absorbed
    if damage > absorbed:
        unit.health -= max(damage - absorbed - body.armor, LEAST_DAMAGE)
    unit.quiet = 0
    if unit.health <= 0.0:
        fall(unit, body)
    elif unit.scripted and unit.target < 0 and units[attacker].health > 0.0:
        answer_attack(rules, types, units, attacker, victim)


@rule
def land_hit(rules: Record, types: np.ndarray, units: np.ndarray, i: int) -> None:
    """Count down to the arrival of a missile or the second blow, and apply it. A missile outlives its shooter."""
    unit = units[i]
    unit.impact -= 1.0
    if unit.impact > 0.0:
        return
    unit.impact = 0.0
    if units[unit.struck].health > 0.0:
        strike(rules, types, units, i, unit.struck)


@rule
def release(rules: Record, types: np.ndarray, units: np.ndarray, i: int) -> None:
    """Finish the wind-up: hit, burst, launch the missile or start the beam.

    The attack lapses if the target has died or fled.
    """
    unit = units[i]
    kind = types[unit.type]
    unit.windup = 0.0
    unit.recovery = kind.backswing
    victim = unit.target
    if victim < 0 or units[victim].health <= 0.0 or not in_reach(types, unit, units[victim], kind.range_slop):
        unit.cooldown = 0.0
        unit.recovery = 0.0
        return
    if kind.splash == BURST:
        fall(unit, kind)
        return
    unit.struck = victim
    if kind.splash == LINE:
        unit.aim_x, unit.aim_y = units[victim].x, units[victim].y
        unit.impact = kind.second_hit
        return
    if kind.missile_speed > 0.0:
        other = units[victim]
        gap = math.sqrt((other.x - unit.x) ** 2 + (other.y - unit.y) ** 2) - kind.radius - types[other.type].radius
        unit.impact = max(gap / kind.missile_speed, SHORTEST_FLIGHT)
        return
    strike(rules, types, units, i, victim)
    if kind.hits > 1:
        unit.impact = kind.second_hit


@rule
def opponents(rules: Record, i: int) -> tuple[int, int]:
    """Return the first index, and one past the last, of the units that unit ``i`` fights."""
    return (rules.n_agents, rules.n_units) if i < rules.n_agents else (0, rules.n_agents)


@rule
def preferred(rules: Record, types: np.ndarray, units: np.ndarray, i: int, reach: float) -> int:
    """Return the opponent within ``reach``, edge to edge, that unit ``i`` prefers to hit, -1 if there is none: one
    that aims at it, then the nearest; with ``healer_priority``, Medivacs before all others."""
    first, last = opponents(rules, i)
    me = units[i]
    kind = types[me.type]
    best, best_gap, best_rank = -1, 1e9, 0
    for j in range(first, last):
        foe = units[j]
        if foe.health <= 0.0:
            continue
        body = types[foe.type]
        dx, dy, limit = foe.x - me.x, foe.y - me.y, reach + kind.radius + body.radius
        square = dx * dx + dy * dy
        if square > limit * limit or not can_hit(kind, body):
            continue
        rank = int(foe.target == i) + 2 * int(body.heals != 0 and rules.healer_priority != 0)
        if rank < best_rank:
            continue
        gap = math.sqrt(square) - body.radius
        if gap < best_gap or rank > best_rank:
            best, best_gap, best_rank = j, gap, rank
    return best


@rule
def choose_target(rules: Record, types: np.ndarray, units: np.ndarray, i: int) -> None:
    """Choose a scripted unit's target within its scan radius. If nobody is there, it keeps the one it has, wherever
    that has gone."""
    me = units[i]
    best = preferred(rules, types, units, i, types[me.type].scan)
    if best >= 0 or (me.target >= 0 and units[me.target].health <= 0.0):
        me.target = best


@rule
def can_be_healed(types: np.ndarray, units: np.ndarray, i: int, j: int) -> bool:
    patient = units[j]
    kind = types[patient.type]
    return j != i and 0.0 < patient.health < kind.health and (kind.attributes & BIOLOGICAL) != 0


@rule
def choose_patient(rules: Record, types: np.ndarray, units: np.ndarray, i: int) -> None:
    """Choose a Medivac's patient: the present one until it is well, then the worst hurt one nearby."""
    me = units[i]
    if me.target >= 0 and can_be_healed(types, units, i, me.target):
        return
    me.target = -1
    if me.energy < HEAL_START:
        return
    n = rules.n_agents
    first, last = (0, n) if i < n else (n, rules.n_units)
    worst = 2.0
    for j in range(first, last):
        if not can_be_healed(types, units, i, j):
            continue
        patient, body = units[j], types[units[j].type]
        ratio = patient.health / body.health
        if ratio < worst and within(me, patient, HEAL_SEARCH + types[me.type].radius + body.radius):
            me.target, worst = j, ratio
