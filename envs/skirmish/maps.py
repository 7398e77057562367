"""Maps as objects: who fights where and for how long, and on which cells one can walk.

The facts are in ``map_table.py``; this module looks them up, lays out the spawn lattice and ranks the agents.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from envs.skirmish.map_table import MAPS, TYPE_ORDER
from envs.skirmish.units import FLIES, TYPE_ID, UNIT_TYPES
from marl.types import ConfigError

Point = tuple[float, float]
Group = tuple[str, int, Point]  # unit type, count, the point at which the game creates them


@dataclass(frozen=True)
class Map:
    """One scenario; agents are ranked by (type, x, y), enemies keep the order in which the game creates them."""

    name: str
    allies: tuple[Group, ...]
    enemies: tuple[Group, ...]
    episode_limit: int
    map_type: str
    terrain: str
    attack_move: tuple[Point, ...]  # the enemy's order: () none, one point, or the ends of a segment to draw from
    hunt: bool  # enemies are ordered to attack the allied units themselves

    @property
    def n_agents(self) -> int:
        return sum(count for _, count, _ in self.allies)

    @property
    def n_enemies(self) -> int:
        return sum(count for _, count, _ in self.enemies)

    @property
    def ally_race(self) -> str:
        return UNIT_TYPES[TYPE_ID[self.allies[0][0]]].race

    @property
    def enemy_race(self) -> str:
        return UNIT_TYPES[TYPE_ID[self.enemies[0][0]]].race

    @property
    def type_order(self) -> tuple[str, ...]:
        """Unit types in the order of the allied one-hot code; empty where a team has one type."""
        return TYPE_ORDER[self.map_type]


def find_map(name: str) -> Map:
    """The map called ``name``; ConfigError with the nearest names if there is none."""
    if name not in MAPS:
        lower = {known.lower(): known for known in MAPS}
        near = [lower[match] for match in difflib.get_close_matches(str(name).lower(), list(lower), n=4, cutoff=0.4)]
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(sorted(MAPS))}"
        raise ConfigError(f"map '{name}' is unknown; {hint} The list is MAPS in envs/skirmish/map_table.py")
    entry = MAPS[name]
    return Map(
        name, tuple(entry["allies"]), tuple(entry["enemies"]), entry["limit"], entry["map_type"], entry["terrain"],
        tuple(entry["attack_move"]), entry.get("hunt", False),
    )  # fmt: skip


def spawn_lattice(groups: tuple[Group, ...]) -> list[tuple[int, float, float]]:
    """(type id, x, y) per unit in order of creation.

    The game fills a square lattice around the point, pitch = the unit's diameter, by increasing distance, ties
    clockwise from north-east. A later group skips cells that overlap units already there (flyers overlap nobody on
    the ground).
    """
    placed: list[tuple[int, float, float]] = []
    for name, count, (centre_x, centre_y) in groups:
        kind = UNIT_TYPES[TYPE_ID[name]]
        cells = iter(_cells_by_distance(reach=12))
        for _ in range(count):
            while True:
                column, row = next(cells)
                x, y = centre_x + column * 2 * kind.radius, centre_y + row * 2 * kind.radius
                if not _overlaps(x, y, name, placed):
                    break
            placed.append((TYPE_ID[name], x, y))
    return placed


def _cells_by_distance(reach: int) -> list[tuple[int, int]]:
    def order(cell: tuple[int, int]) -> tuple[int, float]:
        column, row = cell
        clockwise = (math.pi / 4 - math.atan2(row, column)) % (2 * math.pi) if cell != (0, 0) else 0.0
        return column**2 + row**2, round(clockwise, 9)

    span = range(-reach, reach + 1)
    return sorted(((column, row) for column in span for row in span), key=order)


def _overlaps(x: float, y: float, name: str, placed: list[tuple[int, float, float]]) -> bool:
    kind = UNIT_TYPES[TYPE_ID[name]]
    for other_id, other_x, other_y in placed:
        other = UNIT_TYPES[other_id]
        same_layer = (kind.plane == FLIES) == (other.plane == FLIES)
        if same_layer and math.hypot(x - other_x, y - other_y) < kind.radius + other.radius - 1e-6:
            return True
    return False


def line_up(scenario: Map) -> tuple[list[tuple[int, float, float]], list[tuple[int, float, float]]]:
    """(type id, x, y) of the agents in agent order, and of the enemies in enemy order."""
    allies, enemies = spawn_lattice(scenario.allies), spawn_lattice(scenario.enemies)
    rank = {TYPE_ID[name]: index for index, name in enumerate(scenario.type_order)}
    allies.sort(key=lambda unit: (rank.get(unit[0], 0), round(unit[1], 6), unit[2]))
    return allies, enemies
