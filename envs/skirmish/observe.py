"""Rules that write what the agents see: availability, observations and the state, in SMAC's layout.

All functions work on one lane: ``units`` is UNIT [N], agents first, then enemies.
"""

from __future__ import annotations

import numpy as np

from envs.kernels.compiled import Record, rule
from envs.skirmish.records import Lanes, Outputs, World
from envs.skirmish.sight import distance, may_target, sees, shuffle, sight
from envs.skirmish.terrain import SIZE
from envs.skirmish.units import UNKNOWN_BIT

NOOP, STOP_ACTION, NORTH, SOUTH, EAST, WEST, FIRST_LOOK = 0, 1, 2, 3, 4, 5, 6
CENTRE, SPAN, MAX_ENERGY = 16.0, 32.0, 200.0
PROBES = np.array([[0, 4], [0, -4], [4, 0], [-4, 0], [2, 2], [-2, -2], [2, -2], [-2, 2], [0, 0]])


@rule
def can_walk(walkable: np.ndarray, x: float, y: float) -> bool:
    """Return whether the cell that holds the point is on the map and walkable; flyers are treated the same."""
    column, row = int(x), int(y)
    return x >= 0.0 and y >= 0.0 and column < SIZE and row < SIZE and walkable[row, column] != 0


@rule
def write_avail(
    rules: Record, types: np.ndarray, walkable: np.ndarray, listed: np.ndarray, units: np.ndarray, avail: np.ndarray
) -> None:
    """Fill ``avail`` bool [n, A]: the dead may only do the no-op, the living anything but the no-op."""
    n, first = rules.n_agents, rules.first_target
    avail[:] = False
    for i in range(n):
        me = units[i]
        if me.health <= 0.0:
            avail[i, NOOP] = True
            continue
        for action in range(1, first):
            avail[i, action] = True
        avail[i, NORTH] = can_walk(walkable, me.x, me.y + 1.0)
        avail[i, SOUTH] = can_walk(walkable, me.x, me.y - 1.0)
        avail[i, EAST] = can_walk(walkable, me.x + 1.0, me.y)
        avail[i, WEST] = can_walk(walkable, me.x - 1.0, me.y)
        write_targets(rules, types, listed, units, avail, i, False)


@rule
def write_targets(
    rules: Record,
    types: np.ndarray,
    listed: np.ndarray,
    units: np.ndarray,
    avail: np.ndarray,
    i: int,
    everybody: bool,
) -> None:
    """Write which targets agent ``i`` has: enemies, or friends for a Medivac; ``everybody``: at any distance."""
    n, first, me = rules.n_agents, rules.first_target, units[i]
    if types[me.type].heals and rules.medivacs:
        for j in range(n):
            patient = units[j]
            if j != i and patient.health > 0.0 and not types[patient.type].heals:
                avail[i, first + j] = everybody or may_target(rules, types, me, patient, distance(me, patient))
    else:
        for k in range(rules.n_enemies):
            foe = units[n + listed[k]]
            if foe.health > 0.0:
                avail[i, first + k] = everybody or may_target(rules, types, me, foe, distance(me, foe))


@rule
def health_left(unit: Record, kind: Record) -> float:
    """Return the share of health above the level at which the unit is killed; negative until the kill takes place."""
    return (unit.health / kind.health - unit.health_level) / (1.0 - unit.health_level)


@rule
def write_capabilities(rules: Record, unit: Record, row: np.ndarray, at: int, attack: int, level: int) -> int:
    """Write an agent's capabilities from index ``at`` on; zeros without ``attack`` or ``level``.

    Return the index after them.
    """
    if rules.attack_probabilities:
        row[at] = unit.attack_probability if attack else 0.0
        at += 1
    if rules.health_levels:
        row[at] = unit.health_level if level else 0.0
        at += 1
    return at


@rule
def write_unit(
    row: np.ndarray,
    at: int,
    flag: float,
    gap: float,
    sight: float,
    me: Record,
    other: Record,
    kind: Record,
    shield: int,
) -> int:
    """Write place, health and shield of another unit from index ``at`` of ``row`` on; return the index after them."""
    row[at] = flag
    row[at + 1] = gap / sight
    row[at + 2] = (other.x - me.x) / sight
    row[at + 3] = (other.y - me.y) / sight
    row[at + 4] = other.health / kind.health
    at += 5
    if shield:
        row[at] = other.shield / max(kind.shield, 1.0)
        at += 1
    return at


