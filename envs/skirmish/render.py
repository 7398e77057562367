"""Pictures of a battle, drawn with Pillow: ground, units with health and shield bars, orders and attacks."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from envs.skirmish.records import FIGHTING, World
from envs.skirmish.terrain import SIZE
from envs.skirmish.units import UNIT_TYPES

SCALE = 24  # pixels per map unit
GROUND, BLOCKED, GRID = (222, 214, 196), (92, 86, 78), (212, 203, 184)
ALLY, ENEMY, ALLY_LINE, ENEMY_LINE = (46, 105, 190), (196, 62, 50), (80, 140, 225), (226, 110, 96)
HEALTH, SHIELD, EMPTY, INK = (60, 170, 70), (80, 150, 235), (70, 70, 70), (25, 25, 25)


def draw(units: np.ndarray, world: World, n_agents: int, caption: str) -> np.ndarray:
    """One lane's ``units`` UNIT [N] on the map, y upward: uint8 [height, 768, 3], cut to the rows in use."""
    image = Image.fromarray(_ground(world.walkable)).resize((SIZE * SCALE, SIZE * SCALE), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    for line in range(0, SIZE, 4):
        pen.line((line * SCALE, 0, line * SCALE, SIZE * SCALE), fill=GRID)
        pen.line((0, line * SCALE, SIZE * SCALE, line * SCALE), fill=GRID)
    living = units["health"] > 0
    for unit in units[~living]:
        _cross(pen, unit)
    order = np.flatnonzero(living).tolist()
    for index in order:
        _aim(pen, units, index, n_agents)
    for index in sorted(order, key=lambda i: -UNIT_TYPES[units[i]["type"]].radius):
        _body(pen, units[index], index, n_agents)
    rows = np.flatnonzero(world.walkable.any(1))
    top, bottom = max(0, SIZE - 2 - int(rows[-1])), min(SIZE, SIZE + 1 - int(rows[0]))
    image = image.crop((0, top * SCALE, SIZE * SCALE, bottom * SCALE))
    text = f"{caption}   {living[:n_agents].sum()} against {living[n_agents:].sum()}"
    ImageDraw.Draw(image).text((6, 4), text, fill=(255, 255, 255), font_size=15, stroke_width=2, stroke_fill=INK)
    return np.asarray(image)


def _ground(walkable: np.ndarray) -> np.ndarray:
    cells = np.where(walkable[::-1, :, None] > 0, np.array(GROUND), np.array(BLOCKED))
    return cells.astype(np.uint8)


def _at(unit: np.void) -> tuple[float, float]:
    return float(unit["x"]) * SCALE, (SIZE - float(unit["y"])) * SCALE


def _cross(pen: ImageDraw.ImageDraw, unit: np.void) -> None:
    x, y = _at(unit)
    for sign in (-1, 1):
        pen.line((x - 5, y - 5 * sign, x + 5, y + 5 * sign), fill=EMPTY, width=2)


def _aim(pen: ImageDraw.ImageDraw, units: np.ndarray, index: int, n_agents: int) -> None:
    """A line to the target: thick while fighting, thin while on the way."""
    unit = units[index]
    if unit["target"] >= 0:
        colour = ALLY_LINE if index < n_agents else ENEMY_LINE
        pen.line((*_at(unit), *_at(units[unit["target"]])), fill=colour, width=3 if unit["pose"] == FIGHTING else 1)


def _body(pen: ImageDraw.ImageDraw, unit: np.void, index: int, n_agents: int) -> None:
    kind = UNIT_TYPES[unit["type"]]
    x, y = _at(unit)
    radius = kind.radius * SCALE
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ALLY if index < n_agents else ENEMY, outline=INK)
    letter = kind.name[0].upper() + str(index if index < n_agents else index - n_agents)
    pen.text((x, y), letter, fill=(255, 255, 255), anchor="mm", font_size=max(8, round(radius)))
    top = y - radius - 5
    for value, most, colour in ((unit["health"], kind.health, HEALTH), (unit["shield"], kind.shield, SHIELD)):
        if most > 0:
            pen.rectangle((x - radius, top, x + radius, top + 2), fill=EMPTY)
            pen.rectangle(
                (x - radius, top, x - radius + 2 * radius * min(float(value) / most, 1.0), top + 2), fill=colour
            )
            top -= 4
