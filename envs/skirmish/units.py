"""Unit table: what the game data say about each unit type.

Sources: the unit catalogue inside the map archives (life, speed, radii) and the stock weapon data. Stalkers, Colossi,
spine crawlers and scan ranges are as in the multiplayer data, which recordings of the real game confirm although the
maps name Liberty as their dependency; docs/skirmish.md lists where the two differ.
Data are in game seconds; the table is in game loops, 16 to the second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LOOPS_PER_SECOND = 16.0

GROUND, AIR = 1, 2  # bits of the layers on which a unit can be hit, and that a weapon reaches
LIGHT, ARMORED, BIOLOGICAL, MECHANICAL, MASSIVE, STRUCTURE = 1, 2, 4, 8, 16, 32  # attribute bits
WALKS, FLIES, STRIDES = 0, 1, 2  # bodies collide within a plane; a Colossus strides over all but Colossi and structures
NO_SPLASH, LINE, BURST = 0, 1, 2


@dataclass(frozen=True)
class UnitType:
    """One row of the catalogue: distances in map units, rates per game second, times in game seconds."""

    name: str
    race: str
    health: float
    radius: float
    inner_radius: float  # bodies may close up to this while passing
    speed: float
    sight: float
    attributes: int
    shield: float = 0.0
    armor: float = 0.0
    plane: int = WALKS
    layers: int = GROUND
    damage: float = 0.0
    bonus: float = 0.0
    bonus_against: int = 0
    hits: int = 1
    weapon_range: float = 0.0
    period: float = 0.0
    damage_point: float = 0.0
    missile_speed: float = 0.0  # 0: the hit is immediate
    backswing: float = 0.5  # after an attack a unit stays this long, unless it gets a new order
    range_slop: float = 1.0  # a started attack still hits a target that has gone this much too far
    second_hit: float = 0.0  # delay of the second of two hits; of beams, how long they sweep
    hit_delay: float = 0.0  # from the touch of a beam to its hit, up to 8 loops
    targets: int = 0  # layer bits that the weapon reaches
    min_scan: float = 5.0  # MinScanRange: enemies this near, edge to edge, are noticed, and all that the weapon reaches
    turn_rate: float = 999.8437  # degrees per second; 0: points anywhere at once, like a turret or what cannot turn
    free_fire: bool = False  # OnlyFireWhileInAttackOrder = 0: a standing unit fires without orders at what is in range
    splash: int = NO_SPLASH
    acceleration: float = 0.0  # 0: at full speed at once
    stock_speed: float | None = None  # of the enemy, which has stock units; None: the same as the maps' own
    stock_acceleration: float | None = None
    life_regeneration: float = 0.0
    cooldown_norm: float = 15.0  # loops; the published state divides the cooldown by it
    heals: bool = False
    unit_sight: float = 9.0  # SMACv2 with unit ranges: what an agent sees and may target, centre to centre
    unit_shoot: float = 6.0


ZERG_REGENERATION = 0.2734

UNIT_TYPES: tuple[UnitType, ...] = (
    UnitType("marine", "terran", 45, 0.375, 0.375, 2.25, 9, LIGHT | BIOLOGICAL, damage=6, weapon_range=5,
             period=0.8608, damage_point=0.05, backswing=0.75, targets=GROUND | AIR, min_scan=5.5, cooldown_norm=15,
             unit_sight=9, unit_shoot=5),
    UnitType("marauder", "terran", 125, 0.5625, 0.375, 2.25, 10, ARMORED | BIOLOGICAL, armor=1, damage=10, bonus=10,
             bonus_against=ARMORED, weapon_range=6, period=1.5, backswing=0.0, missile_speed=20, targets=GROUND,
             min_scan=6.5, cooldown_norm=25, unit_sight=10, unit_shoot=6),
    UnitType("medivac", "terran", 150, 0.75, 0.75, 2.75, 11, ARMORED | MECHANICAL, armor=1, plane=FLIES, layers=AIR,
             weapon_range=4, acceleration=2.3125, stock_speed=2.5, stock_acceleration=2.25, heals=True, unit_sight=11,
             unit_shoot=4),
    UnitType("stalker", "protoss", 80, 0.625, 0.5, 2.9531, 10, ARMORED | MECHANICAL, shield=80, armor=1, damage=13,
             bonus=5, bonus_against=ARMORED, weapon_range=6, period=1.87, damage_point=0.167, missile_speed=18.75,
             targets=GROUND | AIR, min_scan=6.5, cooldown_norm=35, unit_sight=10, unit_shoot=6),
    UnitType("zealot", "protoss", 100, 0.5, 0.375, 2.25, 9, LIGHT | BIOLOGICAL, shield=50, armor=1, damage=8, hits=2,
             weapon_range=0.1, period=1.2, second_hit=0.28, targets=GROUND, cooldown_norm=22, unit_sight=9,
             unit_shoot=2),
    UnitType("colossus", "protoss", 200, 1.0, 0.5625, 2.25, 10, ARMORED | MECHANICAL | MASSIVE, shield=150, armor=1,
             plane=STRIDES, layers=GROUND | AIR, damage=10, bonus=5, bonus_against=LIGHT, hits=2, weapon_range=7,
             period=1.5, damage_point=0.083, range_slop=0.0, second_hit=0.25, hit_delay=0.25, targets=GROUND,
             splash=LINE, min_scan=7.5, free_fire=True, turn_rate=0.0, cooldown_norm=24, unit_sight=10, unit_shoot=7),
    UnitType("zergling", "zerg", 35, 0.375, 0.375, 2.9531, 8, LIGHT | BIOLOGICAL, damage=5, weapon_range=0.1,
             period=0.696, damage_point=0.167, targets=GROUND, life_regeneration=ZERG_REGENERATION, cooldown_norm=11,
             unit_sight=8, unit_shoot=2),
    UnitType("baneling", "zerg", 30, 0.375, 0.375, 2.5, 8, BIOLOGICAL, damage=20, bonus=15, bonus_against=LIGHT,
             weapon_range=0.25, period=0.833, targets=GROUND, splash=BURST, life_regeneration=ZERG_REGENERATION,
             cooldown_norm=1, unit_sight=8, unit_shoot=2),
    UnitType("hydralisk", "zerg", 80, 0.625, 0.375, 2.25, 9, LIGHT | BIOLOGICAL, damage=12, weapon_range=5,
             period=0.83, damage_point=0.208, missile_speed=40, targets=GROUND | AIR, min_scan=5.5,
             life_regeneration=ZERG_REGENERATION, cooldown_norm=10, unit_sight=9, unit_shoot=5),
    UnitType("spine_crawler", "zerg", 300, 0.875, 0.875, 0.0, 11, ARMORED | BIOLOGICAL | STRUCTURE, armor=2,
             damage=25, bonus=5, bonus_against=ARMORED, weapon_range=7, period=1.85, damage_point=0.333, range_slop=0.0,
             targets=GROUND, turn_rate=0.0, life_regeneration=ZERG_REGENERATION, unit_sight=11, unit_shoot=7),
)  # fmt: skip

TYPE_ID = {unit.name: index for index, unit in enumerate(UNIT_TYPES)}
RANK = {name: index for index, name in enumerate(sorted(TYPE_ID))}  # the game's type ids are alphabetical
UNKNOWN_BIT = -1


def kind_of(unit_type: int) -> UnitType:
    """Return the row of the catalogue for a unit's type; the enemy may have rows of its own (``setup.map_types``)."""
    return UNIT_TYPES[unit_type % len(UNIT_TYPES)]


