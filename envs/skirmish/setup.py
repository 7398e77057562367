"""From a map and the options to the records that the kernels read."""

from __future__ import annotations

import math

import numpy as np

from envs.skirmish.maps import Map, line_up
from envs.skirmish.records import HUNT_ONCE, NO_HUNT, REWARD_MODES, RULES, STOP, UNIT
from envs.skirmish.units import BURST, TYPE_ID, UNIT_TYPES, type_table
from marl.types import ConfigError

START_ENERGY = 50.0
MOVES_AND_STOP = 6  # no-op, stop and four directions


def check_options(n_envs: int, reward: str, ally_health: float, spawn_jitter: float) -> None:
    """ConfigError for values that make no battle."""
    if n_envs < 1:
        raise ConfigError(f"n_envs must be at least 1, got {n_envs}")
    if reward not in REWARD_MODES:
        raise ConfigError(f"reward '{reward}' is unknown; choose one of {', '.join(REWARD_MODES)}")
    if not 0.0 < ally_health <= 1.0:
        raise ConfigError(f"ally_health must lie in (0, 1], got {ally_health}")
    if not (math.isfinite(spawn_jitter) and 0.0 <= spawn_jitter <= 1.0):
        raise ConfigError(f"spawn_jitter must lie in [0, 1] map units, got {spawn_jitter}")


def base_rules(scenario: Map) -> np.ndarray:
    """RULES [1] of a map, with all options off."""
    rules = np.zeros(1, RULES)
    medivacs = scenario.map_type == "MMM"
    n, enemies = scenario.n_agents, scenario.n_enemies
    points = scenario.attack_move
    first, last = (points[0], points[-1]) if points else ((0.0, 0.0), (0.0, 0.0))
    values = {
        "n_agents": n,
        "n_enemies": enemies,
        "n_units": n + enemies,
        "first_target": MOVES_AND_STOP,
        "n_actions": MOVES_AND_STOP + (max(n, enemies) if medivacs else enemies),  # Medivacs target friends
        "episode_limit": scenario.episode_limit,
        "type_bits": len(scenario.type_order),
        "shield_ally": scenario.ally_race == "protoss",
        "shield_enemy": scenario.enemy_race == "protoss",
        "medivacs": medivacs,
        "hunt": HUNT_ONCE if scenario.hunt else NO_HUNT,
        "bursts": any(UNIT_TYPES[TYPE_ID[name]].splash == BURST for name, _, _ in scenario.allies + scenario.enemies),
        "order_points": len(points),
        "order_ax": first[0],
        "order_ay": first[1],
        "order_bx": last[0],
        "order_by": last[1],
    }
    for name, value in values.items():
        rules[0][name] = value
    return rules


def map_types(scenario: Map, enemy_type_swap: bool) -> np.ndarray:
    """The unit types with the one-hot positions of a map; SMAC v1 reverses the enemy's on stalkers_and_zealots."""
    order = scenario.type_order
    swapped = enemy_type_swap and scenario.map_type == "stalkers_and_zealots"
    return type_table(order, order[::-1] if swapped else order, unit_ranges=False)


def line_up_template(scenario: Map) -> np.ndarray:
    """UNIT [N]: everybody where and as the battle begins, agents in agent order, then enemies."""
    allies, enemies = line_up(scenario)
    template = np.zeros(len(allies) + len(enemies), UNIT)
    for unit, (type_id, x, y) in zip(template, allies + enemies, strict=True):
        kind = UNIT_TYPES[type_id]
        unit["type"], unit["x"], unit["y"] = type_id, x, y
        unit["health"], unit["shield"] = kind.health, kind.shield
        unit["energy"] = START_ENERGY if kind.heals else 0.0
        unit["goal_x"], unit["goal_y"] = x, y
    template["order"], template["target"], template["struck"] = STOP, -1, -1
    template["facing_x"], template["turn"] = 1.0, 1
    template["quiet"] = 10**6  # nobody was damaged before the battle
    template["scripted"][len(allies) :] = 1
    return template
