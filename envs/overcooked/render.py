"""Pictures of a kitchen, drawn with Pillow: tiles, cooks with their direction and what they hold, pots with their
timers. Shapes are drawn at twice the size and then scaled down, which smooths them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from envs.overcooked.layout import COUNTER, DISHES, DX, DY, FLOOR, ONIONS, POT, SERVE, TOMATOES, Layout
from envs.overcooked.pieces import Cook, Item

SIDE, FINE, BAR = 48, 2, 20  # pixels per tile; supersampling factor; height of the caption in pixels
S = SIDE * FINE
TOPS = {FLOOR: (236, 228, 210), COUNTER: (176, 138, 96), POT: (112, 112, 118), ONIONS: (176, 138, 96),
        TOMATOES: (176, 138, 96), DISHES: (176, 138, 96), SERVE: (150, 190, 140)}  # fmt: skip
LINE, INK, WHITE, GRAY = (140, 108, 74), (25, 25, 25), (255, 255, 255), (70, 70, 76)
ONION, TOMATO, DISH, BROTH, READY = (236, 206, 92), (212, 62, 48), (245, 245, 250), (214, 150, 70), (60, 170, 75)
COOKS = ((41, 98, 190), (40, 150, 90))


def draw(
    layout: Layout, cooks: Sequence[Cook], things: Mapping[tuple[int, int], Item], cook_time: int, caption: str
) -> np.ndarray:
    """Draw a kitchen with ``caption`` below it: uint8 [48 height + 20, 48 width, 3]."""
    image = Image.new("RGB", (S * layout.width, S * layout.height + BAR * FINE), GRAY)
    pen = ImageDraw.Draw(image)
    for tile, kind in enumerate(layout.terrain.tolist()):
        draw_tile(pen, S * (tile % layout.width), S * (tile // layout.width), kind)
    for (x, y), item in things.items():
        if layout.terrain[y * layout.width + x] == POT:
            draw_pot(pen, S * x, S * y, item, cook_time)
        else:
            draw_item(pen, S * x + S // 2, S * y + S // 2, item, S // 4)
    for number, cook in enumerate(cooks):
        draw_cook(pen, cook, number)
    write(pen, 4 * FINE, S * layout.height + 3 * FINE, caption, WHITE, 13)
    return np.array(image.resize((SIDE * layout.width, SIDE * layout.height + BAR), Image.Resampling.LANCZOS))


def write(pen: ImageDraw.ImageDraw, x: float, y: float, text: str, ink: tuple[int, int, int], size: int) -> None:
    pen.text((x, y), text, fill=ink, font=ImageFont.load_default(size * FINE))


def disc(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, fill: tuple[int, int, int]) -> None:
    pen.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=INK, width=FINE)


def draw_tile(pen: ImageDraw.ImageDraw, x: int, y: int, kind: int) -> None:
    pen.rectangle((x, y, x + S, y + S), fill=TOPS[kind], outline=LINE, width=FINE)
    if kind in (ONIONS, TOMATOES):
        for dx, dy in ((0.3, 0.35), (0.7, 0.35), (0.5, 0.68)):
            disc(pen, x + dx * S, y + dy * S, S / 6, ONION if kind == ONIONS else TOMATO)
    elif kind == DISHES:
        for k in range(3):
            disc(pen, x + S / 2 + (k - 1) * S / 10, y + S / 2 - (k - 1) * S / 10, S / 4, DISH)
    elif kind == POT:
        disc(pen, x + S / 2, y + S / 2, S * 0.4, GRAY)
    elif kind == SERVE:
        write(pen, x + S * 0.08, y + S * 0.32, "serve", INK, 15)


def draw_item(pen: ImageDraw.ImageDraw, x: float, y: float, item: Item, r: float) -> None:
    """Draw an item centred on a point, ``r`` pixels in radius; a soup has a dot for each ingredient."""
    if item.name == "onion":
        disc(pen, x, y, r * 0.8, ONION)
    elif item.name == "tomato":
        disc(pen, x, y, r * 0.8, TOMATO)
    else:
        disc(pen, x, y, r, DISH)
        disc(pen, x, y, r * 0.65, BROTH if item.name == "soup" else DISH)
        dot_ingredients(pen, x, y, item, r * 0.4)


def dot_ingredients(pen: ImageDraw.ImageDraw, x: float, y: float, item: Item, r: float) -> None:
    places = ((-0.9, -0.5), (0.9, -0.5), (0.0, 0.8))
    inside = [ONION] * item.onions + [TOMATO] * item.tomatoes
    for (dx, dy), fill in zip(places, inside, strict=False):
        disc(pen, x + dx * r, y + dy * r, r * 0.7, fill)


def draw_pot(pen: ImageDraw.ImageDraw, x: int, y: int, soup: Item, cook_time: int) -> None:
    """Draw the ingredients, a ring that shows progress and the number of steps left; green when the soup is done."""
    done = soup.ticks >= cook_time
    disc(pen, x + S / 2, y + S / 2, S * 0.34, BROTH)
    dot_ingredients(pen, x + S / 2, y + S / 2, soup, S * 0.16)
    if soup.ticks >= 0:
        ring = (x + S * 0.08, y + S * 0.08, x + S * 0.92, y + S * 0.92)
        pen.arc(ring, -90, -90 + 360 * soup.ticks / cook_time, fill=READY if done else WHITE, width=3 * FINE)
        pen.rectangle((x + S * 0.56, y + S * 0.6, x + S - FINE, y + S - FINE), fill=READY if done else INK)
        write(pen, x + S * 0.6, y + S * 0.61, "ok" if done else str(cook_time - soup.ticks), WHITE, 14)


def draw_cook(pen: ImageDraw.ImageDraw, cook: Cook, number: int) -> None:
    """Draw a disc with a tip in the direction the cook faces, its number, and what it holds in front of it."""
    x, y, way = S * cook.x + S / 2, S * cook.y + S / 2, "NSEW".index(cook.way)
    dx, dy = DX[way], DY[way]
    pen.polygon(
        [(x + dx * S * 0.48, y + dy * S * 0.48), (x + (dx + dy) * S * 0.27, y + (dy + dx) * S * 0.27),
         (x + (dx - dy) * S * 0.27, y + (dy - dx) * S * 0.27)], fill=COOKS[number], outline=INK,
    )  # fmt: skip
    disc(pen, x, y, S * 0.36, COOKS[number])
    write(pen, x - dx * S * 0.14 - S * 0.09, y - dy * S * 0.14 - S * 0.18, str(number), WHITE, 16)
    if cook.held:
        draw_item(pen, x + dx * S * 0.26, y + dy * S * 0.26, cook.held, S * 0.2)
