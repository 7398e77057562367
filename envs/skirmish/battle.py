"""The kernels that Python calls: reset and step of all lanes, one lane per iteration of a parallel loop.

A lane touches only its own records and rows, so results depend neither on threads nor on the number of lanes.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from envs.skirmish.combat import can_be_healed, can_hit
from envs.skirmish.compiled import forget_stale, rule
from envs.skirmish.observe import EAST, NOOP, NORTH, SOUTH, STOP_ACTION, WEST, observe_lane
from envs.skirmish.physics import give_order, play_loop
from envs.skirmish.records import (
    ATTACK,
    ATTACK_MOVE,
    DEATH,
    DENSE,
    HEAL,
    HUNT_ON,
    MOVE,
    STOP,
    WIN_LOSS,
    Ground,
    Lanes,
    Outputs,
    Record,
    World,
)
from envs.skirmish.rng import below, mix, seed_lane, uniform
from envs.skirmish.terrain import SIZE

LOOPS_PER_STEP = 8  # half a game second
CHOOSE_EVERY = 4  # loops between two looks for a better target
MOVE_AMOUNT = 2.0
DEATH_VALUE, NEGATIVE_SCALE, WIN_VALUE = 10.0, 0.5, 200.0
RUNNING, WON, LOST, DRAWN = 0, 1, 2, 3


# --- the beginning ---------------------------------------------------------------------------------------------------


@rule
def spawn(rules: Record, types: np.ndarray, template: np.ndarray, units: np.ndarray, lane: Record) -> None:
    """Put the line-up on the map with a little noise and give the enemy its order."""
    n = rules.n_agents
    lane.t = 0
    lane.finished = 0
    for i in range(rules.n_units):
        units[i] = template[i]
        unit = units[i]
        kind = types[unit.type]
        unit.health = kind.health * rules.ally_health if i < n else kind.health
        unit.shield = kind.shield
        if rules.spawn_jitter > 0.0:
            unit.x += rules.spawn_jitter * (2.0 * uniform(lane) - 1.0)
            unit.y += rules.spawn_jitter * (2.0 * uniform(lane) - 1.0)
    if rules.order_points > 0:
        order_attack_move(rules, units, lane)
    if rules.hunt:
        order_hunt(rules, types, units)
    measure_reward(rules, types, units, lane)


@rule
def measure_reward(rules: Record, types: np.ndarray, units: np.ndarray, lane: Record) -> None:
    """What can be earned from this enemy at most: its health and shields, its deaths, the win."""
    lane.max_reward = WIN_VALUE + DEATH_VALUE * rules.n_enemies
    for i in range(rules.n_agents, rules.n_units):
        lane.max_reward += types[units[i].type].health + types[units[i].type].shield


@rule
def order_attack_move(rules: Record, units: np.ndarray, lane: Record) -> None:
    """Send the enemy to a point; each unit keeps its place in the formation."""
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
    """Every enemy that is not carrying out such an order is told to attack the agent nearest to it."""
    n = rules.n_agents
    for i in range(n, rules.n_units):
        unit = units[i]
        if unit.health <= 0.0 or not unit.scripted or unit.order == ATTACK:
            continue
        nearest, least = -1, 1e9
        for j in range(n):
            dx, dy = units[j].x - unit.x, units[j].y - unit.y
            if units[j].health > 0.0 and dx * dx + dy * dy < least:
                nearest, least = j, dx * dx + dy * dy
        if nearest >= 0 and can_hit(types[unit.type], types[units[nearest].type]):
            unit.order, unit.target = ATTACK, nearest


@njit(cache=True)
def seed_lanes(lanes: np.ndarray, seed: np.uint64) -> None:
    """Begin the random stream of every lane, LANE [B], from ``seed`` (uint64)."""
    for b in range(lanes.shape[0]):
        seed_lane(lanes[b], seed, b)


@rule
def reset_lane(world: World, lanes: Lanes, outputs: Outputs, seed: np.uint64, reseed: bool, b: int) -> None:
    rules, lane, units = world.rules[0], lanes.lanes[b], lanes.units[b]
    if reseed:
        seed_lane(lane, seed, b)
    spawn(rules, world.types, world.template, units, lane)
    lanes.last_action[b] = -1
    observe_lane(rules, world, units, lanes.last_action[b], 0, outputs.avail[b], outputs.obs[b], outputs.state[b],
                 outputs.alive[b])  # fmt: skip


@njit(parallel=True, cache=True)
def reset_lanes(world: World, lanes: Lanes, outputs: Outputs, mask: np.ndarray, seed: np.uint64, reseed: bool) -> None:
    """Restart the lanes where ``mask`` bool [B]; with ``reseed`` their random streams begin anew from ``seed``."""
    for b in prange(mask.shape[0]):
        if mask[b]:
            reset_lane(world, lanes, outputs, seed, reseed, b)


@njit(cache=True)
def observe_only(world: World, lanes: Lanes, outputs: Outputs, b: int) -> None:
    """Recompute what is seen in lane ``b`` after its units were set by hand."""
    measure_reward(world.rules[0], world.types, lanes.units[b], lanes.lanes[b])
    observe_lane(world.rules[0], world, lanes.units[b], lanes.last_action[b], lanes.lanes[b].t, outputs.avail[b],
                 outputs.obs[b], outputs.state[b], outputs.alive[b])  # fmt: skip


# --- a step ----------------------------------------------------------------------------------------------------------


@rule
def issue_orders(rules: Record, types: np.ndarray, units: np.ndarray, actions: np.ndarray) -> None:
    """Turn the agents' actions [n] into orders; what the game would refuse leaves the previous order standing."""
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
        elif action >= first and kind.heals:
            if can_be_healed(types, units, i, action - first):
                give_order(unit, kind, HEAL, action - first, unit.x, unit.y)
        elif action >= first:
            target = n + action - first
            if units[target].health > 0.0 and can_hit(kind, types[units[target].type]):
                give_order(unit, kind, ATTACK, target, unit.x, unit.y)


