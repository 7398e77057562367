"""Multi-Destination Spread by hand: moves, collisions, rewards, observations, blocking; and its contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numba
import pytest
import torch

from envs.base import check_env
from envs.grid.mds import MultiDestinationSpread
from marl.core.types import ConfigError, Step

N, NE, E, SE, S, SW, W, NW, STAY = range(9)
FULL: dict[str, Any] = {
    "size": 5, "n_agents": 4, "goals": [[2, 0], [0, 2], [4, 2], [2, 4]], "pay": [0, 1, 2, 5, 10], "episode_limit": 100,
}  # fmt: skip
MINI: dict[str, Any] = {
    "size": 5, "n_agents": 2, "goals": [[0, 2], [4, 2]], "pay": [0, 0.1, 1], "episode_limit": 20,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def full(n_envs: int = 1, seed: int = 0, **changes: Any) -> MultiDestinationSpread:
    return MultiDestinationSpread(**{**FULL, **changes}, n_envs=n_envs, seed=seed)


def mini(n_envs: int = 1, seed: int = 0, **changes: Any) -> MultiDestinationSpread:
    return MultiDestinationSpread(**{**MINI, **changes}, n_envs=n_envs, seed=seed)


def walk(env: MultiDestinationSpread, *joint: list[int]) -> Step:
    for actions in joint:
        step = env.step(torch.tensor([actions]))
    return step


@pytest.mark.parametrize("make", [lambda n, s: full(n, s, episode_limit=12), mini], ids=["full", "mini"])
def test_contract(make: Callable[[int, int], MultiDestinationSpread]) -> None:
    check_env(make)


@pytest.mark.parametrize(("make", "best", "ways"), [(full, 990, [N, W, E, S]), (mini, 19, [W, E])])
def test_the_best_return_is_paid_from_the_second_step_on(make, best: float, ways: list[int]) -> None:
    env, earned, steps = make(), 0.0, 0
    env.reset()
    while True:
        step = walk(env, ways if steps < 2 else [STAY] * len(ways))
        steps, earned = steps + 1, earned + float(step.reward)
        assert bool(step.info["won"]) == (steps >= 2) and not step.terminated
        if step.truncated:
            break
    assert steps == env.spec.episode_limit and earned == pytest.approx(best)


@pytest.mark.parametrize(
    ("cells", "covered", "reward"),
    [
        ([(1, 1), (2, 2), (3, 3), (0, 0)], 0, 0),
        ([(2, 0), (2, 0), (2, 0), (2, 0)], 1, 1),
        ([(2, 0), (0, 2), (2, 0), (3, 3)], 2, 2),
        ([(2, 0), (0, 2), (4, 2), (2, 2)], 3, 5),
        ([(2, 4), (0, 2), (4, 2), (2, 0)], 4, 10),
    ],
)
def test_distinct_goals_are_paid(cells: list[tuple[int, int]], covered: int, reward: float) -> None:
    """Agents that stay on one cell head for the same cell and go back to it."""
    env = full()
    env.reset()
    env.place(cells)
    step = walk(env, [STAY] * 4)
    assert env.cells() == cells
    assert int(step.info["covered"]) == covered and float(step.reward) == reward


@pytest.mark.parametrize(
    ("cells", "actions", "after", "why"),
    [
        ([(1, 2), (3, 2)], [E, W], [(1, 2), (3, 2)], "both head for the middle"),
        ([(1, 2), (2, 2)], [E, STAY], [(1, 2), (2, 2)], "one is there and stays"),
        ([(1, 2), (2, 2)], [E, E], [(2, 2), (3, 2)], "one leaves as the other comes"),
        ([(1, 2), (2, 2)], [E, W], [(2, 2), (1, 2)], "they change places"),
        ([(2, 2), (2, 2)], [N, N], [(2, 2), (2, 2)], "the same way from the start"),
        ([(0, 0), (4, 4)], [NW, SE], [(0, 0), (4, 4)], "walls"),
        ([(0, 1), (4, 3)], [NW, SE], [(0, 0), (4, 4)], "along the wall"),
        ([(1, 1), (3, 3)], [SW, NE], [(0, 2), (4, 2)], "diagonals"),
        ([(1, 1), (3, 3)], [SE, N], [(2, 2), (3, 2)], "south and north"),
    ],
)
def test_who_moves(cells: list[tuple[int, int]], actions: list[int], after: list[tuple[int, int]], why: str) -> None:
    env = mini()
    env.reset()
    env.place(cells)
    walk(env, actions)
    assert env.cells() == after, why


def test_going_back_is_a_single_pass() -> None:
    """Agents 0 and 1 collide and go back; agent 2 has entered the cell that 0 comes back to, and stays there."""
    env = full()
    env.reset()
    env.place([(1, 0), (3, 0), (1, 1), (4, 4)])
    walk(env, [E, W, N, STAY])
    assert env.cells() == [(1, 0), (3, 0), (1, 0), (4, 4)]


def test_agents_see_all_cells_in_one_order_and_their_own_index() -> None:
    env = full()
    env.reset()
    obs = env.place([(0, 0), (1, 0), (0, 1), (4, 4)])
    assert obs.obs.shape == (1, 4, 104) and obs.state.shape == (1, 100)
    assert obs.state[0].nonzero().flatten().tolist() == [0, 26, 55, 99]
    for i in range(4):
        assert obs.obs[0, i].nonzero().flatten().tolist() == [0, 26, 55, 99, 100 + i]
    assert env.spec.state_names[26] == "agent 1 at 1,0" and env.spec.state_names[55] == "agent 2 at 0,1"
    assert env.spec.obs_names[100:] == tuple(f"is agent {i}" for i in range(4))
    about = env.spec.about
    assert about[0, 1].nonzero().flatten().tolist() == list(range(25, 50))
    assert about[3, 3].nonzero().flatten().tolist() == [*range(75, 104)]


def test_blocking_knows_cells_and_goals() -> None:
    env = mini()
    env.reset()
    env.place([(0, 2), (3, 4)])
    assert env.block_features("cells").tolist() == [[10, 23]] == env.block_features("goals").tolist()
    assert env.n_block_features == 25
    assert env.blockable("goals").nonzero().tolist() == [[0, 10], [0, 14], [1, 10], [1, 14]]
    assert env.blockable("cells").shape == (2, 25) and env.blockable("cells").all()
    with pytest.raises(ConfigError, match="family=stations is not known; choose one of cells, goals"):
        env.block_features("stations")


def test_pictures_tell_agents_and_goals_apart() -> None:
    env = full()
    env.reset()
    before = env.render()
    assert before.shape == (121, 121, 3)
    assert before[5, 60].tolist() == [152, 251, 152]  # pale green: a goal in the north
    env.place([(0, 0), (1, 0), (0, 1), (4, 4)])
    apart = env.render()
    env.place([(1, 0), (0, 0), (0, 1), (4, 4)])
    assert (apart != before).any() and (env.render() != apart).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"goals": [[2, 5]]}, r"goals must be different \[x, y\] in 0..4, got \[\[2, 5\]\]"),
        ({"goals": [[1, 1], [1, 1]]}, r"goals must be different .* got \[\[1, 1\], \[1, 1\]\]"),
        ({"goals": [[1, 1], [1, 2], [1, 3]]}, "goals must be 1..2 cells for 2 agents, got 3"),
        ({"goals": []}, "goals must be 1..2 cells for 2 agents, got 0"),
        ({"pay": [0, 1]}, "pay must have 3 values, for 0..2 goals, got 2"),
        ({"n_agents": 1}, "n_agents=1 must be at least 2"),
        ({"size": 1}, "size=1 must be at least 2"),
        ({"episode_limit": 0}, "episode_limit=0 must be at least 1"),
    ],
)
def test_bad_arguments_are_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        mini(**changes)
    assert "\n" not in str(refused.value)
