"""Pictures of a battle, drawn with Pillow: ground, units, aims, shots of the last step, wounds.

A picture shows the part of the map that ``camera`` chooses: all units with a margin. The whole map is drawn at twice
its size, then cropped and resized, which smooths bodies and lines.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from envs.skirmish.records import MOVING, World
from envs.skirmish.splash import BURST_RADIUS, LINE_LENGTH
from envs.skirmish.terrain import SIZE
from envs.skirmish.units import AIR, BURST, LINE, LOOPS_PER_SECOND, UNIT_TYPES, UnitType, kind_of

SCALE = 24  # pixels per map unit where the whole map is shown
NEAREST, MARGIN, STEP = 16.0, 2.5, 4.0  # map units: the narrowest view, the margin around units, the step of its growth
FINE = 2  # shapes are drawn this many times larger
RING = 2.5  # pixels
WHOLE = 0.999  # share that counts as full: regeneration may stop a hair's breadth short
STEP_LOOPS = 8  # an environment's step
MANY = 40  # with more units than this they have no numbers
LETTERS = {"marine": "m", "marauder": "M", "medivac": "+", "stalker": "S", "zealot": "Z", "zergling": "z",
           "colossus": "C", "hydralisk": "H", "baneling": "b", "spine_crawler": "T"}  # fmt: skip

GROUND, HIGH, WALL, CLIFF, GRID = (214, 206, 188), (235, 229, 214), (84, 79, 74), (52, 48, 45), (0, 0, 0, 12)
ALLY, ENEMY = (41, 98, 190), (196, 54, 44)
ALLY_SHOT, ENEMY_SHOT, HEAL = (20, 70, 205), (205, 25, 15), (30, 160, 60)
AIM, SHOT, GLOW, BODY, FLYER = 110, 235, 90, 225, 165  # opacity
BEAM, FIRE = (255, 140, 20), (255, 140, 20)
WELL, HURT, DYING, SHIELD, EMPTY = (60, 180, 75), (235, 190, 30), (225, 60, 40), (80, 160, 255), (45, 45, 45)
INK, WHITE, ALLY_TEXT, ENEMY_TEXT = (25, 25, 25), (255, 255, 255), (150, 195, 255), (255, 165, 155)


class View(NamedTuple):
    """The part of the map that is shown, in map units from the upper left corner, y downward."""

    left: float
    top: float
    width: float
    height: float


def whole(world: World) -> View:
    """Return the view of all rows in use."""
    rows = np.flatnonzero(world.walkable.any(1))
    top, bottom = max(0, SIZE - 2 - int(rows[-1])), min(SIZE, SIZE + 1 - int(rows[0]))
    return View(0.0, float(top), float(SIZE), float(bottom - top))


def camera(units: np.ndarray, world: World) -> View:
    """Return the view of all ``units`` UNIT [N], in the proportions of the whole map. The dead count, and the view
    moves in steps, so that the ground stands still while the units move."""
    all_of_it = whole(world)
    x, y = units["x"].astype(float), SIZE - units["y"].astype(float)
    shape = all_of_it.width / all_of_it.height
    width = max(NEAREST, np.ptp(x) + 2 * MARGIN, (np.ptp(y) + 2 * MARGIN) * shape)
    width = min(STEP * np.ceil(width / STEP), all_of_it.width)
    height = width / shape
    left, top = (STEP / 2 * np.round((z.min() + z.max() - size) / STEP) for z, size in ((x, width), (y, height)))
    left = np.clip(left, 0, all_of_it.width - width)
    top = np.clip(top, all_of_it.top, all_of_it.top + all_of_it.height - height)
    return View(float(left), float(top), float(width), float(height))


def draw(units: np.ndarray, world: World, n_agents: int, caption: str, view: View) -> np.ndarray:
    """Draw one lane's ``units`` UNIT [N] on the part of the map in ``view``, y upward: uint8 [height, 768, 3].

    Thin lines: who aims at whom. Bold lines: shots that began in the last step; green ones heal. Crosses: the dead,
    those of the last step in a strong colour. Rings, only in wounded units: health, and around it shields.
    """
    image = _ground(world.walkable.tobytes(), world.height.tobytes()).copy()
    pen = ImageDraw.Draw(image, "RGBA")
    living = np.flatnonzero(units["health"] > 0).tolist()
    for index in np.flatnonzero(units["health"] <= 0).tolist():
        _corpse(pen, units[index], index < n_agents)
    for index in living:
        _attack(pen, units, index, n_agents)
    # small bodies over large ones, and flyers over walkers
    order = sorted(living, key=lambda i: (_kind(units[i]).layers == AIR, -_kind(units[i]).radius))
    for index in order:
        number = "" if len(units) > MANY else str(index if index < n_agents else index - n_agents)
        well = float(world.types["health"][units[index]["type"]])  # differs from the catalogue's with env.enemy_health
        _body(pen, units[index], well, index < n_agents, number)
    unit = SCALE * FINE
    box = unit * view.left, unit * view.top, unit * (view.left + view.width), unit * (view.top + view.height)
    size = SIZE * SCALE, round(whole(world).height * SCALE)
    image = image.resize(size, Image.Resampling.BOX if view == whole(world) else Image.Resampling.LANCZOS, box)
    _write(ImageDraw.Draw(image), units, n_agents, caption, image.height)
    return np.asarray(image)


def places(units: np.ndarray, view: View) -> np.ndarray:
    """Return where ``draw`` puts the ``units`` UNIT [N]: centre (x, y) and radius, in pixels, f64 [N, 3]."""
    scale = SIZE * SCALE / view.width
    radius = [_kind(unit).radius for unit in units]
    return scale * np.stack([units["x"] - view.left, SIZE - units["y"] - view.top, radius], 1).astype(np.float64)


@functools.lru_cache(maxsize=8)
def _ground(walkable: bytes, height: bytes) -> Image.Image:
    """Draw the empty map, ``FINE`` times as large: walls, ledges around them, lighter ground where it is higher."""
    free = np.frombuffer(walkable, np.uint8).reshape(SIZE, SIZE)[::-1] > 0
    level = np.frombuffer(height, np.float32).reshape(SIZE, SIZE)[::-1]
    low, high = level[free].min(), level[free].max()
    share = np.clip((level - low) / max(high - low, 1e-6), 0, 1)[..., None]
    cells = np.where(free[..., None], GROUND + share * (np.array(HIGH) - GROUND), WALL).astype(np.uint8)
    side = SIZE * SCALE * FINE
    image = Image.fromarray(cells).resize((side, side), Image.Resampling.NEAREST)
    pen, cell = ImageDraw.Draw(image, "RGBA"), SCALE * FINE
    for line in range(0, SIZE, 4):
        pen.line((line * cell, 0, line * cell, side), fill=GRID, width=FINE)
        pen.line((0, line * cell, side, line * cell), fill=GRID, width=FINE)
    for row, column in np.argwhere(free[:, 1:] != free[:, :-1]).tolist():
        pen.line(((column + 1) * cell, row * cell, (column + 1) * cell, (row + 1) * cell), fill=CLIFF, width=3 * FINE)
    for row, column in np.argwhere(free[1:] != free[:-1]).tolist():
        pen.line((column * cell, (row + 1) * cell, (column + 1) * cell, (row + 1) * cell), fill=CLIFF, width=3 * FINE)
    return image


def _kind(unit: Any) -> UnitType:
    return kind_of(unit["type"])


def _at(x: float, y: float) -> tuple[float, float]:
    """Return the pixel of a point of the map on the enlarged picture."""
    return float(x) * SCALE * FINE, (SIZE - float(y)) * SCALE * FINE


def _disc(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return x - radius, y - radius, x + radius, y + radius


def _corpse(pen: ImageDraw.ImageDraw, unit: np.void, ally: bool) -> None:
    """Draw a cross, and the burst of a baneling that was alive when the step began."""
    x, y = _at(unit["x"], unit["y"])
    fresh = unit["before"] > 0
    if fresh and _kind(unit).splash == BURST:
        pen.ellipse(_disc(x, y, BURST_RADIUS * SCALE * FINE), fill=(*FIRE, GLOW), outline=FIRE, width=FINE)
    colour = (*(ALLY if ally else ENEMY), SHOT if fresh else GLOW)
    for sign in (-1, 1):
        pen.line((x - 5 * FINE, y - 5 * sign * FINE, x + 5 * FINE, y + 5 * sign * FINE), fill=colour, width=2 * FINE)


def _attack(pen: ImageDraw.ImageDraw, units: np.ndarray, index: int, n_agents: int) -> None:
    """Draw a thin line to the target and, if a shot began in the last step, a bold one with a dot where it hits."""
    unit, kind, ally = units[index], _kind(units[index]), index < n_agents
    here = _at(unit["x"], unit["y"])
    colour, target = (ALLY_SHOT if ally else ENEMY_SHOT), int(unit["target"])
    if kind.heals:
        if target >= 0 and unit["pose"] != MOVING:
            pen.line((*here, *_at(units[target]["x"], units[target]["y"])), fill=(*HEAL, SHOT), width=3 * FINE)
        return
    if target >= 0:
        pen.line((*here, *_at(units[target]["x"], units[target]["y"])), fill=(*colour, AIM), width=FINE)
    struck = units[unit["struck"]]
    fired = unit["windup"] <= 0 and unit["cooldown"] > kind.period * LOOPS_PER_SECOND - STEP_LOOPS
    if not fired or (unit["struck"] < n_agents) == ally:  # a unit that was placed has struck nobody yet
        return
    there = _at(struck["x"], struck["y"])
    pen.line((*here, *there), fill=(*colour, SHOT), width=2 * FINE)
    away = np.subtract(here, there)
    x, y = there + away / max(np.hypot(*away), 1e-6) * _kind(struck).radius * SCALE * FINE
    pen.ellipse(_disc(x, y, 4 * FINE), fill=(*FIRE, SHOT))
    if kind.splash == LINE:
        middle = np.array(_at(unit["aim_x"], unit["aim_y"]))
        across = (middle - here)[::-1] * (1, -1)
        across *= LINE_LENGTH / 2 * SCALE * FINE / max(np.hypot(*across), 1e-6)
        pen.line((*(middle - across), *(middle + across)), fill=(*BEAM, SHOT), width=3 * FINE)


def _body(pen: ImageDraw.ImageDraw, unit: np.void, well: float, ally: bool, number: str) -> None:
    kind, centre = _kind(unit), _at(unit["x"], unit["y"])
    radius = kind.radius * SCALE * FINE
    radius = _rings(pen, unit, well, centre, radius)
    opacity = FLYER if kind.layers == AIR else BODY
    pen.ellipse(_disc(*centre, radius), fill=(*(ALLY if ally else ENEMY), opacity), outline=INK, width=FINE)
    size = max(10, round(kind.radius * SCALE * 0.95)) * FINE
    pen.text(centre, LETTERS.get(kind.name, kind.name[0]) + number, fill=WHITE, anchor="mm", font_size=size)


def _rings(pen: ImageDraw.ImageDraw, unit: np.void, well: float, centre: tuple[float, float], radius: float) -> float:
    """Draw, if anything is missing, what is left of the full health ``well`` (green, yellow, red) and around it of the
    shields, clockwise from the top; return the radius that is left for the body. Everything lies inside the unit's own
    radius: straight bars, or rings around it, would hide the neighbours in a melee."""
    kind = _kind(unit)
    health, shield = float(unit["health"]) / well, float(unit["shield"]) / max(kind.shield, 1e-6)
    if health > WHOLE and (kind.shield == 0 or shield > WHOLE):
        return radius
    rings = [(health, WELL if health > 0.6 else HURT if health > 0.3 else DYING)]
    rings += [(shield, SHIELD)] if kind.shield > 0 else []
    for share, colour in reversed(rings):
        disc = _disc(*centre, radius)
        pen.ellipse(disc, fill=EMPTY)
        pen.pieslice(disc, -90, -90 + 360 * min(share, 1.0), fill=colour)
        radius -= RING * FINE
    return radius


def _write(pen: ImageDraw.ImageDraw, units: np.ndarray, n_agents: int, caption: str, height: int) -> None:
    """Write the caption and the numbers of the living above, and a legend of the letters below."""
    living, x = units["health"] > 0, 6.0
    for text, colour in (
        (caption, WHITE),
        (f"{living[:n_agents].sum()} agents", ALLY_TEXT),
        ("against", WHITE),
        (f"{living[n_agents:].sum()} enemies", ENEMY_TEXT),
    ):
        pen.text((x, 4), text, fill=colour, font_size=15, stroke_width=2, stroke_fill=INK)
        x += pen.textlength(text, font_size=15) + (18 if text == caption else 6)
    kinds = [UNIT_TYPES[index] for index in sorted(set((units["type"] % len(UNIT_TYPES)).tolist()))]
    legend = "   ".join(f"{LETTERS.get(kind.name, kind.name[0])} {kind.name.replace('_', ' ')}" for kind in kinds)
    pen.text((6, height - 19), legend, fill=WHITE, font_size=13, stroke_width=2, stroke_fill=INK)
