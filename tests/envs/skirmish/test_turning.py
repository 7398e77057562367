"""Turning: 999.8437 degrees a second are 62.49 a loop, so that half a turn takes three loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numba import njit

from envs.skirmish import Skirmish, UnitView
from envs.skirmish.movement import turn_to
from marl.core.types import Obs
from tests.support.fights import EAST, FIRST_TARGET, WEST, act, ally, enemy, pacify, point_east

A_LOOP = 999.8437 / 16  # degrees


@njit
def turned(types, units, i, dx, dy):  # type: ignore[no-untyped-def]
    return turn_to(types[units[i].type], units[i], dx, dy)


def field(*units: UnitView) -> tuple[Skirmish, Obs]:
    """Return a battle of these units, which point east and whose enemies do nothing, and what its agents see."""
    env = Skirmish("3m", 1, seed=3)
    obs = env.place(list(units))
    pacify(env)
    point_east(env)
    return env, obs


@pytest.mark.parametrize(
    ("towards", "angles"),
    [
        (0.0, [0.0]),
        (60.0, [60.0]),  # less than a loop's turn
        (90.0, [A_LOOP, 90.0]),
        (-90.0, [-A_LOOP, -90.0]),  # the shorter way round
        (180.0, [A_LOOP, 2 * A_LOOP, 180.0]),
    ],
)
def test_a_body_turns_62_degrees_a_loop(towards: float, angles: list[float]) -> None:
    env, _ = field(ally("marine", 10, 16), enemy("marine", 25, 16))
    units = env._lanes.units[0]
    for k, expected in enumerate(angles):
        x, y = 5 * math.cos(math.radians(towards)), 5 * math.sin(math.radians(towards))
        assert turned(env._world.types, units, 0, x, y) == (k == len(angles) - 1)
        heading = math.degrees(math.atan2(units[0]["heading_y"], units[0]["heading_x"]))
        assert (heading - expected + 180) % 360 - 180 == pytest.approx(0.0, abs=1e-6)
        assert np.hypot(units[0]["heading_x"], units[0]["heading_y"]) == pytest.approx(1.0)


def test_nobody_walks_backwards() -> None:
    """From east to west a marine stands for one loop, at 62 degrees, and walks from the second on, at 125. Colossi
    point anywhere at once."""
    env, obs = field(ally("marine", 10, 12), ally("colossus", 10, 20), enemy("marine", 25, 16))
    env.step(act(env, obs, [EAST, EAST, EAST]))
    at = [env.units(0)[i].x for i in (0, 1)]
    env.step(act(env, obs, [WEST, WEST, WEST]))
    assert at[0] - env.units(0)[0].x == pytest.approx(7 * 2.25 / 16)
    assert at[1] - env.units(0)[1].x == pytest.approx(8 * 2.25 / 16)


def test_a_shot_waits_for_the_turn() -> None:
    """At an enemy in its back a marine fires two loops later. The period's noise, U(-1, 2), is a draw of each lane's:
    over 400 lanes four standard deviations of the difference of two means are 0.25."""
    left = []
    for x in (6, 14):
        env = Skirmish("3m", 400, seed=3)
        for lane in range(400):
            obs = env.place([ally("marine", 10, 16), enemy("marine", x, 16)], lane)
        pacify(env)
        point_east(env)
        env.step(torch.where(obs.avail[:, :, FIRST_TARGET], FIRST_TARGET, 0))
        assert {env.units(lane)[3].health for lane in range(400)} == {39}
        left.append(env._lanes.units["cooldown"][:, 0].mean())
    assert left[0] == pytest.approx(left[1] + 2, abs=0.25)


def test_both_sides_point_the_same_way_at_first() -> None:
    units = Skirmish("2s3z", 1)._world.template
    assert (units["heading_x"] == 0).all() and (units["heading_y"] == -1).all()