# One record per unit type, as the kernels read it: distances in map units, rates per loop, times in loops.
TYPE = np.dtype(
    [(name, np.float64) for name in (
        "health", "shield", "armor", "damage", "bonus", "range", "period", "damage_point", "backswing", "range_slop",
        "missile_speed", "second_hit", "hit_delay", "speed", "acceleration", "stock_speed",
        "stock_acceleration", "regeneration", "radius", "inner_radius", "scan",
        "sight", "shoot", "cooldown_norm",
        "turn_cos", "turn_sin")]  # of the angle by which it turns in a loop
    + [(name, np.int32) for name in (
        "attributes", "bonus_against", "hits", "plane", "layers", "targets", "splash", "heals", "free_fire",
        "ally_bit", "enemy_bit", "rank")],
    align=True,
)  # fmt: skip

SAME = (
    "health", "shield", "armor", "damage", "bonus", "range_slop", "radius", "inner_radius", "cooldown_norm",
    "attributes", "bonus_against", "hits", "plane", "layers", "targets", "splash", "heals", "free_fire",
)  # fields that need no conversion  # fmt: skip


def type_table(ally_order: tuple[str, ...], enemy_order: tuple[str, ...], unit_ranges: bool) -> np.ndarray:
    """Return the catalogue as TYPE records [10], with the positions of the types in a map's one-hot codes.

    ``unit_ranges`` gives agents the sight and targeting range of their type (SMACv2) instead of 9 and 6 for all.
    """
    table = np.zeros(len(UNIT_TYPES), TYPE)
    for row, unit in zip(table, UNIT_TYPES, strict=True):
        for name in SAME:
            row[name] = getattr(unit, name)
        row["range"] = unit.weapon_range
        row["period"] = unit.period * LOOPS_PER_SECOND
        row["damage_point"] = unit.damage_point * LOOPS_PER_SECOND
        row["backswing"] = unit.backswing * LOOPS_PER_SECOND
        row["second_hit"] = unit.second_hit * LOOPS_PER_SECOND
        row["hit_delay"] = unit.hit_delay * LOOPS_PER_SECOND
        row["missile_speed"] = unit.missile_speed / LOOPS_PER_SECOND
        row["speed"] = unit.speed / LOOPS_PER_SECOND
        row["acceleration"] = unit.acceleration / LOOPS_PER_SECOND**2
        stock_speed = unit.speed if unit.stock_speed is None else unit.stock_speed
        stock_acceleration = unit.acceleration if unit.stock_acceleration is None else unit.stock_acceleration
        row["stock_speed"] = stock_speed / LOOPS_PER_SECOND
        row["stock_acceleration"] = stock_acceleration / LOOPS_PER_SECOND**2
        row["regeneration"] = unit.life_regeneration / LOOPS_PER_SECOND
        row["scan"] = max(unit.min_scan, unit.weapon_range)
        angle = math.radians(unit.turn_rate) / LOOPS_PER_SECOND if unit.turn_rate > 0.0 else math.pi
        row["turn_cos"], row["turn_sin"] = math.cos(angle), math.sin(angle)
        row["sight"] = unit.unit_sight if unit_ranges else 9.0
        row["shoot"] = unit.unit_shoot if unit_ranges else 6.0
        row["rank"] = RANK[unit.name]
        row["ally_bit"] = ally_order.index(unit.name) if unit.name in ally_order else UNKNOWN_BIT
        row["enemy_bit"] = enemy_order.index(unit.name) if unit.name in enemy_order else UNKNOWN_BIT
    return table