@rule
def write_surroundings(
    rules: Record, walkable: np.ndarray, height: np.ndarray, me: Record, row: np.ndarray, at: int
) -> int:
    """Write the optional probes of the ground around an agent; outside the map they read 1. Return the index after
    them."""
    column, line = int(me.x), int(me.y)
    if rules.obs_pathing_grid:
        for k in range(8):
            x, y = column + PROBES[k, 0], line + PROBES[k, 1]
            inside = 0 <= x < SIZE and 0 <= y < SIZE
            row[at + k] = walkable[y, x] if inside else 1.0
        at += 8
    if rules.obs_terrain_height:
        for k in range(9):
            x, y = column + PROBES[k, 0], line + PROBES[k, 1]
            inside = 0 <= x < SIZE and 0 <= y < SIZE
            row[at + k] = height[y, x] if inside else 1.0
        at += 9
    return at


@rule
def write_enemies(
    rules: Record, types: np.ndarray, listed: np.ndarray, units: np.ndarray, seen: np.ndarray, hidden: np.ndarray,
    avail: np.ndarray, row: np.ndarray, i: int, start: int,
) -> int:  # fmt: skip
    """Write the enemy blocks of agent ``i``'s observation from ``start`` on; return the index after them."""
    me, n, at = units[i], rules.n_agents, start
    sight = types[me.type].sight
    size = 5 + rules.shield_enemy + rules.type_bits
    for k in range(rules.n_enemies):
        e = listed[k]
        foe = units[n + e]
        if rules.epo and seen[e, i] == 0:
            if rules.compat_epo_wipe:  # as published: an enemy not shown yet erases those before it
                row[start:at] = 0.0
        elif foe.health > 0.0:
            gap = distance(me, foe)
            if sees(rules, me, foe, gap, sight):
                kind = types[foe.type]
                attackable = avail[i, rules.first_target + k]
                end = write_unit(row, at, attackable, gap, sight, me, foe, kind, rules.shield_enemy)
                if rules.type_bits > 0 and kind.enemy_bit != UNKNOWN_BIT:
                    row[end + kind.enemy_bit] = 1.0
                if rules.enemy_mask > 0.0 and hidden[e, i]:
                    row[at + 4 : at + size] = 0.0
        at += size
    return at


@rule
def write_friends(
    rules: Record, types: np.ndarray, units: np.ndarray, last_action: np.ndarray, row: np.ndarray, i: int, at: int
) -> int:
    """Write the blocks of the other agents from index ``at`` on; return the index after them."""
    me = units[i]
    sight = types[me.type].sight
    size = 5 + rules.shield_ally + rules.attack_probabilities + rules.health_levels + rules.type_bits
    for j in range(rules.n_agents):
        if j == i:
            continue
        friend = units[j]
        gap = distance(me, friend)
        visible = friend.health > 0.0 and sees(rules, me, friend, gap, sight)
        if visible:
            kind = types[friend.type]
            end = write_unit(row, at, 1.0, gap, sight, me, friend, kind, rules.shield_ally)
            if rules.health_levels:  # an agent that is not shown the level is not shown the health either
                row[at + 4] = health_left(friend, kind) if rules.obs_ally_level else 0.0
            end = write_capabilities(rules, friend, row, end, rules.obs_ally_attack, rules.obs_ally_level)
            if rules.type_bits > 0 and rules.obs_ally_types and kind.ally_bit != UNKNOWN_BIT:
                row[end + kind.ally_bit] = 1.0
        at += size
        if rules.obs_last_action:
            if visible and last_action[j] >= 0:
                row[at + last_action[j]] = 1.0
            at += rules.n_actions
    return at


@rule
def write_self(rules: Record, types: np.ndarray, me: Record, t: int, row: np.ndarray, at: int) -> None:
    """Write the agent's own block from index ``at`` on."""
    mine = types[me.type]
    row[at] = health_left(me, mine)
    at += 1
    if rules.shield_ally:
        row[at] = me.shield / max(mine.shield, 1.0)
        at += 1
    at = write_capabilities(rules, me, row, at, 1, 1)
    if rules.obs_own_pos:
        row[at] = me.x / SPAN
        row[at + 1] = me.y / SPAN
        at += 2
    if rules.conic:
        row[at] = me.facing_x
        row[at + 1] = me.facing_y
        at += 2
    if rules.type_bits > 0:
        if mine.ally_bit != UNKNOWN_BIT:
            row[at + mine.ally_bit] = 1.0
        at += rules.type_bits
    if rules.obs_timestep:
        row[at] = t / rules.episode_limit


