"""The environment around the battle: contract, rewards, endings, options, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
import yaml

from envs.base import check_env
from envs.skirmish import Skirmish
from envs.skirmish.options import Options
from envs.skirmish.physics import VERSION
from marl.core.types import ConfigError
from tests.support.fights import FIRST_TARGET, STOP, act, ally, attack_nearest, enemy, pacify, uniform_actions


@pytest.mark.parametrize("name", ["3m", "2s3z", "MMM", "1c3s5z", "bane_vs_bane", "corridor", "2c_vs_64zg"])
def test_contract(name: str) -> None:
    check_env(lambda lanes, seed: Skirmish(name, lanes, seed=seed), steps=60 if name != "3m" else 130)


def test_threads_do_not_matter() -> None:
    """The same lanes with one thread and with two, bit for bit."""
    played = []
    before = numba.get_num_threads()
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core only")
    for threads in (1, 2):
        numba.set_num_threads(threads)
        env, counter = Skirmish("2s3z", 33, seed=5), np.zeros(1, np.uint64)
        env.reset()
        for _ in range(60):
            step = env.step(uniform_actions(env, counter))
        played.append((step.next.obs.clone(), step.next.state.clone(), step.reward.clone()))
    numba.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*played, strict=True))


def test_flawless_win_returns_twenty() -> None:
    """Dense and death modes differ in what they pay on the way; nothing is lost, nothing regenerates."""
    for name in ("3m", "8m"):
        env = Skirmish(name, 4)
        obs = env.reset()
        pacify(env)
        total, won = torch.zeros(4), torch.zeros(4, dtype=torch.bool)
        for _ in range(env.spec.episode_limit):
            step = env.step(attack_nearest(env, obs))
            total, won, obs = total + step.reward, won | step.info["won"], step.next
        assert won.all()
        torch.testing.assert_close(total, torch.full((4,), 20.0))


def one_kill(reward: str, **options: Any) -> float:
    """Return the reward of a step in which one of two enemy marines dies of 6 damage and the agents lose nothing."""
    env = Skirmish("3m", 1, reward=reward, **options)
    env.reset()
    obs = env.place([ally("marine", 10, 16), enemy("marine", 13, 16, health=5), enemy("marine", 30, 16)])
    pacify(env)
    return env.step(act(env, obs, [FIRST_TARGET, STOP, STOP])).reward.item()


def test_reward_modes() -> None:
    """5 health and a kill (10) of max_reward 30 + 200 + 3 x 45 = 365; scaled so that 365 is 20."""
    scale = 20 / 365
    assert one_kill("dense") == pytest.approx(15 * scale)
    assert one_kill("dense", reward_scale=False) == pytest.approx(15)
    assert one_kill("dense_signed") == pytest.approx(15 * scale)
    assert one_kill("death") == pytest.approx(10 * scale)
    assert one_kill("win_loss") == 0


def last_stand(reward: str, **options: Any) -> tuple[float, bool, bool]:
    """Return reward, terminated and won of the step in which the last agent dies; it had 5 health."""
    env = Skirmish("3m", 1, reward=reward, **options)
    env.reset()
    obs = env.place([ally("marine", 10, 16, health=5), enemy("marine", 13, 16)])
    step = env.step(act(env, obs, [STOP] * 3))
    return step.reward.item(), bool(step.terminated), bool(step.info["won"])


def test_defeat() -> None:
    scale = 20 / 365
    assert last_stand("dense") == (0.0, True, False)
    assert last_stand("dense_signed") == (pytest.approx(-(0.5 * 5 + 5) * scale), True, False)
    assert last_stand("death") == (pytest.approx(-5 * scale), True, False)
    assert last_stand("win_loss", reward_scale=False) == (-1.0, True, False)
    assert last_stand("win_loss") == (pytest.approx(-scale), True, False)


def test_regeneration_pays_in_version_one() -> None:
    """The published absolute value: the enemy's shields grow by 1 and the team is paid 1."""
    for absolute, expected in ((True, 1.0), (False, 0.0)):
        env = Skirmish("2s3z", 1, abs_reward=absolute, reward_scale=False)
        env.reset()
        obs = env.place([ally("stalker", 5, 10), enemy("zealot", 25, 16, shield=20)])
        pacify(env)
        assert env.step(act(env, obs, [STOP] * 5)).reward.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("allies", "enemies", "terminated", "won"),
    [
        (["marine"], ["marine"], False, False),
        (["marine"], [], True, True),
        ([], ["marine"], True, False),
        (["medivac"], ["marine"], True, False),  # Medivacs alone have lost
        (["marine"], ["medivac"], True, True),
        (["medivac"], ["medivac"], True, False),
        ([], [], True, False),
    ],
)
def test_endings(allies: list[str], enemies: list[str], terminated: bool, won: bool) -> None:
    env = Skirmish("MMM", 1)
    env.reset()
    obs = env.place([*(ally(kind, 5, 16) for kind in allies), *(enemy(kind, 28, 16) for kind in enemies)])
    pacify(env)
    step = env.step(act(env, obs, [STOP] * 10))
    assert (bool(step.terminated), bool(step.truncated), bool(step.info["won"])) == (terminated, False, won)