@rule
def count_fallen(units: np.ndarray, first: int, last: int) -> int:
    dead = 0
    for i in range(first, last):
        dead += units[i].health <= 0.0
    return dead


@rule
def beaten(rules: Record, types: np.ndarray, units: np.ndarray, first: int, last: int) -> bool:
    """Nobody is left or, where there are Medivacs, nobody but them."""
    for i in range(first, last):
        if units[i].health > 0.0 and not (rules.medivacs and types[units[i].type].heals):
            return False
    return True


@rule
def outcome(rules: Record, types: np.ndarray, units: np.ndarray) -> int:
    """RUNNING, WON, LOST or DRAWN."""
    n, N = rules.n_agents, rules.n_units
    allies_beaten = beaten(rules, types, units, 0, n)
    enemies_beaten = beaten(rules, types, units, n, N)
    if allies_beaten and (not enemies_beaten or rules.medivacs):
        return LOST
    if enemies_beaten:
        return DRAWN if allies_beaten else WON
    return RUNNING


@rule
def team_reward(rules: Record, units: np.ndarray, lane: Record, result: int) -> float:
    """The team's reward for a step, from ``unit.before`` and what is left now (SMAC's shaping, four modes)."""
    n = rules.n_agents
    if rules.reward_mode == WIN_LOSS:
        reward = 1.0 if result == WON else (-1.0 if result == LOST else 0.0)
    else:
        enemy_loss = ally_loss = deaths = 0.0
        for i in range(rules.n_units):
            unit = units[i]
            if unit.before <= 0.0:
                continue
            loss = unit.before - unit.health - unit.shield if unit.health > 0.0 else unit.before
            if i >= n:
                enemy_loss += loss
                deaths += DEATH_VALUE if unit.health <= 0.0 else 0.0
            else:
                ally_loss += NEGATIVE_SCALE * loss
                if rules.reward_mode != DENSE and unit.health <= 0.0:
                    deaths -= NEGATIVE_SCALE * DEATH_VALUE
        reward = deaths if rules.reward_mode == DEATH else enemy_loss + deaths
        if rules.reward_mode == DENSE:
            reward = abs(reward) if rules.abs_reward else max(reward, 0.0)
        elif rules.reward_mode != DEATH:
            reward -= ally_loss
        if result == WON:
            reward += WIN_VALUE
    if rules.reward_scale > 0.0:
        reward *= rules.reward_scale / lane.max_reward
    return reward


