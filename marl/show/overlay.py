"""Who is under attack, drawn onto frames: rings around the agents that are hit and a line that says what happened.

``t=12 hit: agent 3 (north -> stop)``: it wanted to go north and was made to stop. No arrow: it acts as it intended, on
what it was shown.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from marl.core.protocols import Locating, VectorEnv
from marl.run.collect import Moment

LEAST_WIDTH = 360  # pixels; narrower frames are widened to hold the text
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


def mark(frame: np.ndarray, env: VectorEnv, moment: Moment | None, lane: int = 0) -> np.ndarray:
    """Draw the attack on ``frame`` uint8 [height, width, 3] of a lane; all frames of a film get the same size.

    With ``moment`` None, after the last step, nobody is attacked any more.
    """
    picture = Image.fromarray(frame)
    width, height = max(LEAST_WIDTH, picture.width), picture.height
    image = Image.new("RGB", (width, height + LINES * LINE_HEIGHT + 4), PAPER)
    image.paste(picture, ((width - picture.width) // 2, 0))
    if moment is None:
        return np.asarray(image)
    pen = ImageDraw.Draw(image)
    if isinstance(env, Locating):
        places = env.agent_places(lane)
        left = (width - picture.width) // 2
        for agent in moment.hit[lane].nonzero().flatten().tolist():
            x, y, radius = places[agent] + (left, 0, RING)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=ALARM, width=RING)
    pieces = describe(moment, lane)
    pieces[:1] = [f"t={moment.t} hit: {pieces[0]}"] if pieces else [f"t={moment.t}"]
    for row, text in enumerate(_lines(pen, pieces, width - 12)):
        colour = ALARM if moment.hit[lane].any() else INK
        pen.text((6, height + 2 + row * LINE_HEIGHT), text, fill=colour, font_size=FONT)
    return np.asarray(image)


def _lines(pen: ImageDraw.ImageDraw, pieces: list[str], width: int) -> list[str]:
    """Set the pieces in lines of at most ``width`` pixels, and count those that do not fit into ``LINES`` lines."""
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
