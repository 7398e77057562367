"""The views for other frameworks pass those frameworks' own tests."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test, parallel_seed_test

from envs.skirmish import MAPS, parallel_env
from envs.skirmish.single import SkirmishParallel
from marl.core.types import ConfigError


@pytest.mark.parametrize("name", ["3m", "MMM", "zerg_5_vs_5"])
def test_pettingzoo_api(name: str) -> None:
    env = parallel_env(name, render_mode="rgb_array")
    parallel_api_test(env, num_cycles=200)
    env.reset()
    assert env.state_space.contains(env.state()) and env.render().dtype == np.uint8


def test_pettingzoo_seed() -> None:
    """It samples actions without their masks, hence ``replace_unavailable``."""
    parallel_seed_test(lambda: parallel_env("2s3z", replace_unavailable=True), num_cycles=50)

    class Forgetful(SkirmishParallel):
        """It does not listen to seeds."""

        def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
            self.unseeded = True
            return super().reset(None, options)

    with pytest.raises(AssertionError):
        parallel_seed_test(lambda: Forgetful("terran_5_vs_5", replace_unavailable=True), num_cycles=5)


def play(env: gymnasium.Env, seed: int | None, steps: int = 80) -> list[np.ndarray]:
    """Every state of some random available steps (PettingZoo's own test compares the first step alone)."""
    rng = np.random.default_rng(0)
    _, info = env.reset(seed=seed)
    states = [info["state"]]
    for _ in range(steps):
        action = [rng.choice(np.flatnonzero(row)) for row in info["avail"]]
        _, _, terminated, truncated, info = env.step(np.array(action))
        states.append(info["state"])
        if terminated or truncated:
            _, info = env.reset()
    return states


def test_seeds() -> None:
    first, second = gymnasium.make("skirmish/terran_5_vs_5-v0"), gymnasium.make("skirmish/terran_5_vs_5-v0")
    one = play(first, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(one, play(second, seed=3), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(one, play(first, seed=3), strict=True))
    assert not np.array_equal(one[0], play(first, seed=4)[0])


def test_without_a_seed_environments_differ() -> None:
    """Workers side by side would play one battle; a seed in the options is a seed."""
    first, second = gymnasium.make("skirmish/terran_5_vs_5-v0"), gymnasium.make("skirmish/terran_5_vs_5-v0")
    assert not np.array_equal(play(first, None)[0], play(second, None)[0])
    one, other = parallel_env("terran_5_vs_5"), parallel_env("terran_5_vs_5")
    for env in (one, other):
        env.reset()
    assert not np.array_equal(one.state(), other.state())
    one, other = parallel_env("terran_5_vs_5", seed=4), parallel_env("terran_5_vs_5", seed=4)
    for env in (one, other):
        env.reset()
    assert np.array_equal(one.state(), other.state())


@pytest.mark.parametrize("name", ["3m", "protoss_5_vs_5"])
def test_gymnasium_checker(name: str) -> None:
    env = gymnasium.make(f"skirmish/{name}-v0", render_mode="rgb_array", replace_unavailable=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


def test_every_map_is_registered() -> None:
    assert all(f"skirmish/{name}-v0" in gymnasium.registry for name in MAPS)
    with pytest.raises(ConfigError, match="render_mode 'ansi' is unknown; choose human, rgb_array or None"):
        parallel_env("3m", render_mode="ansi")


def test_unavailable_actions_raise() -> None:
    env = gymnasium.make("skirmish/3m-v0")
    env.reset()
    with pytest.raises(ValueError, match="agent 0: action 0 is not available"):
        env.step(np.zeros(3, np.int64))