@rule
def play_step(
    rules: Record, types: np.ndarray, ground: Ground, units: np.ndarray, lane: Record, actions: np.ndarray
) -> None:
    """The eight loops of a step."""
    for i in range(rules.n_units):
        unit = units[i]
        unit.before = unit.health + unit.shield if unit.health > 0.0 else 0.0
    issue_orders(rules, types, units, actions)
    if rules.hunt == HUNT_ON:
        order_hunt(rules, types, units)
    for loop in range(LOOPS_PER_STEP):
        start = below(lane, rules.n_units)  # a fixed order would favour one side
        play_loop(rules, types, ground, units, lane, start, loop % CHOOSE_EVERY == 0)
    lane.t += 1


@rule
def rest(outputs: Outputs, b: int) -> None:
    """A finished lane: nothing happens any more."""
    outputs.reward[b] = 0.0
    outputs.terminated[b] = False
    outputs.truncated[b] = False
    outputs.won[b] = False
    outputs.alive[b] = False
    outputs.avail[b] = False
    outputs.avail[b, :, NOOP] = True


@rule
def step_lane(world: World, lanes: Lanes, outputs: Outputs, actions: np.ndarray, b: int) -> None:
    rules, lane, units = world.rules[0], lanes.lanes[b], lanes.units[b]
    if lane.finished:
        rest(outputs, b)
        return
    ground = Ground(world.walkable, world.routes)
    play_step(rules, world.types, ground, units, lane, actions[b])
    for i in range(rules.n_agents):
        lanes.last_action[b, i] = actions[b, i]
    result = outcome(rules, world.types, units)
    timeout = result == RUNNING and lane.t >= rules.episode_limit
    outputs.reward[b] = team_reward(rules, units, lane, result)
    outputs.terminated[b] = result != RUNNING or (timeout and rules.timeout_is_terminal != 0)
    outputs.truncated[b] = timeout and rules.timeout_is_terminal == 0
    outputs.won[b] = result == WON
    outputs.dead_allies[b] = count_fallen(units, 0, rules.n_agents)
    outputs.dead_enemies[b] = count_fallen(units, rules.n_agents, rules.n_units)
    lane.finished = result != RUNNING or timeout
    observe_lane(rules, world, units, lanes.last_action[b], lane.t, outputs.avail[b], outputs.obs[b],
                 outputs.state[b], outputs.alive[b])  # fmt: skip


@njit(parallel=True, cache=True)
def step_lanes(world: World, lanes: Lanes, outputs: Outputs, actions: np.ndarray) -> None:
    """Advance every lane by the joint ``actions`` int64 [B, n], which must be available."""
    for b in prange(actions.shape[0]):
        step_lane(world, lanes, outputs, actions, b)


@njit(cache=True)
def find_unavailable(lanes: np.ndarray, avail: np.ndarray, actions: np.ndarray) -> int:
    """Lane of the first unavailable action in a running lane, -1 if there is none. Changes nothing."""
    B, n, A = avail.shape
    for b in range(B):
        if not lanes[b].finished:
            for i in range(n):
                action = actions[b, i]
                if action < 0 or action >= A or not avail[b, i, action]:
                    return b
    return -1


@njit(cache=True)
def random_actions(avail: np.ndarray, counter: np.ndarray, actions: np.ndarray) -> None:
    """Fill ``actions`` int64 [B, n] uniformly from the available ones; ``counter`` uint64 [1] is the random state."""
    B, n, A = avail.shape
    for b in range(B):
        for i in range(n):
            options = 0
            for a in range(A):
                options += avail[b, i, a]
            counter[0] += 1
            pick = math.floor(mix(counter[0]) * 5.421010862427522e-20 * options)
            for a in range(A):
                if avail[b, i, a]:
                    if pick == 0:
                        actions[b, i] = a
                        break
                    pick -= 1


forget_stale(reset_lanes)
