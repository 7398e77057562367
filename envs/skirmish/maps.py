"""Maps as objects: who fights where and for how long, or what random teams are drawn from.

The facts are in ``map_table.py``; this module looks them up.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from envs.skirmish.map_table import MAPS, PUBLISHED, TYPE_ORDER
from envs.skirmish.units import TYPE_ID, UNIT_TYPES
from marl.core.types import ConfigError

Point = tuple[float, float]
Group = tuple[str, int, Point]  # unit type, count, the point at which the game creates them


@dataclass(frozen=True)
class Map:
    """One scenario; agents are ranked by (type, x, y), enemies keep the order in which the game creates them."""

    name: str
    version: int  # 1: SMAC, 2: SMACv2
    n_agents: int
    n_enemies: int
    ally_race: str
    enemy_race: str
    allies: tuple[Group, ...]  # no groups where teams are random
    enemies: tuple[Group, ...]
    team: tuple[tuple[str, float, bool], ...]  # random teams: type, weight, whether a team of only it is excepted
    episode_limit: int
    map_type: str
    terrain: str
    attack_move: tuple[Point, ...]  # the enemy's order: () none, one point, or the ends of a segment to draw from
    hunt: Literal["off", "once", "on"]  # the enemy is ordered to attack the nearest agent: at the start, or when idle

    @property
    def type_order(self) -> tuple[str, ...]:
        """Return the unit types in the order of the allied one-hot code; empty where a team has one type."""
        return TYPE_ORDER[self.map_type]

    @property
    def type_names(self) -> set[str]:
        """Return the unit types that can be on the map."""
        return {name for name, *_ in (*self.allies, *self.enemies, *self.team)}

    def published(self, option: str) -> bool:
        """Return what the published configuration of this map sets for ``option``."""
        return PUBLISHED[self.version][option]


def _race(groups: list[Group]) -> str:
    return UNIT_TYPES[TYPE_ID[groups[0][0]]].race


def find_map(name: str) -> Map:
    """Return the map called ``name``; raise ConfigError with the nearest names if there is none."""
    if name not in MAPS:
        lower = {known.lower(): known for known in MAPS}
        near = [lower[match] for match in difflib.get_close_matches(str(name).lower(), list(lower), n=4, cutoff=0.4)]
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(sorted(MAPS))}"
        raise ConfigError(f"map '{name}' is unknown; {hint} The list is MAPS in envs/skirmish/map_table.py")
    entry = MAPS[name]
    allies, enemies, team = entry["allies"], entry["enemies"], entry.get("team", ())
    return Map(
        name=name,
        version=entry.get("version", 1),
        n_agents=entry["sizes"][0] if team else sum(count for _, count, _ in allies),
        n_enemies=entry["sizes"][1] if team else sum(count for _, count, _ in enemies),
        ally_race=entry["race"] if team else _race(allies),
        enemy_race=entry["race"] if team else _race(enemies),
        allies=tuple(allies),
        enemies=tuple(enemies),
        team=tuple(team),
        episode_limit=entry["limit"],
        map_type=entry["map_type"],
        terrain=entry["terrain"],
        attack_move=tuple(entry["attack_move"]),
        hunt=entry.get("hunt", "off"),
    )
