"""Well-known facts about these battles, tested on fights played through ``step``; numbers are worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch

from envs.skirmish import Skirmish, UnitView
from envs.skirmish.records import ATTACK_MOVE
from marl.core.types import ConfigError
from tests.support.fights import (
    EAST,
    FIRST_TARGET,
    STOP,
    act,
    ally,
    attack_nearest,
    enemy,
    focus,
    pacify,
    spread,
    win_rate,
)  # fmt: skip

LANES = 1000


def mirror_match(name: str, turned: bool, **options: float) -> tuple[int, int]:
    """Count battles won and lost by the west, both sides under the enemy's script; those that leave nobody do not
    count.

    The west is the east's mirror image, or its line-up turned by 180 degrees, and walks where the east starts.
    """
    env = Skirmish(name, LANES, seed=1, **options)
    n, template = env.spec.n_agents, env._world.template
    template[:n] = template[n:]
    template["x"][:n], template["facing_x"][:n] = 32 - template["x"][n:], -template["facing_x"][n:]
    if turned:
        template["y"][:n] = 32 - template["y"][n:]
    template["scripted"], template["order"] = 1, ATTACK_MOVE
    env.reset()
    units = env._lanes.units
    units["goal_x"][:, :n] = 32 - units["goal_x"][:, n:]
    units["goal_y"][:, :n] = 32 - units["goal_y"][:, n:] if turned else units["goal_y"][:, n:]
    won = lost = 0
    for _ in range(env.spec.episode_limit):
        step = env.step(env._obs.avail.int().argmax(2))
        beaten = step.terminated & ~step.info["won"] & (step.info["dead_enemies"] < len(template) - n)
        won, lost = won + int(step.info["won"].sum()), lost + int(beaten.sum())
    return won, lost


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", ["3m", "8m", "25m", "2s3z", "3s5z", "MMM", "1c3s5z"])
def test_both_sides_alike_come_out_even(name: str, turned: bool) -> None:
    """The share of wins is a coin's, within 3.5 standard errors (5.5 points): chance alone fails one table in 150."""
    won, lost = mirror_match(name, turned)
    assert won + lost > 0.85 * LANES
    assert abs(won / (won + lost) - 0.5) < 3.5 * 0.5 / np.sqrt(won + lost)


def test_a_small_advantage_is_noticed() -> None:
    """That test would see agents who start with nine tenths of their health."""
    won, lost = mirror_match("8m", False, ally_health=0.9)
    assert won / (won + lost) < 0.5 - 3.5 * 0.5 / np.sqrt(won + lost)


def losses(env: Skirmish, orders: Sequence[int], steps: int) -> list[float]:
    """Return what the first enemy loses, health and shields, in each step that hurts it, while agents follow
    ``orders``."""
    n, left = env.spec.n_agents, []
    for _ in range(steps):
        obs = env.observe()
        left.append(env.units(0)[n].health + env.units(0)[n].shield)
        if left[-1] == 0:
            break
        env.step(act(env, obs, orders))
    return [before - after for before, after in pairwise(left) if after < before]


def test_a_marine_kills_a_zealot_with_29_shots() -> None:
    """50 shields take eight 6s and the 2 that are left, of whose shot 4 less 1 of armour go on; 97 / 5 is 20 shots."""
    env = Skirmish("2s3z", 1)
    env.place([ally("marine", 10, 16), enemy("zealot", 13, 16)])
    pacify(env)
    shots = losses(env, [FIRST_TARGET] + [0] * 4, 80)
    assert shots == [6] * 8 + [5] * 20 + [2] and len(shots) == 29


def test_a_zealot_kills_a_marine_with_three_swings_of_two() -> None:
    """45 by 8; the third swing begins 2 x (19.2 - 1 to 2) loops after the first, its second blow falls 4.5 later."""
    env = Skirmish("2s3z", 64)
    for lane in range(64):
        env.place([ally("zealot", 10, 16), enemy("marine", 10.9, 16)], lane)
    pacify(env)
    health, steps = [], torch.zeros(64)
    for _ in range(10):
        health.append(env._lanes.units["health"][:, 5].copy())
        steps += torch.from_numpy(health[-1] > 0)
        obs = env.observe()
        env.step(torch.where(obs.avail[:, :, FIRST_TARGET], FIRST_TARGET, 0))
    assert set(np.unique(health)) <= {45.0, 37.0, 29.0, 21.0, 13.0, 5.0, 0.0} and (health[-1] == 0).all()
    assert 6 <= steps.min() and steps.max() <= 7  # 42 to 50 loops


