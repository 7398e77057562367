"""Pictures of a battle show sides, wounds, shots, healing, beams, bursts, the dead and the walls."""

from __future__ import annotations

import numpy as np
import pytest

from envs.skirmish import Skirmish, render
from envs.skirmish.render import ALLY, DYING, EMPTY, ENEMY, FIRE, HEAL, HURT, SCALE, SHIELD, WALL, WELL
from tests.support.fights import FIRST_TARGET, STOP, act, ally, enemy, pacify

Colour = tuple[int, int, int]


def near(picture: np.ndarray, colour: Colour, tolerance: int = 25) -> np.ndarray:
    """Return bool [height, width]: where the picture has about that colour."""
    return (np.abs(picture.astype(int) - colour) <= tolerance).all(2)


def around(env: Skirmish, x: float, y: float, reach: float = 1.0) -> np.ndarray:
    """Return the square of a picture that shows a place of the map; the picture of a ``bar`` begins a row above y =
    24."""
    column, row, half = round(x * SCALE), round((25 - y) * SCALE), round(reach * SCALE)
    return env.render()[row - half : row + half, column - half : column + half]


def test_sides_have_their_colours() -> None:
    env = Skirmish("3m", 1)
    env.place([ally("marine", 10, 16), enemy("marine", 22, 12)])
    body = np.pi * (0.375 * SCALE) ** 2
    for x, y, own, other in ((10, 16, ALLY, ENEMY), (22, 12, ENEMY, ALLY)):
        square = around(env, x, y)
        assert 0.3 * body < near(square, own).sum() < body and near(square, other).sum() == 0
    assert near(env.render()[:20, 600:], WALL).mean() > 0.9


def test_agents_are_where_the_battle_says_they_are() -> None:
    env = Skirmish("3m", 1)
    env.place([ally("marine", 10, 16), ally("marine", 20.5, 12), ally("marine", 6, 14), enemy("marine", 28, 16)])
    places, picture = env.agent_places(), env.render()
    assert places.shape == (3, 3) and places[:, 2] == pytest.approx(0.375 * SCALE + 6)
    seen = near(picture, ALLY)[20:-20]
    for x, y, _ in places:
        body = np.argwhere(seen[round(y) - 32 : round(y) - 8, round(x) - 12 : round(x) + 12])
        assert body.min(0) + body.max(0) == pytest.approx([23, 23], abs=3), "the middle of the blue is the place"


@pytest.mark.parametrize(
    ("health", "shield", "colours"),
    [(100, 50, ()), (100, 25, (WELL, SHIELD)), (50, 0, (HURT,)), (20, 0, (DYING,)), (90, 0, (WELL,))],
)
def test_rings_show_what_is_left(health: float, shield: float, colours: tuple[Colour, ...]) -> None:
    env = Skirmish("2s3z", 1)
    env.place([ally("zealot", 10, 16, health=health, shield=shield), enemy("zealot", 25, 16)])
    square = around(env, 10, 16)
    for colour in (WELL, HURT, DYING, SHIELD):
        assert (near(square, colour).sum() > 15) == (colour in colours)
    assert (near(square, EMPTY, 10).sum() > 15) == bool(colours)


def test_a_ring_is_as_long_as_the_health_left() -> None:
    """Of 135 and 99 points, the green ring's pixels are in that ratio within what drawing allows."""
    seen = []
    for health in (135.0, 99.0):
        env = Skirmish("MMM", 1)
        env.place([ally("medivac", 10, 16, health=health), enemy("marine", 25, 16)])
        seen.append(near(around(env, 10, 16), WELL).sum())
    assert seen[0] / seen[1] == pytest.approx(135 / 99, rel=0.08)


def test_shots_of_the_last_step_are_bold() -> None:
    """A marine fires at once, then not in every step; a thin line to its target remains."""
    env = Skirmish("3m", 1)
    obs = env.place([ally("marine", 10, 16), enemy("marine", 15, 16)])
    pacify(env)
    bold = []
    for _ in range(2):
        obs = env.step(act(env, obs, [FIRST_TARGET] + [STOP] * 2)).next
        strip = env.render()[9 * SCALE - 3 : 9 * SCALE + 3, 11 * SCALE : 14 * SCALE]
        bold.append(near(strip, render.ALLY_SHOT, 40).any(0).mean())
    assert bold == [1.0, 0.0]  # a period is 14 loops, a step 8
    assert (np.ptp(strip.astype(int), 0).max(1) > 20).all(), "the thin line is there"


def test_healing_is_green() -> None:
    for patient, expected in ((100, True), (125, False)):
        env = Skirmish("MMM", 1)
        obs = env.place([ally("marauder", 10, 16, health=patient), *[ally("marine", 1, 9, health=0)] * 8,
                         ally("medivac", 10, 19, energy=50), enemy("marine", 30, 16)])  # fmt: skip
        pacify(env)
        wanted = FIRST_TARGET if expected else STOP
        env.step(act(env, obs, [STOP] * 9 + [wanted]))
        strip = env.render()[round(7.2 * SCALE) : round(7.7 * SCALE), 10 * SCALE - 4 : 10 * SCALE + 4]
        assert near(strip, HEAL, 40).any() == expected


def test_beams_and_bursts_glow() -> None:
    env = Skirmish("2c_vs_64zg", 1)
    obs = env.place([ally("colossus", 15, 16), enemy("zealot", 20, 16)])
    pacify(env)
    env.step(act(env, obs, [FIRST_TARGET, STOP]))
    beam = near(env.render(), FIRE, 40)
    rows, columns = np.nonzero(beam)
    assert np.ptp(rows) > 2 * SCALE and np.ptp(columns) < 2 * SCALE, "across the shot, 2.5 long"

    env = Skirmish("bane_vs_bane", 1)
    obs = env.place([ally("baneling", 16, 16), ally("baneling", 8, 16), enemy("zealot", 16.9, 16)])
    pacify(env)
    before = env.render()
    env.step(act(env, obs, [FIRST_TARGET] + [STOP] * 23))
    changed = (before != env.render()).any(2)
    assert changed.sum() > 0.8 * np.pi * (2.2 * SCALE) ** 2
    env.step(env._obs.avail.int().argmax(2))
    assert (before != env.render()).any(2).sum() < 0.5 * changed.sum(), "for one step"
