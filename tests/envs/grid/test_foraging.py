"""Level-based foraging: contract, and its rules by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import pytest
import torch

from envs.base import check_env
from envs.grid.foraging import LOAD, Foraging
from marl.core.types import ConfigError, Obs, Step

STAY, RIGHT, LEFT, UP, DOWN = range(5)
SIZES: dict[str, Any] = {
    "size": 6, "n_agents": 3, "n_food": 2, "min_level": 1, "max_level": 2, "coop": False, "sight": 6, "penalty": 0.0,
    "absent_agents": 0, "episode_limit": 8,
}  # fmt: skip


def make(n_envs: int = 1, seed: int = 0, **changes: Any) -> Foraging:
    return Foraging(**{**SIZES, **changes}, n_envs=n_envs, seed=seed)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Lanes are few here, and threads that wait for each other on a busy machine crawl."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def arrange(cells: list[list[int]], levels: list[int], **changes: Any) -> tuple[Foraging, Obs]:
    """Return one lane with its entities, agents first, on these cells."""
    env = make(**changes)
    env.reset()
    env._board.mark[0] = levels
    return env, env.place(cells)


def act(env: Foraging, *actions: int) -> Step:
    return env.step(torch.tensor([actions]))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"coop": True, "sight": 2, "penalty": 0.1},
        {"absent_agents": 1},
        {"n_agents": 2, "n_food": 5, "max_level": 1},
    ],
)
def test_contract(changes: dict[str, Any]) -> None:
    check_env(lambda n, s: make(n, s, **changes))


def test_one_strong_enough_loads_alone_and_is_paid_its_share() -> None:
    """Foods of levels 2 and 3: 2/5, then 3/5 by two agents together, and the episode is won."""
    env, obs = arrange([[1, 2], [4, 3], [4, 1], [2, 2], [4, 2]], [2, 2, 1, 2, 3])
    assert obs.avail[0, :, LOAD].all() and not obs.avail[0, 0, RIGHT]  # food is in the way
    step = act(env, LOAD, STAY, LOAD)  # agent 2 alone is too weak for food 1
    assert step.reward.tolist() == pytest.approx([0.4])
    assert step.info["loads"].tolist() == [1] and step.info["failed_loads"].tolist() == [1]
    assert not step.next.avail[0, 0, LOAD] and step.next.avail[0, 0, RIGHT]
    step = act(env, STAY, LOAD, LOAD)
    assert step.reward.tolist() == pytest.approx([0.6])
    assert bool(step.terminated) and bool(step.info["won"])


def test_an_attempt_that_is_too_weak_costs_all_its_agents() -> None:
    env, _ = arrange([[1, 2], [2, 1], [5, 5], [2, 2], [4, 4]], [1, 1, 2, 3, 3], penalty=0.25)
    assert act(env, LOAD, LOAD, STAY).reward.tolist() == pytest.approx([-0.5])


def test_agents_do_not_share_cells() -> None:
    """Two that want one cell stay, as does one that wants the cell of an agent that cannot leave; trains and swaps
    move."""
    foods = [[1, 4], [4, 4]]
    env, _ = arrange([[0, 0], [2, 0], [3, 0], *foods], [1] * 5)
    act(env, RIGHT, LEFT, LEFT)
    assert env.cells()[:3] == [(0, 0), (2, 0), (3, 0)]
    act(env, STAY, LEFT, LEFT)
    assert env.cells()[:3] == [(0, 0), (1, 0), (2, 0)]
    act(env, STAY, RIGHT, LEFT)
    assert env.cells()[:3] == [(0, 0), (2, 0), (1, 0)]


def test_observation_by_hand() -> None:
    """Agent 1 of three with sight 3 on a grid of six: food 0 two to the right, food 1 too far, agent 0 beside it."""
    env, obs = arrange([[0, 1], [1, 1], [5, 5], [3, 1], [1, 5]], [2, 1, 2, 3, 4], sight=3)
    seen = [0.2, 0.2, 0.5, 1, 0.4, 0, 0.5, 0, 0, 0, 0, 1, -0.2, 0, 1, 0, 0, 0, 0]  # food levels are of 2 * 3
    assert obs.obs[0, 1].tolist() == pytest.approx(seen)
    assert obs.state[0, 12:16].tolist() == pytest.approx([1, 0.6, 0.2, 0.5]) and obs.state[0, -1] == 0
    assert env.spec.obs_names[3] == "food 0 seen" and env.spec.obs_names[11] == "other 0 seen"
    assert env.spec.about is not None and env.spec.about[1, 0].nonzero().flatten().tolist() == [11, 12, 13, 14]
    assert not obs.avail[0, 1, LOAD] and obs.avail[0, 1, RIGHT]


def test_levels_and_places_of_many_episodes() -> None:
    env = make(2000, size=8, n_food=3, coop=True, n_agents=4, max_level=3)
    env.reset()
    cell, level = env._board.cell, env._board.mark
    agents, foods = level[:, :4], level[:, 4:]
    assert set(agents.flatten()) == {1, 2, 3}
    assert (foods == np.sort(agents, 1)[:, :3].sum(1, keepdims=True)).all()  # the three weakest
    assert env._board.present.all() and cell[:, 4:].min() == 1 and cell[:, 4:].max() == 6
    apart = np.abs(cell[:, 4:, None] - cell[:, None, 4:])[:, ~np.eye(3, dtype=bool)]
    assert apart.max(-1).min() >= 2 and apart.sum(-1).min() >= 3
    everything = cell[..., 0] * 8 + cell[..., 1]
    assert all(len(set(row)) == 7 for row in everything)


def test_food_is_loadable_by_those_who_are_there() -> None:
    """With one of three absent, food needs the two others; the absent one is unseen and cannot act."""
    env = make(500, coop=True, absent_agents=1)
    obs = env.reset()
    assert (obs.alive.sum(1) == 2).all() and (~obs.alive).float().mean(0).tolist() == pytest.approx(
        [1 / 3] * 3, abs=0.08
    )
    assert (env._board.mark[:, 3] == env._board.mark[:, :3].sum(1)).all()
    gone = ~obs.alive
    assert not obs.obs[gone].any() and (obs.avail[gone].sum(-1) == 1).all()
    unseen = obs.obs[:, 1, 11:15][gone[:, 0]]
    assert len(unseen) and not unseen.any()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"size": 3}, "size=3 must be at least 4"),
        ({"min_level": 3}, "max_level=2 must be at least 3"),
        ({"absent_agents": 3}, r"absent_agents=3 must be within \[0, 2\]"),
        ({"n_agents": 16}, "n_agents is 16; 6 x 6 cells have room for 15"),
    ],
)
def test_bad_sizes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)
