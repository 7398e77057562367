"""Top-down pictures of a match, drawn with Pillow at twice the size and then scaled down, which smooths them."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from envs.adapters.football.scene import Scene

UNIT, MARGIN, BAR, FINE = 230, 26, 20, 2  # pixels per half length, around the pitch, of the caption; supersampling
PITCH_Y, GOAL_Y = 0.42, 0.044  # half the width of the pitch, and of a goal
BOX_X, BOX_Y = 0.69, 0.24  # where the penalty area begins, and half its width
GRASS, DARK, LINE = (86, 152, 84), (78, 142, 77), (214, 232, 210)
OURS, MATES, THEIRS, BALL = (41, 98, 190), (140, 172, 220), (205, 60, 50), (250, 250, 250)
INK, GRAY, WHITE, GOLD = (25, 25, 25), (70, 70, 76), (255, 255, 255), (240, 196, 60)
Point = tuple[float, float]
Colour = tuple[int, int, int]


def draw(scene: Scene, caption: str) -> np.ndarray:
    """Draw the pitch, our players (those that agents control with the agents' numbers), the opponents and the ball,
    which grows with its height, and ``caption`` below: uint8 [height, width, 3]. The player with the ball gets a golden
    ring."""
    wide, high = 2 * (UNIT + MARGIN), round(2 * (PITCH_Y * UNIT + MARGIN))
    image = Image.new("RGB", (FINE * wide, FINE * (high + BAR)), GRAY)
    pen = ImageDraw.Draw(image)
    _draw_pitch(pen, FINE * wide, FINE * high)
    agents = {player: str(agent) for agent, player in enumerate(scene.controlled)}
    for k, player in enumerate(scene.right):
        _draw_player(pen, player, THEIRS, "", scene.owner_team == 1 and scene.owner == k)
    for k, player in enumerate(scene.left):
        has_ball = scene.owner_team == 0 and scene.owner == k
        _draw_player(pen, player, OURS if k in agents else MATES, agents.get(k, ""), has_ball)
    x, y = _at(scene.ball[0], scene.ball[1])
    _disc(pen, x, y, FINE * (3.5 + min(max(scene.ball[2], 0.0), 10.0) / 2.5), BALL)
    _write(pen, 6 * FINE, FINE * (high + 2), caption, 13)
    return np.array(image.resize((wide, high + BAR), Image.Resampling.LANCZOS))


def _at(x: float, y: float) -> Point:
    return FINE * (MARGIN + UNIT * (1 + x)), FINE * (MARGIN + UNIT * (PITCH_Y + y))


def _draw_pitch(pen: ImageDraw.ImageDraw, wide: int, high: int) -> None:
    pen.rectangle((0, 0, wide, high), fill=DARK)
    for stripe in range(0, 10, 2):
        pen.rectangle((*_at(-1 + stripe / 5, -PITCH_Y), *_at(-1 + (stripe + 1) / 5, PITCH_Y)), fill=GRASS)
    pen.rectangle((*_at(-1, -PITCH_Y), *_at(1, PITCH_Y)), outline=LINE, width=FINE)
    pen.line((*_at(0, -PITCH_Y), *_at(0, PITCH_Y)), fill=LINE, width=FINE)
    pen.ellipse((*_at(-0.16, -0.16), *_at(0.16, 0.16)), outline=LINE, width=FINE)
    for side in (-1, 1):
        for inner, half in ((BOX_X, BOX_Y), (1.0, GOAL_Y)):
            outer = side * (1.0 if inner < 1 else 1.05)
            left, right = sorted((side * inner, outer))
            pen.rectangle((*_at(left, -half), *_at(right, half)), outline=LINE if inner < 1 else WHITE, width=FINE)


def _draw_player(pen: ImageDraw.ImageDraw, player: np.ndarray, fill: Colour, number: str, has_ball: bool) -> None:
    x, y = _at(player[0], player[1])
    if has_ball:
        _disc(pen, x, y, 10 * FINE, GOLD)
    _disc(pen, x, y, 7 * FINE, fill)
    if number:
        _write(pen, x - (3.2 * len(number)) * FINE, y - 7 * FINE, number, 10)


def _disc(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, fill: Colour) -> None:
    pen.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=INK, width=FINE)


def _write(pen: ImageDraw.ImageDraw, x: float, y: float, text: str, size: int) -> None:
    pen.text((x, y), text, fill=WHITE, font=ImageFont.load_default(size * FINE))