@pytest.mark.parametrize("terminal", [False, True])
def test_timeout(terminal: bool) -> None:
    """Time-outs are truncations unless they are asked to be terminal; the last observation is the real one."""
    env = Skirmish("3m", 2, timeout_is_terminal=terminal)
    env.reset()
    pacify(env)
    for t in range(60):
        step = env.step(torch.full((2, 3), STOP))
        assert bool((step.terminated | step.truncated).any()) == (t == 59)
    assert step.terminated.all() == terminal and step.truncated.all() != terminal
    assert step.next.alive.all() and step.next.avail[..., 1].all() and not step.info["won"].any()
    assert step.info["dead_allies"].tolist() == [0, 0]
    step = env.step(torch.zeros(2, 3, dtype=torch.long))
    assert not (step.terminated | step.truncated).any() and not step.next.alive.any()


def test_refusal_changes_nothing_and_says_what_was_open() -> None:
    env = Skirmish("3m", 3)
    env.reset()
    units = env._lanes.units.copy()
    with pytest.raises(ValueError, match=r"lane 2, agent 1: action 6 is not available; available are 1 \(stop\)"):
        env.step(torch.tensor([[1, 1, 1], [1, 1, 1], [1, 6, 1]]))
    with pytest.raises(ValueError, match="lane 0, agent 0: action 0"):
        env.step(torch.zeros(3, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"expected int64 \[3, 3\]"):
        env.step(torch.ones(3, 2, dtype=torch.long))
    assert (env._lanes.units == units).all() and (env._lanes.lanes["t"] == 0).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"map": "2s3y"}, "2s3z"),
        ({"map": "mmm"}, "MMM"),
        ({"n_envs": 0}, "n_envs"),
        ({"reward": "sparse"}, "dense, dense_signed, death, win_loss"),
        ({"ally_health": 0.0}, "ally_health"),
        ({"spawn_jitter": -1.0}, "spawn_jitter"),
        ({"terrain": "moon"}, "octagon"),
        ({"absent_agents": 3}, r"absent_agents=3 must be within \[0, 2\], on this map"),
        ({"prob_obs_enemy": 1.5}, "prob_obs_enemy"),
        ({"surrounded": -0.1}, "surrounded"),
        ({"num_fov_actions": 1}, "num_fov_actions"),
        ({"spawn_jiter": 0.0}, "did you mean spawn_jitter"),
        ({"map": "terran_5_vs_6"}, "terran_5_vs_5"),
        ({"enemy_order": "random"}, "enemy_order=random must be creation, reversed, the seed of a permutation"),
        ({"enemy_order": -1}, r"enemy_order=-1 must be .* within \[0, 4294967295\]"),
        ({"enemy_order": 2**32}, "enemy_order=4294967296 must be creation"),
        ({"enemy_order": [0, 1]}, r"enemy_order=\[0, 1\] must hold each of 0 to 2 once"),
        ({"enemy_order": [0, 1, 1]}, r"enemy_order=\[0, 1, 1\] must hold each of 0 to 2 once"),
        ({"enemy_order": [0, 1, 2.5]}, r"enemy_order=\[0, 1, 2.5\] has the wrong type"),
        ({"enemy_order": 1.5}, "enemy_order=1.5 has the wrong type"),
        ({"enemy_order": True}, "enemy_order=True has the wrong type"),
        ({"enemy_order": None}, "enemy_order=None has the wrong type"),
    ],
)
def test_bad_options(options: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        Skirmish(**{"map": "3m", "n_envs": 1, **options})
    assert "\n" not in str(error.value)


def test_configuration_lists_every_option() -> None:
    """conf/env/skirmish/base.yaml states each option with its default."""
    given = yaml.safe_load(
        (Path(__file__).resolve().parents[3] / "conf" / "env" / "skirmish" / "base.yaml").read_text()
    )
    stated = {name: value for name, value in given.items() if not name.startswith("_") and name != "map"}
    assert stated == dataclasses.asdict(Options())


def test_the_version_of_the_physics_is_told() -> None:
    """Results hang on it: what changes a battle raises it, and the document says what each version stands for."""
    said = (Path(__file__).resolve().parents[3] / "docs" / "skirmish.md").read_text()
    assert Skirmish("3m", 1).spec.physics == VERSION == 5
    for version in range(1, VERSION + 1):
        assert f"| {version} |" in said.partition("**Versions.**")[2]


def test_ally_health() -> None:
    obs = Skirmish("3m", 1, ally_health=0.8).reset()
    names = Skirmish("3m", 1).spec.state_names
    assert obs.state[0, names.index("ally 0 health")].item() == pytest.approx(0.8)
    assert obs.state[0, names.index("enemy 0 health")].item() == 1


def test_units_survive_the_round_trip() -> None:
    env, counter = Skirmish("MMM", 2), np.zeros(1, np.uint64)
    env.reset()
    for _ in range(15):
        obs = env.step(uniform_actions(env, counter)).next
    seen = (obs.obs[1].clone(), obs.avail[1].clone())
    again = env.place(env.units(1), 1, last_action=env._lanes.last_action[1].copy())
    assert torch.equal(again.obs[1], seen[0]) and torch.equal(again.avail[1], seen[1])


def test_render() -> None:
    env = Skirmish("2s3z", 1)
    env.reset()
    first = env.render()
    for _ in range(10):
        env.step(torch.where(env._obs.avail[:, :, 4], 4, env._obs.avail.int().argmax(2)))
    second = env.render()
    assert first.dtype == np.uint8 and first.shape == (18 * 24, 768, 3) and (first != second).any()


def test_absent_agents() -> None:
    """The given number of agents, chosen anew in every episode, is absent from the start; the others fight on."""
    env = Skirmish("8m", 200, absent_agents=3)
    obs = env.reset()
    assert (obs.alive.sum(1) == 5).all() and len({tuple(row) for row in obs.alive.tolist()}) > 30
    assert obs.avail[~obs.alive].sum(1).eq(1).all() and obs.obs[~obs.alive].eq(0).all()
    step = env.step(obs.avail.int().argmax(2))
    assert not step.terminated.any() and (step.info["dead_allies"] == 3).all() and (step.reward == 0).all()


def test_healer_priority() -> None:
    """The marine that stands nearer is spared while a Medivac is in reach."""
    targets = {}
    for priority in (False, True):
        env = Skirmish("MMM", 1, healer_priority=priority)
        obs = env.place([*[ally("marine", 14, 16)] * 9, ally("medivac", 13, 17), enemy("marine", 17, 16)])
        env.step(act(env, obs, [STOP] * 10))
        targets[priority] = int(env._lanes.units[0, 10]["target"])
    assert targets[True] == 9 and targets[False] < 9