@pytest.mark.parametrize(("marines", "first", "last"), [(1, 12, 15), (2, 6, 7), (3, 4, 5)])
def test_more_marines_need_fewer_volleys(marines: int, first: int, last: int) -> None:
    """Eight hits are 8, 4 or 3 volleys: 7, 3 or 2 periods of 12.77 to 15.77 loops, rounded up, after the first."""
    env = Skirmish("3m", 64)
    for lane in range(64):
        env.place([*(ally("marine", 10, 15 + k) for k in range(marines)), enemy("marine", 14, 16)], lane)
    pacify(env)
    steps = torch.zeros(64)
    for _ in range(20):
        steps += torch.from_numpy(env._lanes.units["health"][:, 3] > 0)
        obs = env.observe()
        env.step(torch.where(obs.avail[:, :, FIRST_TARGET], FIRST_TARGET, 0))
    assert first <= steps.min() and steps.max() <= last


def test_a_stalker_outruns_a_zealot() -> None:
    """It gains (2.9531 - 2.25) / 2 a step, and is never hit; a marine is as fast as the zealot and gains nothing."""
    for runner, gain in (("stalker", (2.9531 - 2.25) / 2), ("marine", 0.0)):
        env = Skirmish("2s3z", 1)
        env.place([ally(runner, 14, 16), enemy("zealot", 11, 16)])
        gaps = []
        for _ in range(9):
            env.step(act(env, env.observe(), [EAST] + [0] * 4))
            fled, zealot = env.units(0)[0], env.units(0)[5]
            gaps.append(fled.x - zealot.x)
        np.testing.assert_allclose(np.diff(gaps), gain, atol=1e-3)
        assert fled.health + fled.shield == {"stalker": 160, "marine": 45}[runner]


def test_focus_fire_beats_spreading() -> None:
    """Three on one take a shooter away after three volleys. Spreading is worse even than shooting at the nearest."""
    together, apart = win_rate(Skirmish("3m", 400), focus), win_rate(Skirmish("3m", 400), spread)
    assert together > apart + 0.3 and apart < win_rate(Skirmish("3m", 400), attack_nearest)


def test_focus_fire_by_hand() -> None:
    """At three who do not shoot back, 11 steps are 6 or 7 volleys: eight hits each have killed two when all shoot at
    one, and nobody when everybody has a target: six or seven hits leave 9 or 3."""
    left = {}
    for script in (focus, spread):
        env = Skirmish("3m", 1)
        env.place([*(ally("marine", 12, 15 + k) for k in range(3)), *(enemy("marine", 16, 15 + k) for k in range(3))])
        pacify(env)
        for _ in range(11):
            env.step(script(env, env.observe()))
        left[script] = [unit.health for unit in env.units(0)[3:]]
    assert left[focus][:2] == [0, 0] and left[focus][2] >= 45 - 6 * 5  # at most 21 shots, of which 16 killed
    assert all(health in (9, 3) for health in left[spread])


@pytest.mark.parametrize("name", ["2s3y", "3n", "27m_vs_30"])
def test_an_unknown_map_names_its_neighbours(name: str) -> None:
    wanted = {"2s3y": "2s3z", "3n": "3m", "27m_vs_30": "27m_vs_30m"}[name]
    with pytest.raises(ConfigError, match=f"map '{name}' is unknown; did you mean .*{wanted}"):
        Skirmish(name, 1)


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ([ally("marine", 10, 16)] * 4, "3 against 3"),
        ([enemy("marine", 10, 16)] * 4, "3m has room for"),
        ([UnitView("ally", "ghost", 10, 16, 100)], "ghost"),
        ([UnitView("neutral", "marine", 10, 16, 45)], "neutral"),
    ],
)
def test_units_that_do_not_fit_are_refused(units: list, said: str) -> None:
    env = Skirmish("3m", 1)
    env.reset()
    with pytest.raises(ConfigError, match=said):
        env.place(units)


def test_the_second_agent_of_the_third_lane_is_named() -> None:
    """An unavailable action names lane, agent, action and what was open, in a large battle with dead agents too."""
    env = Skirmish("2s3z", 4)
    env.reset()
    env.place([ally("stalker", 16, 16), ally("stalker", 1, 9, health=0), enemy("zealot", 19, 16)], lane=2)
    actions = env.observe().avail.int().argmax(2)
    actions[2, 1] = STOP
    with pytest.raises(ValueError, match=r"lane 2, agent 1: action 1 .*not available; available are 0 \(no-op\)"):
        env.step(actions)
    actions[2] = torch.tensor([FIRST_TARGET + 1, 0, 0, 0, 0])
    with pytest.raises(
        ValueError, match=r"lane 2, agent 0: action 7 .*not available; available are 1 \(stop\), .*6 \(.*\)"
    ):
        env.step(actions)