@rule
def write_obs(world: World, lanes: Lanes, avail: np.ndarray, obs: np.ndarray, b: int) -> None:
    """Fill ``obs`` f32 [n, O] of lane ``b``; ``avail`` must be up to date. The dead see zeros."""
    rules, types, units, lane = world.rules[0], world.types, lanes.units[b], lanes.lanes[b]
    obs[:] = 0.0
    if rules.epo:
        shuffle(lane, lanes.visit[b])
    for k in range(rules.n_agents):
        i = lanes.visit[b, k] if rules.epo else k
        me, row = units[i], obs[i]
        if me.health <= 0.0:
            continue
        if rules.epo:
            sight(rules, types, units, lane, lanes.owner[b], lanes.seen[b], i)
        for direction in range(4):
            row[direction] = avail[i, NORTH + direction]
        at = write_surroundings(rules, world.walkable, world.height, me, row, 4)
        at = write_enemies(rules, types, world.listed, units, lanes.seen[b], lanes.hidden[b], avail, row, i, at)
        at = write_friends(rules, types, units, lanes.last_action[b], row, i, at)
        write_self(rules, types, me, lane.t, row, at)


@rule
def write_state(
    rules: Record,
    types: np.ndarray,
    listed: np.ndarray,
    units: np.ndarray,
    last_action: np.ndarray,
    t: int,
    obs: np.ndarray,
    state: np.ndarray,
) -> None:
    """Fill ``state`` f32 [S]; ``obs`` [n, O] must be up to date (with ``obs_as_state`` it is the state)."""
    n, bits = rules.n_agents, rules.type_bits
    if rules.obs_as_state:
        width = obs.shape[1]
        for i in range(n):
            for k in range(width):
                state[i * width + k] = obs[i, k]
        return
    state[:] = 0.0
    at = 0
    for i in range(rules.n_units):
        ally = i < n
        unit = units[i] if ally else units[n + listed[i - n]]
        shield = rules.shield_ally if ally else rules.shield_enemy
        conic = rules.conic != 0 and ally
        size = 3 + ally + shield + 2 * conic + bits
        if ally:
            size += rules.attack_probabilities + rules.health_levels
        if unit.health > 0.0:
            kind, k = types[unit.type], at
            state[k] = health_left(unit, kind)
            if ally:
                state[k + 1] = unit.energy / MAX_ENERGY if kind.heals else unit.cooldown / kind.cooldown_norm
                k += 1
            state[k + 1] = (unit.x - CENTRE) / SPAN
            state[k + 2] = (unit.y - CENTRE) / SPAN
            k += 3
            if shield:
                state[k] = unit.shield / max(kind.shield, 1.0)
                k += 1
            if ally:
                k = write_capabilities(rules, unit, state, k, 1, 1)
            if conic:
                state[k] = unit.facing_x
                state[k + 1] = unit.facing_y
                k += 2
            bit = kind.ally_bit if ally else kind.enemy_bit
            if bits > 0 and bit != UNKNOWN_BIT:
                state[k + bit] = 1.0
        at += size
    if rules.state_last_action:
        for i in range(n):
            if last_action[i] >= 0:
                state[at + last_action[i]] = 1.0
            at += rules.n_actions
    if rules.state_timestep:
        state[at] = t / rules.episode_limit


@rule
def observe_lane(world: World, lanes: Lanes, outputs: Outputs, b: int) -> None:
    """Update everything that the agents and the learner see of lane ``b``."""
    rules, units, avail = world.rules[0], lanes.units[b], outputs.avail[b]
    write_avail(rules, world.types, world.walkable, world.listed, units, avail)
    write_obs(world, lanes, avail, outputs.obs[b], b)
    write_state(
        rules, world.types, world.listed, units, lanes.last_action[b], lanes.lanes[b].t, outputs.obs[b],
        outputs.state[b],
    )  # fmt: skip
    for i in range(rules.n_agents):
        outputs.alive[b, i] = units[i].health > 0.0
        if rules.action_mask == 0 and units[i].health > 0.0:  # orders out of reach are dropped when they are given
            write_targets(rules, world.types, world.listed, units, avail, i, True)
