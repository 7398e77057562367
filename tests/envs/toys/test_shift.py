"""The shifting game: contract, the moment of the switch by hand, and tests that follow the present phase."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from envs.base import check_env
from envs.toys.shift import ShiftingGame
from marl.core.protocols import Moving
from marl.core.types import ConfigError
from tests.support.helpers import compose_train, rows, train

BEFORE, AFTER = [[1.0, 0.0], [0.0, 0.5]], [[1.0, 0.0], [0.0, 1.5]]
AA, BB = [0, 0], [1, 1]


def game(after: int, n_envs: int = 1, seed: int = 0) -> ShiftingGame:
    return ShiftingGame(BEFORE, AFTER, after, n_envs=n_envs, seed=seed)


def play(env: ShiftingGame, *joint: list[int]) -> list[tuple[float, bool]]:
    """Return (reward, won) of one episode each, in the first lane."""
    results = []
    for actions in joint:
        env.reset()
        step = env.step(torch.tensor(actions).expand(env.n_envs, -1))
        results.append((step.reward[0].item(), bool(step.info["won"][0])))
    return results


@pytest.mark.parametrize("after", [0, 3, 1000])
def test_contract(after: int) -> None:
    check_env(lambda n, s: game(after, n, s))


def test_payoffs_switch_after_so_many_joint_actions() -> None:
    assert play(game(3), AA, BB, AA, BB, AA) == [(1, True), (0.5, False), (1, True), (1.5, True), (1, False)]
    assert play(game(0), AA, BB) == [(1, False), (1.5, True)]


def test_every_lane_counts_its_own_joint_actions_and_a_seed_begins_anew() -> None:
    env = game(1, n_envs=2)
    env.reset()
    env.step(torch.tensor([BB, BB]))
    env.reset(mask=torch.tensor([True, False]))
    step = env.step(torch.tensor([BB, BB]))  # lane 1 is over
    assert step.reward.tolist() == [1.5, 0.0] and env.played.tolist() == [2, 1]
    env.reset(seed=3, mask=torch.tensor([False, True]))
    assert env.played.tolist() == [2, 0]
    env.reset(seed=3)
    assert env.step(torch.tensor([BB, BB])).reward.tolist() == [0.5, 0.5]


def test_nothing_that_is_seen_tells_the_phases_apart() -> None:
    env = game(1)
    first = env.reset()
    obs, state = first.obs.clone(), first.state.clone()
    play(env, AA, AA)
    again = env.reset()
    assert torch.equal(obs, again.obs) and torch.equal(state, again.state)


def test_saving_keeps_the_count_and_a_test_environment_takes_it_over() -> None:
    env, restored, test = game(2), game(2), game(2, n_envs=3)
    play(env, AA, AA)
    restored.load_state_dict(env.state_dict())
    assert play(restored, BB) == [(1.5, True)]
    assert isinstance(test, Moving) and play(test, BB) == [(0.5, False)]
    test.follow(env)
    assert test.played.tolist() == [2, 2, 2] and play(test, BB) == [(1.5, True)]


def test_training_tests_the_game_as_it_is_now(tmp_path: Path) -> None:
    """Every joint action pays 1, later 2: greedy returns tell the phase, and 5 lane steps is 40 steps of 8 lanes."""
    same = "env.payoff=[[1,1],[1,1]]", "env.shifted=[[2,2],[2,2]]", "env.after=5"
    train(tmp_path / "run", "env=toy/shift", *same, "train.total_steps=80", "eval.every=8", "algo.epsilon.steps=10")
    returns = {row["env_steps"]: row["eval/return"] for row in rows(tmp_path / "run", "eval")}
    assert returns == {steps: 1.0 if steps < 40 else 2.0 for steps in range(0, 81, 8)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ShiftingGame(BEFORE, [[1.0, 2.0, 3.0]] * 2, 1, n_envs=1), r"\[2, 2\] but shifted has \[2, 3\]"),
        (lambda: game(-1), "after=-1 must be at least 0"),
    ],
)
def test_bad_options_are_one_clear_line(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_published_game_moves_the_optimum_from_aa_to_cc(tmp_path: Path) -> None:
    env = compose_train(tmp_path, "env=toy/shift").env
    before, after = (torch.tensor(env[key]).flatten() for key in ("payoff", "shifted"))
    assert (before.argmax().item(), after.argmax().item()) == (0, 8) and before[8] < before[4] < before[0]
