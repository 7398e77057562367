"""From a map and the options to the records that the kernels read."""

from __future__ import annotations

import math

import numpy as np

from envs.skirmish.maps import Map
from envs.skirmish.records import HUNT_ON, HUNT_ONCE, NO_HUNT, REWARD_MODES, RULES, STOP, TEAM, UNIT
from envs.skirmish.spawn import line_up
from envs.skirmish.units import BURST, TYPE_ID, UNIT_TYPES, type_table
from marl.types import ConfigError

MOVES_AND_STOP = 6  # no-op, stop and four directions
HUNTS = {"off": NO_HUNT, "once": HUNT_ONCE, "on": HUNT_ON}
LATTICE_REACH = 12


def check_options(
    scenario: Map,
    *,
    n_envs: int,
    reward: str,
    ally_health: float,
    spawn_jitter: float,
    absent_agents: int,
    prob_obs_enemy: float,
    surrounded: float,
    num_fov_actions: int,
) -> None:
    """ConfigError for values that make no battle."""
    if n_envs < 1:
        raise ConfigError(f"n_envs must be at least 1, got {n_envs}")
    if reward not in REWARD_MODES:
        raise ConfigError(f"reward '{reward}' is unknown; choose one of {', '.join(REWARD_MODES)}")
    if not 0.0 < ally_health <= 1.0:
        raise ConfigError(f"ally_health must lie in (0, 1], got {ally_health}")
    if not (math.isfinite(spawn_jitter) and 0.0 <= spawn_jitter <= 1.0):
        raise ConfigError(f"spawn_jitter must lie in [0, 1] map units, got {spawn_jitter}")
    if not 0 <= absent_agents < scenario.n_agents:
        raise ConfigError(f"absent_agents must lie in 0 .. {scenario.n_agents - 1} on this map, got {absent_agents}")
    for name, share in (("prob_obs_enemy", prob_obs_enemy), ("surrounded", surrounded)):
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"{name} must lie in [0, 1], got {share}")
    if num_fov_actions < 2:
        raise ConfigError(f"num_fov_actions must be at least 2, got {num_fov_actions}")


def base_rules(scenario: Map, looks: int) -> np.ndarray:
    """RULES [1] of a map with ``looks`` directions to look in (0: no field of view), with all options off."""
    rules = np.zeros(1, RULES)
    medivacs = scenario.map_type in ("MMM", "terran_gen")
    n, enemies = scenario.n_agents, scenario.n_enemies
    points = scenario.attack_move
    first, last = (points[0], points[-1]) if points else ((0.0, 0.0), (0.0, 0.0))
    values = {
        "n_agents": n,
        "n_enemies": enemies,
        "n_units": n + enemies,
        "first_target": MOVES_AND_STOP + looks,
        "n_actions": MOVES_AND_STOP + looks + (max(n, enemies) if medivacs else enemies),  # Medivacs target friends
        "conic": looks > 0,
        "cone": math.pi / looks if looks else 0.0,
        "episode_limit": scenario.episode_limit,
        "type_bits": len(scenario.type_order),
        "shield_ally": scenario.ally_race == "protoss",
        "shield_enemy": scenario.enemy_race == "protoss",
        "medivacs": medivacs,
        "hunt": HUNTS[scenario.hunt],
        "bursts": any(UNIT_TYPES[TYPE_ID[name]].splash == BURST for name in scenario.type_names),
        "order_points": len(points),
        "order_ax": first[0],
        "order_ay": first[1],
        "order_bx": last[0],
        "order_by": last[1],
    }
    for name, value in values.items():
        rules[0][name] = value
    return rules


def map_types(scenario: Map, enemy_type_swap: bool, unit_ranges: bool) -> np.ndarray:
    """The unit types with the one-hot positions of a map; SMAC v1 reverses the enemy's on stalkers_and_zealots."""
    order = scenario.type_order
    swapped = enemy_type_swap and scenario.map_type == "stalkers_and_zealots"
    return type_table(order, order[::-1] if swapped else order, unit_ranges)


def random_team(scenario: Map) -> np.ndarray:
    """TEAM [types] with cumulative weights; empty where the teams are fixed."""
    team = np.zeros(len(scenario.team), TEAM)
    total = 0.0
    for row, (name, weight, excepted) in zip(team, scenario.team, strict=True):
        total += weight
        row["up_to"], row["type"], row["excepted"] = total, TYPE_ID[name], excepted
    return team


def spawn_lattice() -> np.ndarray:
    """Int64 [places, 2], columns and rows around the point where units are created, in the order of their taking.

    The game fills a square lattice, pitch = the unit's diameter, by increasing distance, ties clockwise from
    north-east. A unit skips places that overlap units already there (flyers overlap nobody on the ground).
    """

    def order(place: tuple[int, int]) -> tuple[int, float]:
        column, row = place
        clockwise = (math.pi / 4 - math.atan2(row, column)) % (2 * math.pi) if place != (0, 0) else 0.0
        return column**2 + row**2, round(clockwise, 9)

    span = range(-LATTICE_REACH, LATTICE_REACH + 1)
    return np.array(sorted(((column, row) for column in span for row in span), key=order))


def line_up_template(scenario: Map, types: np.ndarray, walkable: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """UNIT [N]: where everybody is when the battle begins, agents in agent order, then enemies.

    Random teams have no place and no type yet.
    """
    template = np.zeros(scenario.n_agents + scenario.n_enemies, UNIT)
    template["order"], template["target"], template["struck"] = STOP, -1, -1
    template["facing_x"], template["turn"] = 1.0, 1
    template["quiet"] = 10**6  # nobody was damaged before the battle
    template["scripted"][scenario.n_agents :] = 1
    if not scenario.team:
        created = [(TYPE_ID[name], at) for name, count, at in scenario.allies + scenario.enemies for _ in range(count)]
        for unit, (type_id, (x, y)) in zip(template, created, strict=True):
            unit["type"], unit["x"], unit["y"] = type_id, x, y
        line_up(types, walkable, lattice, template, scenario.n_agents)
    return template
