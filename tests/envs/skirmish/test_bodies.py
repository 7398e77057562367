"""Ways around standing bodies: hand-placed walls of zealots and stalkers, and the length of the way around them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit

from envs.skirmish import Skirmish, UnitView
from envs.skirmish.bodies import turn_around
from envs.skirmish.records import FIGHTING, MOVING
from envs.skirmish.units import TYPE_ID
from tests.support.fights import FIRST_TARGET, STOP, act, ally, enemy, pacify

ZEALOT = 0.375  # inner radius
LOOP = 2.25 / 16  # a zealot's way in one loop


@njit
def turn_of(rules, types, units, i, dx, dy, far, target):  # type: ignore[no-untyped-def]
    return turn_around(rules[0], types, units, i, dx, dy, far, target)


def battle(units: list[UnitView], **options: object) -> Skirmish:
    env = Skirmish("3s5z", 1, **options)
    env.place(units)
    pacify(env)
    return env


def turn(env: Skirmish, dx: float, dy: float, far: float, target: int = -1) -> float:
    """Return the turn of unit 0 on its way (dx, dy) of length ``far``."""
    world = env._world
    return turn_of(world.rules, world.types, env._lanes.units[0], 0, dx, dy, far, target)


def chase(env: Skirmish, target: int, steps: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Let agent 0 attack enemy ``target`` while the others keep their orders. Return its x and y by step, and the step
    in which it fights (0: never)."""
    obs, xs, ys = env.observe(), [], []
    for step in range(steps):
        targets = env._lanes.units[0]["target"][:8]
        others = [STOP if t < 0 else FIRST_TARGET + int(t) - 8 for t in targets]
        obs = env.step(act(env, obs, [FIRST_TARGET + target, *others[1:]])).next
        unit = env._lanes.units[0][0]
        xs.append(float(unit["x"]))
        ys.append(float(unit["y"]))
        if unit["pose"] == FIGHTING:
            return np.array(xs), np.array(ys), step + 1
    return np.array(xs), np.array(ys), 0


def test_tangent_of_one_body() -> None:
    """A zealot 2 ahead, a bit to the left: the right tangent is asin(0.75 / distance) from its centre's direction."""
    env = battle([ally("zealot", 10, 16), enemy("zealot", 12, 16.1)])
    env._lanes.units[0]["turn"][0] = -1
    distance, bearing = math.hypot(2, 0.1), math.atan2(0.1, 2)
    right = bearing - math.asin(2 * ZEALOT / distance)
    assert turn(env, 5.0, 0.0, 5.0) == pytest.approx(right - 0.02)


def test_open_ways_need_no_turn() -> None:
    """Beside the way, behind, beyond the goal, out of reach of the mover, walking, dead, or in the air."""
    zealot = ally("zealot", 10, 16)
    for other in (
        enemy("zealot", 12, 16.76), enemy("zealot", 8, 16), enemy("zealot", 13.8, 16), enemy("zealot", 16, 16),
        enemy("zealot", 12, 16, health=0.0), enemy("medivac", 12, 16),
    ):  # fmt: skip
        assert turn(battle([zealot, other]), 3.0, 0.0, 3.0) == 0.0, other
    walking = battle([zealot, enemy("zealot", 12, 16)])
    walking._lanes.units[0]["pose"][8] = MOVING
    assert turn(walking, 3.0, 0.0, 3.0) == 0.0


def test_whom_one_attacks_is_no_obstacle() -> None:
    env = battle([ally("zealot", 10, 16), enemy("zealot", 12, 16)])
    assert turn(env, 2.0, 0.0, 2.0, target=8) == 0.0
    assert turn(env, 2.0, 0.0, 2.0) != 0.0


def test_a_wall_is_passed_at_its_nearer_end() -> None:
    """Gaps of 0.4 between bodies are too narrow for a zealot's 0.75: four make one wall; gaps of 0.8 are open."""
    wall = [enemy("zealot", 12, y) for y in (15.2, 16.35, 17.5, 18.65)]
    env = battle([ally("zealot", 10, 16), *wall])
    low = math.atan2(-0.8, 2) - math.asin(2 * ZEALOT / math.hypot(2, 0.8))
    assert turn(env, 5.0, 0.0, 5.0) == pytest.approx(low - 0.02)
    open_wall = [enemy("zealot", 12, y) for y in (14.45, 16.0, 17.55)]
    env = battle([ally("zealot", 10, 16), *open_wall])
    assert abs(turn(env, 5.0, 0.0, 5.0)) == pytest.approx(math.asin(2 * ZEALOT / 2) + 0.02)


def test_the_side_taken_is_kept_until_the_other_is_clearly_shorter() -> None:
    wall = [enemy("zealot", 12, y) for y in (15.0, 16.0, 17.2)]
    env = battle([ally("zealot", 10, 16), *wall])  # the right end is a little nearer
    for side in (1, -1):
        env._lanes.units[0]["turn"][0] = side
        assert np.sign(turn(env, 5.0, 0.0, 5.0)) == side
    far_end = [enemy("zealot", 12, y) for y in (15.0, 16.0, 17.0, 18.0, 19.0, 20.0)]
    env = battle([ally("zealot", 10, 16), *far_end])
    env._lanes.units[0]["turn"][0] = 1
    assert turn(env, 5.0, 0.0, 5.0) < 0.0


def test_encircled_units_have_no_way() -> None:
    ring = [enemy("zealot", 10 + math.cos(a), 16 + math.sin(a)) for a in np.arange(8) * math.pi / 4]
    env = battle([ally("zealot", 10, 16), *ring])
    assert turn(env, 5.0, 0.0, 5.0) == 0.0


def test_a_zealot_walks_around_opponents_to_its_target() -> None:
    """It never overlaps the wall, and needs hardly longer than the way along the tangents takes."""
    wall = [enemy("zealot", 12, y) for y in (15.0, 16.0, 17.2)]
    env = battle([ally("zealot", 10, 16), *wall, enemy("stalker", 15, 16)])
    gaps, obs = [], env.observe()
    for _ in range(8):
        obs = env.step(act(env, obs, [FIRST_TARGET + 3] + [STOP] * 7)).next
        units = env._lanes.units[0]
        gaps.append(np.hypot(units["x"][8:11] - units["x"][0], units["y"][8:11] - units["y"][0]).min())
        if units["pose"][0] == FIGHTING:
            break
    corner = math.hypot(2, 1 + 2 * ZEALOT) + math.hypot(3, 1 + 2 * ZEALOT) - 0.1 - 0.5 - 0.625
    assert units["pose"][0] == FIGHTING and len(gaps) * 8 <= corner / LOOP + 8
    assert min(gaps) >= 2 * ZEALOT - 1e-9
    assert units["type"][11] == TYPE_ID["stalker"] and units["shield"][11] < 80


@pytest.mark.parametrize("blocked", [False, True])
def test_friends_that_fight_are_passed_or_walked_around(blocked: bool) -> None:
    shooters = [ally("stalker", 12, y) for y in (15, 16, 17)]
    env = battle(
        [ally("zealot", 10, 16), *shooters, enemy("zealot", 15.5, 16), enemy("zealot", 17.5, 16)],
        friends_block=blocked,
    )
    env.step(act(env, env.observe(), [STOP] + [FIRST_TARGET + 1] * 3 + [STOP] * 4))
    assert (env._lanes.units[0]["pose"][1:4] == FIGHTING).all()
    _, ys, arrived = chase(env, 0, 12)
    assert arrived
    assert (np.abs(ys - 16).max() > 0.8) == blocked
