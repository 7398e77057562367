"""Area damage: the Colossus's sweeping beams, which deal damage some time after they touch, and the baneling's burst.

Both spare friends and everything that the weapon cannot hit.
"""

from __future__ import annotations

import math

import numpy as np

from envs.kernels.compiled import Record, rule
from envs.skirmish.combat import can_hit, opponents, strike, within
from envs.skirmish.units import BURST

LINE_LENGTH, LINE_REACH = 2.5, 0.15  # length of the line that the beams sweep; how far from it they still touch a body
BURST_RADIUS = 2.2  # from the centre of the burst to the edge of a body


@rule
def sweep(rules: Record, types: np.ndarray, units: np.ndarray, i: int) -> None:
    """Play one loop of the two beams, which cross a line at right angles to the shot, centred on where the target was.

    They start at opposite ends at the same time; each hits a body once, when it first touches it.
    """
    unit = units[i]
    kind = types[unit.type]
    done = 1.0 - unit.impact / kind.second_hit
    unit.impact = max(unit.impact - 1.0, 0.0)
    now = 1.0 - unit.impact / kind.second_hit
    dx, dy = unit.aim_x - unit.x, unit.aim_y - unit.y
    far = max(math.sqrt(dx * dx + dy * dy), 1e-9)
    first, last = opponents(rules, i)
    for j in range(first, last):
        foe = units[j]
        reach = types[foe.type].radius + LINE_REACH
        rx, ry = foe.x - unit.aim_x, foe.y - unit.aim_y
        across = (rx * dx + ry * dy) / far
        if foe.health <= 0.0 or abs(across) >= reach or not can_hit(kind, types[foe.type]):
            continue
        along, half = (ry * dx - rx * dy) / far, math.sqrt(reach * reach - across * across)
        for end in (-1.0, 1.0):
            touched = max(0.5 + (end * along - half) / LINE_LENGTH, 0.0)  # share of the line swept before the touch
            on_line = 0.5 + (end * along + half) / LINE_LENGTH >= 0.0
            if on_line and foe.health > 0.0 and done <= touched < now:
                touch(rules, types, units, i, j)


@rule
def touch(rules: Record, types: np.ndarray, units: np.ndarray, i: int, j: int) -> None:
    """Let a beam of unit ``i`` touch unit ``j``: its hit lands at once or, if beams are delayed, ``hit_delay`` later,
    whatever becomes of the Colossus."""
    loops = int(types[units[i].type].hit_delay)
    if rules.delayed_beams == 0 or loops == 0:
        strike(rules, types, units, i, j)
        return
    units[j].burns += 1 << (8 * (loops - 1))
    units[j].burner = i


@rule
def burn(rules: Record, types: np.ndarray, units: np.ndarray) -> None:
    """Apply the beam hits that are due; the dead are spared."""
    for j in range(rules.n_units):
        unit = units[j]
        if unit.burns == 0:
            continue
        hits = unit.burns & 255
        unit.burns >>= 8
        for _ in range(hits):
            if unit.health > 0.0:
                strike(rules, types, units, unit.burner, j)
        if unit.health <= 0.0:
            unit.burns = 0


@rule
def burst_the_fallen(rules: Record, types: np.ndarray, units: np.ndarray) -> None:
    """Burst the units that died armed since the last loop; those that this kills burst in the next."""
    for i in range(rules.n_units):
        unit = units[i]
        if unit.health <= 0.0 and unit.impact > 0.0 and types[unit.type].splash == BURST:
            unit.impact = -1.0
    for i in range(rules.n_units):
        unit = units[i]
        if unit.impact < 0.0:
            unit.impact = 0.0
            first, last = opponents(rules, i)
            for j in range(first, last):
                foe, body = units[j], types[units[j].type]
                if (
                    foe.health > 0.0
                    and can_hit(types[unit.type], body)
                    and within(unit, foe, BURST_RADIUS + body.radius)
                ):
                    strike(rules, types, units, i, j)
