"""The ground of the maps as data: where units can walk, and how high the ground lies. y points up.

Walkable cells and cliff levels come from the map archives; docs/skirmish.md names what was read and what was derived.
"""

from __future__ import annotations

import numpy as np

from marl.core.types import ConfigError

SIZE = 32  # every map is 32 x 32 cells

# Walkable cells: "y: x-x x-x" or "y..y: x-x", separated by ";". Cells that are not listed are blocked.
TERRAIN: dict[str, str] = {
    "flat": "0..31: 0-31",
    "bar": "8..23: 0-31",
    "octagon": "5: 10-21; 6: 9-22; 7: 8-23; 8: 7-24; 9: 6-25; 10..21: 5-26; 22: 6-25; 23: 7-24; 24: 8-23; "
    "25: 9-22; 26: 10-21",
    "pentagon": "7: 8-19; 8..19: 7-20; 20: 8-19; 21: 9-18; 22: 10-17; 23: 11-16; 24: 12-15",
    "arena6h": "7: 10-19; 8: 9-20; 9: 8-21; 10..17: 7-22; 18: 8-21; 19: 9-20; 20: 10-19",
    "corridor": "2: 2-12; 3..10: 2-11; 11: 2-12; 12: 11-13; 13: 12-14; 14: 13-25; 15: 14-26; 16: 14-27; 17: 13-28; "
    "18..21: 12-29; 22: 13-29; 23: 14-29; 24: 15-29; 25: 16-29; 26: 17-29; 27: 18-29; 28: 19-29; 29: 20-29",
    "corridor_wide": "1: 2-13; 2: 1-13; 3..10: 1-12; 11: 1-13; 12: 2-14; 13: 11-25; 14: 12-26; 15: 13-27; 16: 13-28; "
    "17: 12-29; 18..21: 11-30; 22: 12-30; 23: 13-30; 24: 14-30; 25: 15-30; 26: 16-30; 27: 17-30; 28: 18-30; "
    "29: 19-30; 30: 20-29",
    "ramp": "2: 2-7; 3: 2-8; 4..6: 2-11; 7: 2-12; 8: 3-15; 9..10: 4-15; 11: 4-16; 12: 7-19; 13..15: 8-19; 16: 9-19; "
    "17: 10-20; 18: 13-25; 19..20: 14-25; 21: 14-26; 22: 15-29; 23: 16-29; 24: 19-29; 25..27: 20-29; 28: 21-29; "
    "29: 22-29",
    "ravine": "6: 3-28; 7: 2-29; 8: 1-30; 9..11: 0-31; 12: 0-3 28-31; 13..16: 0-31; 17: 1-30; 18: 2-29; 19: 3-28",
}

# Cliff levels in the same notation: cells of level 1 and above, of level 2, ramps between them. The rest is level 0.
# A map that is not listed is level 1 wherever units can walk.
LEVEL_1: dict[str, str] = {
    "bar": "7..24: 0-31",
    "octagon": "5: 9-22; 6: 8-23; 7: 7-24; 8: 6-25; 9..22: 5-26; 23: 6-25; 24: 7-24; 25: 8-23; 26: 9-22",
    "pentagon": "7..20: 7-20; 21: 8-19; 22: 9-18; 23: 10-17; 24: 11-16",
    "arena6h": "7: 9-20; 8: 8-21; 9..18: 7-22; 19: 8-21; 20: 9-20",
    "corridor": "1..2: 1-14; 3: 1-13; 4..9: 1-12; 10: 1-13; 11: 1-14; 12: 1-15; 13: 10-26; 14: 11-27; 15: 12-28; "
    "16: 12-29; 17..22: 11-30; 23: 12-30; 24: 13-30; 25: 14-30; 26: 15-30; 27: 16-30; 28: 17-30; 29: 18-30; 30: 19-30",
    "ramp": "1: 1-8; 2: 1-9; 3..5: 1-12; 6: 1-13; 7..8: 1-16; 9: 2-16; 10: 3-17; 11..12: 3-20; 13: 6-20; 14..15: 7-20; "
    "16: 7-21; 17: 8-26; 18: 9-26; 19: 12-26; 20: 13-27; 21..22: 13-30; 23: 14-30; 24: 15-30; 25: 18-30; "
    "26..28: 19-30; 29: 20-30; 30: 21-30",
    "ravine": "5: 3-28; 6: 2-29; 7: 1-30; 8..17: 0-31; 18: 1-30; 19: 2-29; 20: 3-28",
}
LEVEL_2: dict[str, str] = {"ravine": "13..20: 7-24"}
RAMPS: dict[str, str] = {"ravine": "13..18: 4-6 25-27"}

LEVEL_0_HEIGHT, LEVEL_STEP = 6.0, 2.0  # world units; level 1 at 8 is the editor's default (judgement)
LOWEST, HEIGHT_SPAN = -100.0, 200.0  # the interface sends heights as bytes over this range


def cells(text: str) -> np.ndarray:
    """Return the cells that ``text`` lists, bool [32, 32], indexed [y, x]."""
    found = np.zeros((SIZE, SIZE), np.bool_)
    for row in filter(None, text.split(";")):
        where, spans = row.split(":")
        ends = [int(y) for y in where.split("..")]
        for span in spans.split():
            first, last = map(int, span.split("-"))
            found[ends[0] : ends[-1] + 1, first : last + 1] = True
    return found


def walkable_cells(terrain: str) -> np.ndarray:
    """Return uint8 [32, 32], indexed [y, x]: 1 where ground units can stand."""
    if terrain not in TERRAIN:
        raise ConfigError(f"terrain '{terrain}' is unknown; choose one of {', '.join(sorted(TERRAIN))}")
    return cells(TERRAIN[terrain]).astype(np.uint8)


def cliff_levels(terrain: str) -> np.ndarray:
    """Return the cliff level of each cell, f32 [32, 32]; a ramp lies half-way between levels 1 and 2."""
    level = cells(LEVEL_1.get(terrain, TERRAIN[terrain])).astype(np.float32)
    level += cells(LEVEL_2.get(terrain, ""))
    return level + 0.5 * cells(RAMPS.get(terrain, ""))


def ground_height(terrain: str) -> np.ndarray:
    """Return heights in [0, 1], f32 [32, 32], as SMAC's ``obs_terrain_height`` shows them: a byte over 255."""
    height = LEVEL_0_HEIGHT + LEVEL_STEP * cliff_levels(terrain)
    return (np.floor((height - LOWEST) / HEIGHT_SPAN * 255.0) / 255.0).astype(np.float32)
