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


def picture(env: Skirmish) -> np.ndarray:
    """Draw the whole map, on which a map unit is ``SCALE`` pixels."""
    units, n = env._lanes.units[0], env.spec.n_agents
    return render.draw(units, env._world, n, "", render.whole(env._world))


def around(env: Skirmish, x: float, y: float, reach: float = 1.0) -> np.ndarray:
    """Return the square of a picture that shows a place of the map; the picture of a ``bar`` begins a row above y =
    24."""
    column, row, half = round(x * SCALE), round((25 - y) * SCALE), round(reach * SCALE)
    return picture(env)[row - half : row + half, column - half : column + half]


def test_sides_have_their_colours() -> None:
    env = Skirmish("3m", 1)
    env.place([ally("marine", 10, 16), enemy("marine", 22, 12)])
    body = np.pi * (0.375 * SCALE) ** 2
    for x, y, own, other in ((10, 16, ALLY, ENEMY), (22, 12, ENEMY, ALLY)):
        square = around(env, x, y)
        assert 0.3 * body < near(square, own).sum() < body and near(square, other).sum() == 0
    assert near(picture(env)[:20, 600:], WALL).mean() > 0.9


def test_agents_are_where_the_battle_says_they_are() -> None:
    env = Skirmish("3m", 1)
    env.place([ally("marine", 10, 16), ally("marine", 20.5, 12), ally("marine", 6, 14), enemy("marine", 28, 16)])
    places, shown = env.agent_places(), env.render()
    zoom = 32 / 28  # the four units, 22 apart, and twice 2.5 around them, in steps of 4
    assert places.shape == (3, 3) and places[:, 2] == pytest.approx(zoom * 0.375 * SCALE)
    seen = near(shown, ALLY)[20:-20]
    for x, y, _ in places:
        body = np.argwhere(seen[round(y) - 32 : round(y) - 8, round(x) - 12 : round(x) + 12])
        assert body.min(0) + body.max(0) == pytest.approx([23, 23], abs=3), "the middle of the blue is the place"


def test_the_camera_shows_all_units_and_little_else() -> None:
    env = Skirmish("3m", 1)
    units, world = env._lanes.units[0], env._world

    def seen(ours: tuple[float, float, float], theirs: tuple[float, float]) -> render.View:
        env.place([ally("marine", *ours[:2], health=ours[2]), enemy("marine", *theirs)])
        for other in (1, 2, 4, 5):  # who has no part stands on the enemy
            units["x"][other], units["y"][other] = theirs
        return render.camera(units, world)

    near_by = seen((14, 16, 45), (17, 16))
    assert (near_by.left, near_by.width) == (8, 16), "the narrowest; the middle at 15.5 asks for 7.5, steps are 2"
    wide = seen((6, 16, 45), (26, 12))
    assert (wide.left, wide.width) == (2, 28) and wide.top <= 32 - 16 <= 32 - 12 <= wide.top + wide.height
    assert seen((6, 16, 0), (26, 12)) == wide, "a death does not move it"
    assert seen((1, 16, 45), (31.5, 16)) == render.whole(world)
    assert env.render().shape == picture(env).shape, "every frame has one size"


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
        strip = picture(env)[9 * SCALE - 3 : 9 * SCALE + 3, 11 * SCALE : 14 * SCALE]
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
        strip = picture(env)[round(7.2 * SCALE) : round(7.7 * SCALE), 10 * SCALE - 4 : 10 * SCALE + 4]
        assert near(strip, HEAL, 40).any() == expected


def test_beams_and_bursts_glow() -> None:
    env = Skirmish("2c_vs_64zg", 1)
    obs = env.place([ally("colossus", 15, 16), enemy("zealot", 20, 16)])
    pacify(env)
    env.step(act(env, obs, [FIRST_TARGET, STOP]))
    beam = near(picture(env), FIRE, 40)
    rows, columns = np.nonzero(beam)
    assert np.ptp(rows) > 2 * SCALE and np.ptp(columns) < 2 * SCALE, "across the shot, 2.5 long"

    env = Skirmish("bane_vs_bane", 1)
    obs = env.place([ally("baneling", 16, 16), ally("baneling", 8, 16), enemy("zealot", 16.9, 16)])
    pacify(env)
    before = picture(env)
    env.step(act(env, obs, [FIRST_TARGET] + [STOP] * 23))
    changed = (before != picture(env)).any(2)
    assert changed.sum() > 0.8 * np.pi * (2.2 * SCALE) ** 2
    env.step(env._obs.avail.int().argmax(2))
    assert (before != picture(env)).any(2).sum() < 0.5 * changed.sum(), "for one step"
