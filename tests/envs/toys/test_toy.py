"""The toy games: contract, hand-computed numbers, refusal of bad sizes."""

from __future__ import annotations

import pytest
import torch

from envs.base import check_env
from envs.toys.games import PAYOFFS, Corridor, KStepMatrixGame, MatrixGame
from marl.core.types import ConfigError

STAY, LEFT, RIGHT, PRESS = range(4)
SHIFT = ([[1.0, 0, 0, 0], [0, 0.9, 0, 0], [0, 0, 0.8, 0], [0, 0, 0, 0]], [[0] * 4, [0] * 4, [0] * 4, [0, 0, 0, 0.6]])
TOYS = {
    **{f"matrix {name}": lambda n, s, name=name: MatrixGame(name, n_envs=n, seed=s) for name in PAYOFFS},
    "matrix of three": lambda n, s: MatrixGame([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], n_envs=n, seed=s),
    "matrix with unequal agents": lambda n, s: MatrixGame([[1, 2, 3], [4, 5, 6]], n_envs=n, seed=s),
    "k-step": lambda n, s: KStepMatrixGame(*SHIFT, [2, 2], 3, n_envs=n, seed=s),
    "corridor": lambda n, s: Corridor(2, 4, 3, False, 9, n_envs=n, seed=s),
    "fatal corridor": lambda n, s: Corridor(3, 3, 3, True, 9, n_envs=n, seed=s),
    "corridor alone": lambda n, s: Corridor(1, 3, 2, False, 7, n_envs=n, seed=s),
}


@pytest.mark.parametrize("name", TOYS)
def test_contract(name):
    check_env(TOYS[name])


def test_nonmonotonic_payoffs():
    env = MatrixGame("nonmonotonic", n_envs=9)
    obs = env.reset()
    assert obs.obs.shape == (9, 2, 1) and obs.avail.all() and obs.alive.all()
    step = env.step(torch.cartesian_prod(torch.arange(3), torch.arange(3)))
    assert step.reward.tolist() == [8, -12, -12, -12, 0, 0, -12, 0, 0]
    assert step.terminated.all() and not step.truncated.any()
    assert step.info["won"].tolist() == [True] + 8 * [False]


def test_payoff_of_three_agents_follows_the_nesting():
    env = MatrixGame([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], n_envs=2)
    env.reset()
    assert env.step(torch.tensor([[0, 1, 0], [1, 0, 1]])).reward.tolist() == [3, 6]


def test_surplus_actions_are_unavailable():
    env = MatrixGame([[1, 2, 3], [4, 5, 6]], n_envs=1)
    assert env.reset().avail.tolist() == [[[True, True, False], [True, True, True]]]
    with pytest.raises(ValueError, match=r"lane 0, agent 0: action 2 .*available are 0 \(action 0\), 1 \(action 1\)"):
        env.step(torch.tensor([[2, 0]]))


def test_two_step_returns():
    """(A,A) 1.0; (B,B) 0.9; (C,C) 0.8 and on to (D,D) 0.6: the best return is 1.4."""
    env = KStepMatrixGame(*SHIFT, [2, 2], 2, n_envs=4)
    env.reset()
    first = env.step(torch.tensor([[0, 0], [1, 1], [2, 2], [2, 2]]))
    assert first.reward.tolist() == pytest.approx([1.0, 0.9, 0.8, 0.8])
    assert first.terminated.tolist() == [True, True, False, False]
    assert first.next.state.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    second = env.step(torch.tensor([[0, 0], [0, 0], [3, 3], [2, 2]]))
    assert second.reward.tolist() == pytest.approx([0, 0, 0.6, 0])
    assert second.info["won"].tolist() == [False, False, True, False]
    assert env.best_return() == pytest.approx(1.4)


def test_longer_chain_adds_the_advance_payoff():
    assert KStepMatrixGame(*SHIFT, [2, 2], 5, n_envs=1).best_return() == pytest.approx(4 * 0.8 + 0.6)


def walk(env, *joint):
    for actions in joint:
        step = env.step(torch.tensor(actions))
    return step


