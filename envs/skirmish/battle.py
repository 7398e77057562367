"""The rules for one lane of the battle, how it is reset, stepped and rewarded, and the kernels built from them."""

from __future__ import annotations

import numpy as np

from envs.kernels.compiled import Record, rule
from envs.kernels.lanes import lane_kernels
from envs.kernels.rng import below, seed_lane
from envs.skirmish.combat import fall
from envs.skirmish.observe import NOOP, observe_lane
from envs.skirmish.orders import issue_orders, order_attack_move, order_hunt
from envs.skirmish.physics import play_loop
from envs.skirmish.records import DEATH, DENSE, HUNT_ON, WIN_LOSS, Ground, Lanes, Outputs, World
from envs.skirmish.sight import forget_sightings
from envs.skirmish.spawn import draw_hidden, spawn

LOOPS_PER_STEP = 8  # half a game second
LOOPS_AFTER_KILL = 2  # agents below their health level are killed this long before the end of a step
DEATH_VALUE, NEGATIVE_SCALE, WIN_VALUE = 10.0, 0.5, 200.0
RUNNING, WON, LOST, DRAWN = 0, 1, 2, 3


# --- the beginning ---------------------------------------------------------------------------------------------------


@rule
def measure_reward(rules: Record, types: np.ndarray, units: np.ndarray, lane: Record) -> None:
    """Set ``max_reward``, the most that can be earned from this enemy: its health and shields, its deaths, the win."""
    lane.max_reward = WIN_VALUE + DEATH_VALUE * rules.n_enemies
    for i in range(rules.n_agents, rules.n_units):
        lane.max_reward += types[units[i].type].health + types[units[i].type].shield


@rule
def reset_lane(world: World, lanes: Lanes, outputs: Outputs, seed: np.uint64, reseed: bool, b: int) -> None:
    rules, lane, units = world.rules[0], lanes.lanes[b], lanes.units[b]
    if reseed:
        seed_lane(lane, seed, b)
    spawn(rules, world, units, lane)
    if rules.enemy_mask > 0.0:
        draw_hidden(rules, lanes.hidden[b], lane)
    if rules.order_points > 0:
        order_attack_move(rules, units, lane)
    if rules.hunt:
        order_hunt(rules, world.types, units)
    measure_reward(rules, world.types, units, lane)
    lanes.last_action[b] = -1
    lanes.owner[b] = -1
    lanes.seen[b] = 0
    observe_lane(world, lanes, outputs, b)


@rule
def observe_placed(world: World, lanes: Lanes, outputs: Outputs, b: int) -> None:
    """Recompute what is seen in lane ``b`` after its units were set by hand."""
    measure_reward(world.rules[0], world.types, lanes.units[b], lanes.lanes[b])
    observe_lane(world, lanes, outputs, b)


# --- a step ----------------------------------------------------------------------------------------------------------


@rule
def count_fallen(units: np.ndarray, first: int, last: int) -> int:
    dead = 0
    for i in range(first, last):
        dead += units[i].health <= 0.0
    return dead


@rule
def beaten(rules: Record, types: np.ndarray, units: np.ndarray, first: int, last: int) -> bool:
    """Return whether nobody is left or, where there are Medivacs, nobody except them."""
    for i in range(first, last):
        if units[i].health > 0.0 and not (rules.medivacs and types[units[i].type].heals):
            return False
    return True


@rule
def outcome(rules: Record, types: np.ndarray, units: np.ndarray) -> int:
    """Return RUNNING, WON, LOST or DRAWN."""
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
    """Return the team's reward for a step, from ``unit.before`` and what is left now (SMAC's shaping, four modes)."""
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
def below_level(rules: Record, types: np.ndarray, units: np.ndarray) -> int:
    """Return the agents below their health level, as a bit mask."""
    found = 0
    for i in range(rules.n_agents):
        if units[i].health / types[units[i].type].health < units[i].health_level:
            found |= 1 << i
    return found


@rule
def kill_agents(rules: Record, types: np.ndarray, units: np.ndarray, doomed: int) -> None:
    for i in range(rules.n_agents):
        if (doomed >> i) & 1 and units[i].health > 0.0:
            fall(units[i], types[units[i].type])


@rule
def play_step(
    rules: Record,
    types: np.ndarray,
    ground: Ground,
    listed: np.ndarray,
    units: np.ndarray,
    lane: Record,
    actions: np.ndarray,
) -> None:
    """Play the eight loops of a step."""
    for i in range(rules.n_units):
        unit = units[i]
        unit.before = unit.health + unit.shield if unit.health > 0.0 else 0.0
    weak = below_level(rules, types, units) if rules.compat_health_check else 0
    issue_orders(rules, types, listed, units, lane, actions)
    if rules.hunt == HUNT_ON:
        order_hunt(rules, types, units)
    for loop in range(LOOPS_PER_STEP):
        if rules.health_levels and loop == LOOPS_PER_STEP - LOOPS_AFTER_KILL:
            doomed = weak if rules.compat_health_check else below_level(rules, types, units)
            kill_agents(rules, types, units, doomed)
        start = below(lane, rules.n_units)  # a fixed order would favour one side
        play_loop(rules, types, ground, units, lane, start, loop == 0)
    lane.t += 1


@rule
def rest(outputs: Outputs, b: int) -> None:
    """Write the outputs of a finished lane, in which nothing happens any more."""
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
    play_step(rules, world.types, ground, world.listed, units, lane, actions[b])
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
    if rules.epo:
        forget_sightings(rules, units, lanes.owner[b], lanes.seen[b])
    observe_lane(world, lanes, outputs, b)


KERNELS = lane_kernels(reset_lane, step_lane, observe_placed, parallel_reset=True)
