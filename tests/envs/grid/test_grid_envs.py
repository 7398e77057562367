"""The grid games as environments: contract, names, determinism, random play, refusals (rules: test_grid_rules)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import pytest
import torch

from envs.base import ContractError, check_env
from envs.grid.game import GridGame
from envs.grid.pushbox import PushBox
from envs.grid.spread import Spread
from envs.grid.staghunt import StagHunt
from marl.core.types import ConfigError, Obs
from marl.learn.policy import random_available
from tests.support.grid_games import hunt, push, spread

Make = Callable[[int, int], GridGame]
GAMES: dict[str, Make] = {
    "push": lambda n, s: push(n, s, size=7, episode_limit=20),
    "push one box": lambda n, s: push(n, s, size=8, n_boxes=1, lone_push=1, episode_limit=9),
    "push eight boxes": lambda n, s: push(n, s, n_boxes=8, lone_push=0.5, episode_limit=15),
    "spread": lambda n, s: spread(n, s, episode_limit=10),
    "spread that is found": lambda n, s: spread(n, s, size=4, n_agents=2, distance=2, episode_limit=8),
    "spread anywhere": lambda n, s: spread(n, s, size=5, n_agents=3, distance=3, start="anywhere", episode_limit=12),
    "spread with sight": lambda n, s: spread(n, s, size=5, n_agents=3, distance=3, sight=2, episode_limit=12),
    "hunt": lambda n, s: hunt(n, s),
    "hunt that stays": lambda n, s: hunt(n, s, catchers_leave=False, prey_rest=0.5, capture_needs=1, n_prey=1),
    "hunt in a crowd": lambda n, s: hunt(n, s, size=3, n_predators=5, n_prey=3, capture_needs=3, sight=1),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Lanes are few here, and threads that wait for each other on a busy machine crawl."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def play(env: GridGame, steps: int, seed: int = 0) -> list[torch.Tensor]:
    """Return every observation and reward of random play; lanes restart as they end, and lane b has its own dice."""
    dice = [np.random.default_rng([seed, b]) for b in range(env.n_envs)]
    obs, seen = env.reset(), []
    for _ in range(steps):
        weights = np.stack([rng.random(obs.avail.shape[1:]) for rng in dice]) * obs.avail.numpy()
        step = env.step(torch.from_numpy(weights.argmax(-1)))
        seen.append(torch.cat([step.next.obs.flatten(1), step.next.state, step.reward[:, None]], 1))  # [B, ...]
        obs = env.reset(mask=step.terminated | step.truncated)
    return seen


@pytest.mark.parametrize("name", GAMES)
def test_contract(name: str) -> None:
    check_env(GAMES[name])


class OneStream(StagHunt):
    """A broken twin: every lane draws the same numbers."""

    def __init__(self, *, n_envs: int, seed: int, **options: Any) -> None:
        super().__init__(**options, n_envs=n_envs, seed=seed)
        self._board.lanes["rng"] = seed

    def reset(self, seed: int | None = None, mask: torch.Tensor | None = None) -> Obs:
        if seed is not None:
            self._board.lanes["rng"] = seed
        return super().reset(mask=mask)


def test_lanes_that_share_a_stream_are_found() -> None:
    with pytest.raises(ContractError, match="in every lane alike"):
        check_env(lambda n, s: hunt(n, s, game=OneStream))


@pytest.mark.parametrize("name", ["push", "hunt"])
def test_lanes_depend_neither_on_their_number_nor_on_threads(name: str) -> None:
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core only")
    few, one_thread = play(GAMES[name](3, 5), 40), play(GAMES[name](33, 5), 40)
    numba.set_num_threads(2)
    two_threads = play(GAMES[name](33, 5), 40)
    numba.set_num_threads(1)
    other_seed = play(GAMES[name](33, 6), 40)
    assert all(torch.equal(a[:3], b[:3]) for a, b in zip(few, one_thread, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one_thread, two_threads, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one_thread, other_seed, strict=True))


def random_play(env: GridGame, rounds: int) -> tuple[float, float]:
    """Return the share of episodes won, and the mean return, of uniformly random available actions."""
    gen, won, total = torch.Generator().manual_seed(0), 0, 0.0
    for _ in range(rounds):
        obs = env.reset()
        for _ in range(env.spec.episode_limit):
            step = env.step(random_available(obs.avail, gen))
            obs, won, total = step.next, won + int(step.info["won"].sum()), total + float(step.reward.sum())
    return won / (rounds * env.n_envs), total / (rounds * env.n_envs)


def test_random_play_hardly_ever_succeeds() -> None:
    """Bands of about four standard errors around what 40,000 (spread: 100,000) other episodes gave."""
    small, _ = random_play(push(4000, 0, size=9), 2)
    usual, earned = random_play(push(4000, 0), 5)
    assert 0.012 < small < 0.025 and 0.0005 < usual < 0.003
    assert earned == pytest.approx(10 * usual)
    assert random_play(push(4000, 0, size=13), 2)[0] < 0.001
    assert 0.0001 < random_play(spread(10000, 0), 4)[0] < 0.0012
    won, earned = random_play(hunt(64, 0, size=10, n_predators=8, n_prey=8, episode_limit=200), 1)
    assert won < 0.02 and earned < -50


def test_features_are_named_and_said_to_describe_the_right_agent() -> None:
    spec = push(1).spec
    assert spec.state_names == (
        "agent 0 x", "agent 0 y", "agent 1 x", "agent 1 y", "box 0 x", "box 0 y", "box 1 x", "box 1 y",
        "time", "constant",
    )  # fmt: skip
    about = describes(spec)
    assert about(0, 1) == {"agent 1 x", "agent 1 y", "other agent dx", "other agent dy"}
    assert about(1, 1) == {"agent 1 x", "agent 1 y", "own id", "box 0 dx", "box 0 dy", "box 1 dx", "box 1 dy"}
    about = describes(spread(1, n_agents=3, sight=2).spec)
    assert about(0, 0) == {"own x", "own y"}
    assert about(1, 0) == {"other 0 seen", "other 0 dx", "other 0 dy"} and about(1, 2) == about(0, 2)
    assert about(2, 1) == {"other 1 seen", "other 1 dx", "other 1 dy"}
    spec = hunt(1, sight=1).spec
    assert spec.state_names[:4] == ("predator 0 x", "predator 0 y", "predator 0 present", "predator 1 x")
    assert spec.state_names[-4:] == ("prey 1 x", "prey 1 y", "prey 1 present", "time")
    about = describes(spec)
    assert about(2, 2) == {"predator at +0,+0"}
    assert len(about(2, 1)) == 8 and "predator at -1,+1" in about(2, 1) and not any("prey" in f for f in about(2, 1))


def describes(spec: Any) -> Callable[[int, int], set[str]]:
    return lambda i, j: {name for name, about in zip(spec.obs_names, spec.about[i, j].tolist(), strict=True) if about}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: push(1, size=6), "size=6 must be at least 7"),
        (lambda: push(1, n_boxes=9), r"n_boxes=9 must be within \[1, 8\]"),
        (lambda: push(1, lone_push=1.5), r"lone_push=1.5 must be within \[0, 1\]"),
        (lambda: push(1, episode_limit=0), "episode_limit=0 must be at least 1"),
        (lambda: push(0), "n_envs=0 must be at least 1"),
        (lambda: push(1).place([[0, 0]]), "the game has 4 cells with coordinates in 0..10"),
        (lambda: spread(1, n_agents=1), "n_agents=1 must be at least 2"),
        (lambda: spread(1, distance=8), "distance is 8; 8 x 8 cells have room for 1 agents so far apart"),
        (lambda: spread(1, start="corner"), "start=corner is not known; choose one of centre, anywhere"),
        (lambda: spread(1, sight=-1), "sight=-1 must be at least 0"),
        (lambda: spread(1, n_agents=11, distance=1), "n_agents is 11, too many to number the formations"),
        (lambda: hunt(1, capture_needs=5), r"capture_needs=5 must be within \[1, 4\], with 4 predators"),
        (lambda: hunt(1, capture_needs=2, n_predators=1), r"capture_needs=2 must be within \[1, 1\], with 1 predators"),
        (lambda: hunt(1, penalty=-2), "penalty=-2 must be at least 0"),
        (lambda: hunt(1, size=2, n_prey=2), "size is 2: no room for 4 predators and 2 prey"),
    ],
)
def test_bad_arguments_are_one_clear_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_actions_of_the_wrong_form_and_a_missing_reset_are_refused() -> None:
    env = push(2)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(torch.zeros(2, 2, dtype=torch.long))
    env.reset()
    with pytest.raises(ValueError, match=r"actions are int64 \[2, 3\], expected int64 \[2, 2\]"):
        env.step(torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="saved with 2 lanes, this environment has 3"):
        push(3).load_state_dict(env.state_dict())


@pytest.mark.parametrize("env", [push(1), spread(1), hunt(1)], ids=["push", "spread", "hunt"])
def test_pictures_show_the_grid(env: PushBox | Spread | StagHunt) -> None:
    env.reset()
    before = env.render()
    assert before.shape == (24 * env.size + 1, 24 * env.size + 1, 3)
    env.place([[k % env.size, k // env.size] for k in range(len(env.cells()))])
    assert (env.render() != before).any()