def test_corridor_success():
    env = Corridor(2, 3, 1, False, 9, n_envs=1)
    obs = env.reset()
    assert obs.avail[0].tolist() == 2 * [[True, False, True, False]]  # at the left wall, no button
    step = walk(env, [[RIGHT, RIGHT]], [[RIGHT, STAY]], [[PRESS, RIGHT]])
    assert not step.terminated.any() and step.reward.item() == 0  # agent 0 pressed alone, to no effect
    assert step.next.avail[0].tolist() == 2 * [[True, True, False, True]]
    assert step.next.obs[0, 0].tolist() == pytest.approx([1, 1, 1, 3 / 9])  # own cell, other's cell, alive, time
    step = walk(env, [[PRESS, PRESS]])
    assert step.reward.item() == 1 and step.terminated.item() and step.info["won"].item()


def test_corridor_death_is_final():
    env = Corridor(2, 2, 1, True, 9, n_envs=1)
    env.reset()
    step = walk(env, [[RIGHT, RIGHT]], [[PRESS, STAY]])
    assert step.next.alive.tolist() == [[False, True]] and not step.terminated.item()
    assert step.next.obs[0, 0].count_nonzero() == 0 and step.next.obs[0, 1].tolist() == pytest.approx([1, 0, 0, 2 / 9])
    assert step.next.avail[0].tolist() == [[True, False, False, False], [True, True, False, True]]
    with pytest.raises(ValueError, match="lane 0, agent 0: action 3"):
        env.step(torch.tensor([[PRESS, STAY]]))
    step = walk(env, [[STAY, PRESS]])  # the survivor cannot win any more
    assert step.terminated.item() and step.reward.item() == 0 and not step.info["won"].item()


def test_corridor_time_limit_truncates_and_shows_the_true_last_state():
    env = Corridor(2, 4, 1, False, 2, n_envs=1)
    env.reset()
    step = walk(env, [[RIGHT, STAY]], [[RIGHT, RIGHT]])
    assert step.truncated.item() and not step.terminated.item()
    assert step.next.alive.all() and step.next.avail[0, 0].tolist() == [True, True, True, False]
    assert step.next.state[0].tolist() == pytest.approx([2 / 3, 1 / 3, 1, 1, 1])


def test_corridor_starts_vary_within_the_spread():
    env = Corridor(2, 5, 3, False, 9, n_envs=64, seed=3)
    starts = torch.cat([4 * env.reset().state[:, :2] for _ in range(20)]).round().long()
    assert starts.unique().tolist() == [0, 1, 2]
    assert (starts.flatten().bincount() / starts.numel()).tolist() == pytest.approx([1 / 3] * 3, abs=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MatrixGame("climbing", n_envs=1), "'climbing' is unknown; choose one of nonmonotonic"),
        (lambda: MatrixGame([1, 2], n_envs=1), "at least two"),
        (lambda: MatrixGame([[1, 2], [3]], n_envs=1), "equal lengths"),
        (lambda: MatrixGame([["a", "b"]], n_envs=1), "nested lists of numbers"),
        (lambda: MatrixGame("climb", n_envs=0), "n_envs=0 must be at least 1"),
        (lambda: KStepMatrixGame("climb", "monotonic", [0, 0], 2, n_envs=1), r"\[3, 3\] but final has \[2, 2\]"),
        (lambda: KStepMatrixGame("climb", "climb", [0, 3], 2, n_envs=1), "one action for each of 2 agents"),
        (lambda: KStepMatrixGame("climb", "climb", [0], 2, n_envs=1), "one action for each of 2 agents"),
        (lambda: KStepMatrixGame("climb", "climb", [0, 0], 0, n_envs=1), "steps=0 must be at least 1"),
        (lambda: Corridor(0, 4, 1, False, 9, n_envs=1), "n_agents=0 must be at least 1"),
        (lambda: Corridor(2, 1, 1, False, 9, n_envs=1), "length=1 must be at least 2"),
        (lambda: Corridor(2, 4, 5, False, 9, n_envs=1), r"spread=5 must be within \[1, 4\], the length"),
    ],
)
def test_bad_sizes_are_one_clear_line(make, message):
    with pytest.raises(ConfigError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)
