"""The maps as data: who fights, where they start, what the enemy is ordered to do, on which ground.

Facts of the map archives (spawn groups, orders), of the packages' map registries (limits, types) and of SMACv2's
scenario files (random teams).
"""

from __future__ import annotations

WEST, EAST = (9.0, 16.0), (23.0, 16.0)  # where both sides start on most maps

# map type -> unit types in the order of the allied one-hot code.
TYPE_ORDER: dict[str, tuple[str, ...]] = {
    "marines": (),
    "stalkers": (),
    "zealots": (),
    "hydralisks": (),
    "colossus": (),
    "stalkers_and_zealots": ("stalker", "zealot"),
    "colossi_stalkers_zealots": ("colossus", "stalker", "zealot"),
    "MMM": ("marauder", "marine", "medivac"),
    "bane": ("baneling", "zergling"),
    "protoss_gen": ("stalker", "zealot", "colossus"),
    "terran_gen": ("marine", "marauder", "medivac"),
    "zerg_gen": ("zergling", "hydralisk", "baneling"),
}

# What the published configurations of SMAC (1) and SMACv2 (2) set differently; null in a configuration means these.
PUBLISHED: dict[int, dict[str, bool]] = {
    1: {"abs_reward": True, "unit_ranges": False, "obs_own_pos": False},
    2: {"abs_reward": False, "unit_ranges": True, "obs_own_pos": True},
}

# SMACv2: race -> (type, weight, excepted) in the order of the draw; a team never consists of the excepted type alone.
TEAMS: dict[str, list[tuple[str, float, bool]]] = {
    "protoss": [("stalker", 0.45, False), ("zealot", 0.45, False), ("colossus", 0.1, False)],
    "terran": [("marine", 0.45, False), ("marauder", 0.45, False), ("medivac", 0.1, True)],
    "zerg": [("zergling", 0.45, False), ("baneling", 0.1, True), ("hydralisk", 0.45, False)],
}
TEAM_SIZES = ((5, 5), (10, 10), (10, 11), (20, 20), (20, 23))

# name: (allies, enemies, episode limit, map type); groups are written "COUNT TYPE"
_STANDARD = {
    "3m": ("3 marine", "3 marine", 60, "marines"),
    "8m": ("8 marine", "8 marine", 120, "marines"),
    "25m": ("25 marine", "25 marine", 150, "marines"),
    "5m_vs_6m": ("5 marine", "6 marine", 70, "marines"),
    "8m_vs_9m": ("8 marine", "9 marine", 120, "marines"),
    "10m_vs_11m": ("10 marine", "11 marine", 150, "marines"),
    "27m_vs_30m": ("27 marine", "30 marine", 180, "marines"),
    "MMM": ("7 marine, 2 marauder, 1 medivac", "7 marine, 2 marauder, 1 medivac", 150, "MMM"),
    "MMM2": ("7 marine, 2 marauder, 1 medivac", "8 marine, 3 marauder, 1 medivac", 180, "MMM"),
    "2s3z": ("2 stalker, 3 zealot", "2 stalker, 3 zealot", 120, "stalkers_and_zealots"),
    "3s5z": ("3 stalker, 5 zealot", "3 stalker, 5 zealot", 150, "stalkers_and_zealots"),
    "3s5z_vs_3s6z": ("3 stalker, 5 zealot", "3 stalker, 6 zealot", 170, "stalkers_and_zealots"),
    "3s_vs_3z": ("3 stalker", "3 zealot", 150, "stalkers"),
    "3s_vs_4z": ("3 stalker", "4 zealot", 200, "stalkers"),
    "3s_vs_5z": ("3 stalker", "5 zealot", 250, "stalkers"),
    "1c3s5z": ("1 colossus, 3 stalker, 5 zealot", "1 colossus, 3 stalker, 5 zealot", 180, "colossi_stalkers_zealots"),
}


def _groups(text: str, point: tuple[float, float]) -> list[tuple[str, int, tuple[float, float]]]:
    return [(name, int(count), point) for count, name in (part.split() for part in text.split(", "))]


MAPS: dict[str, dict] = {
    name: {
        "allies": _groups(allies, WEST),
        "enemies": _groups(enemies, EAST),
        "limit": limit,
        "map_type": map_type,
        "terrain": "flat" if map_type == "stalkers" else "bar",
        "attack_move": [WEST],
    }
    for name, (allies, enemies, limit, map_type) in _STANDARD.items()
}
MAPS |= {
    "2m_vs_1z": {
        "allies": [("marine", 1, (13.0, 12.0)), ("marine", 1, (19.0, 12.0))],
        "enemies": [("zealot", 1, (16.0, 19.0))],
        "limit": 150, "map_type": "marines", "terrain": "octagon",
        "attack_move": [(13.0, 12.0), (19.0, 12.0)],  # a random point on the segment between these
    },
    "corridor": {
        "allies": [("zealot", 6, (19.0397, 19.1198))],
        "enemies": [("zergling", 24, (27.91, 28.24))],
        "limit": 400, "map_type": "zealots", "terrain": "corridor", "attack_move": [(4.47, 4.3298)],
    },
    "6h_vs_8z": {
        "allies": [("hydralisk", 6, (14.5998, 9.49))],
        "enemies": [("zealot", 8, (14.41, 16.7597))],
        "limit": 150, "map_type": "hydralisks", "terrain": "arena6h", "attack_move": [(14.5998, 9.49)],
    },
    "2s_vs_1sc": {
        "allies": [("stalker", 1, (11.1208, 10.338)), ("stalker", 1, (16.976, 10.3662))],
        "enemies": [("spine_crawler", 1, (13.92, 20.0397))],
        "limit": 300, "map_type": "stalkers", "terrain": "pentagon", "attack_move": [],
    },
    "so_many_baneling": {
        "allies": [("zealot", 7, (11.469, 12.0234))],
        "enemies": [("baneling", 32, (27.91, 28.24))],
        "limit": 100, "map_type": "zealots", "terrain": "ramp", "attack_move": [(4.47, 4.3298)],
    },
    "bane_vs_bane": {
        "allies": [("zergling", 20, (16.0, 11.0)), ("baneling", 4, (16.0, 8.0))],
        "enemies": [("zergling", 20, (16.0, 21.0)), ("baneling", 4, (16.0, 24.0))],
        "limit": 200, "map_type": "bane", "terrain": "octagon", "attack_move": [(16.0, 8.0)],
    },
    "2c_vs_64zg": {
        "allies": [("colossus", 1, (16.0, 16.0)), ("colossus", 1, (16.0, 16.0))],
        "enemies": [("zergling", 64, (16.0, 9.0))],
        "limit": 400, "map_type": "colossus", "terrain": "ravine",
        "attack_move": [],  # ordered to attack the allied units themselves, wherever they are
        "hunt": "once",
    },
}  # fmt: skip
MAPS |= {
    f"{race}_{allies}_vs_{enemies}": {
        "allies": [], "enemies": [], "team": team, "race": race, "sizes": (allies, enemies), "version": 2,
        "limit": 200, "map_type": f"{race}_gen", "terrain": "flat", "attack_move": [], "hunt": "on",
    }
    for race, team in TEAMS.items()
    for allies, enemies in TEAM_SIZES
}  # fmt: skip
