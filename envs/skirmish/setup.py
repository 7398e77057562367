"""Build from a map and the options the records that the kernels read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from envs.skirmish.maps import Map
from envs.skirmish.options import REVERSED, Options
from envs.skirmish.paths import NO_ROUTES, routes_on
from envs.skirmish.records import (
    HUNT_ON,
    HUNT_ONCE,
    LANE,
    NO_HUNT,
    REWARD_MODES,
    RULES,
    STOP,
    TEAM,
    UNIT,
    Lanes,
    World,
)
from envs.skirmish.spawn import line_up
from envs.skirmish.terrain import ground_height, walkable_cells
from envs.skirmish.units import BURST, TYPE_ID, UNIT_TYPES, type_table

FLAWLESS_RETURN = 20.0  # with reward_scale, the return of a win in which nothing regenerates
MOVES_AND_STOP = 6  # no-op, stop and four directions
HUNTS = {"off": NO_HUNT, "once": HUNT_ONCE, "on": HUNT_ON}
LATTICE_REACH = 12


def build_world(scenario: Map, options: Options) -> World:
    """Return what does not change during a run on a map under ``options``."""
    rules, types = battle_rules(scenario, options), map_types(scenario, options)
    ground = options.terrain or scenario.terrain
    cells, routes, lattice = walkable_cells(ground), routes_on(ground), spawn_lattice()
    rules[0]["routed"] = routes is not NO_ROUTES
    template = line_up_template(scenario, types, cells, lattice)
    if not scenario.team:  # the types of random teams are drawn in every episode
        template["type"][scenario.n_agents :] += rules[0]["enemy_types"]
    return World(
        rules, types, cells, routes, ground_height(ground), template, random_team(scenario), lattice,
        enemy_listing(options.enemy_order, scenario.n_enemies),
    )  # fmt: skip


def enemy_listing(order: str | int | Sequence[int], enemies: int) -> np.ndarray:
    """Return int32 [enemies]: the enemies, by order of creation, in the ``order`` in which agents see and target them.

    An integer is the seed of a permutation, the same in all episodes, lanes and versions of numpy; a sequence is the
    permutation itself.
    """
    if isinstance(order, str):
        created = np.arange(enemies, dtype=np.int32)
        return created[::-1].copy() if order == REVERSED else created
    if isinstance(order, int):
        return np.random.RandomState(order).permutation(enemies).astype(np.int32)
    return np.array(order, np.int32)


def allocate_lanes(n_envs: int, n: int, enemies: int) -> Lanes:
    """Return ``n_envs`` lanes with room for ``n`` agents and ``enemies`` enemies; they must be reset first."""
    return Lanes(
        units=np.zeros((n_envs, n + enemies), UNIT),
        lanes=np.zeros(n_envs, LANE),
        last_action=np.full((n_envs, n), -1, np.int32),
        owner=np.full((n_envs, enemies), -1, np.int32),
        seen=np.zeros((n_envs, enemies, n), np.uint8),
        visit=np.zeros((n_envs, n), np.int32),
        hidden=np.zeros((n_envs, enemies, n), np.uint8),
    )


def battle_rules(scenario: Map, options: Options) -> np.ndarray:
    """Return RULES [1] of a map under ``options``; ``routed`` is left for ``build_world`` to set."""
    rules = _map_rules(scenario, options.num_fov_actions if options.conic_fov else 0)
    values = {
        "reward_mode": REWARD_MODES[options.reward],
        "reward_scale": FLAWLESS_RETURN if options.reward_scale else 0.0,
        "obs_timestep": options.obs_timestep_number,
        "state_timestep": options.state_timestep_number,
        "obs_as_state": options.obs_instead_of_state,
        "epo": options.prob_obs_enemy < 1.0 or options.compat_epo_wipe,
        "attack_probabilities": options.attack_probability is not None,
        "health_levels": options.health_level is not None,
        "enemy_mask": options.enemy_mask or 0.0,
        "enemy_types": own_enemy_types(options),
    }
    for name in RULES.names or ():
        if name in values:
            rules[0][name] = values[name]
        elif hasattr(options, name):
            rules[0][name] = getattr(options, name)
    # ``read_options`` has turned both into pairs
    attack, level = (cast("tuple[float, float] | None", s) for s in (options.attack_probability, options.health_level))
    rules[0]["attack_low"], rules[0]["attack_high"] = attack or (1.0, 1.0)
    rules[0]["level_low"], rules[0]["level_high"] = level or (0.0, 0.0)
    return rules


def _map_rules(scenario: Map, looks: int) -> np.ndarray:
    """Return RULES [1] of a map with ``looks`` directions to look in (0: no field of view) and all options off."""
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


def map_types(scenario: Map, options: Options) -> np.ndarray:
    """Return the unit types with the one-hot positions of a map; SMAC v1 reverses the enemy's on
    stalkers_and_zealots. If the enemy's health is scaled, its types follow in rows of their own
    (``own_enemy_types``)."""
    order = scenario.type_order
    swapped = options.enemy_type_swap and scenario.map_type == "stalkers_and_zealots"
    table = type_table(order, order[::-1] if swapped else order, bool(options.unit_ranges))
    table["sight"] *= options.ally_sight
    table["stock_speed"] *= options.enemy_speed
    table["scan"] = np.maximum(table["scan"] * options.enemy_sight, table["range"])
    if not own_enemy_types(options):
        return table
    theirs = table.copy()
    theirs["health"] *= options.enemy_health
    return np.concatenate([table, theirs])


def own_enemy_types(options: Options) -> int:
    """Return the offset from an agent's type to the enemy's same type in the unit table; 0: they share a row."""
    return len(UNIT_TYPES) if options.enemy_health != 1.0 else 0


def random_team(scenario: Map) -> np.ndarray:
    """Return TEAM [types] with cumulative weights; empty where the teams are fixed."""
    team = np.zeros(len(scenario.team), TEAM)
    total = 0.0
    for row, (name, weight, excepted) in zip(team, scenario.team, strict=True):
        total += weight
        row["up_to"], row["type"], row["excepted"] = total, TYPE_ID[name], excepted
    return team


def spawn_lattice() -> np.ndarray:
    """Return int64 [places, 2]: offsets (column, row) around the point where units are created, in the order of use.

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
    """Return UNIT [N]: where everybody is when the battle begins, agents in agent order, then enemies.

    Random teams have no place and no type yet.
    """
    template = np.zeros(scenario.n_agents + scenario.n_enemies, UNIT)
    template["order"], template["target"], template["struck"] = STOP, -1, -1
    template["facing_x"], template["heading_y"], template["turn"] = 1.0, -1.0, 1  # the game's default points south
    template["attack_probability"] = 1.0
    template["quiet"] = 10**6  # nobody was damaged before the battle
    template["scripted"][scenario.n_agents :] = 1
    if not scenario.team:
        created = [(TYPE_ID[name], at) for name, count, at in scenario.allies + scenario.enemies for _ in range(count)]
        for unit, (type_id, (x, y)) in zip(template, created, strict=True):
            unit["type"], unit["x"], unit["y"] = type_id, x, y
        line_up(types, walkable, lattice, template, scenario.n_agents)
    return template
