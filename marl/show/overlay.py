"""The text below every frame of a recording: the step and the return so far; and, under attack, rings around the agents
that are hit and what was done to them.

``hit: agent 3 (north -> stop)``: it wanted to go north and was made to stop. No arrow: it acts as it intended, given
what it was shown.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from marl.core.protocols import Locating, VectorEnv
from marl.run.collect import Moment

LEAST_WIDTH = 360  # pixels; narrower frames are widened to hold the text
LEAST_PICTURE = 240  # pixels; narrower frames are enlarged, by a whole number
LINES, LINE_HEIGHT, FONT = 2, 18, 13
PAPER, INK, ALARM = (255, 255, 255), (25, 25, 25), (230, 0, 160)
RING = 3  # pixels


def describe(moment: Moment, lane: int = 0) -> list[str]:
    """Return one piece of text per agent that is hit."""
    names = moment.env.spec.action_names
    pieces = []
    for agent in moment.hit[lane].nonzero().flatten().tolist():
        actions = [int(chosen[lane, agent]) for chosen in (moment.intended, moment.executed)]
        wanted, done = (names[action] if names else str(action) for action in actions)
        pieces.append(f"agent {agent}" if wanted == done else f"agent {agent} ({wanted} -> {done})")
    return pieces


def status(t: int, limit: int, earned: float) -> str:
    """Return the line of a step: ``step 12 of 60   return 3.5``."""
    return f"step {t} of {limit}   return {earned:.4g}"


def mark(
    frame: np.ndarray, env: VectorEnv, moment: Moment | None, text: str, *, attacked: bool, lane: int = 0
) -> np.ndarray:
    """Write ``text`` below ``frame`` uint8 [height, width, 3] of a lane, and draw the attack if there is one; all
    frames of a recording get the same size.

    With ``moment`` None, after the last step, nobody is attacked any more.
    """
    zoom = -(-LEAST_PICTURE // frame.shape[1])
    picture = Image.fromarray(frame.repeat(zoom, 0).repeat(zoom, 1))
    width, height = max(LEAST_WIDTH, picture.width), picture.height
    rows = 1 + LINES * attacked
    image = Image.new("RGB", (width, height + rows * LINE_HEIGHT + 4), PAPER)
    left = (width - picture.width) // 2
    image.paste(picture, (left, 0))
    pen = ImageDraw.Draw(image)
    pen.text((6, height + 2), text, fill=INK, font_size=FONT)
    if moment is None or not moment.hit[lane].any():
        return np.asarray(image)
    if isinstance(env, Locating):
        for agent in moment.hit[lane].nonzero().flatten().tolist():
            x, y, radius = env.agent_places(lane)[agent] * zoom + (left, 0, RING)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=ALARM, width=RING)
    pieces = describe(moment, lane)
    pieces[:1] = [f"hit: {pieces[0]}"]
    for row, words in enumerate(_lines(pen, pieces, width - 12), 1):
        pen.text((6, height + 2 + row * LINE_HEIGHT), words, fill=ALARM, font_size=FONT)
    return np.asarray(image)


def _lines(pen: ImageDraw.ImageDraw, pieces: list[str], width: int) -> list[str]:
    """Arrange the pieces in lines of at most ``width`` pixels, and count those that do not fit into ``LINES`` lines."""
    lines = [pieces[0]]
    for done, piece in enumerate(pieces[1:], 1):
        more = f", and {len(pieces) - done} more"
        longer = f"{lines[-1]}, {piece}"
        spare = more if len(lines) == LINES and done + 1 < len(pieces) else ","
        if pen.textlength(longer + spare, font_size=FONT) <= width:
            lines[-1] = longer
        elif len(lines) < LINES:
            lines[-1] += ","
            lines.append(piece)
        else:
            lines[-1] += more
            break
    return lines
