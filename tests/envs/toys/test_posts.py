"""The posts game: contract, a hand-played episode, missing agents, refusal of bad sizes."""

from __future__ import annotations

import pytest
import torch

from envs.base import check_env
from envs.toys.posts import GO_A, GO_B, GO_IDLE, STAY, Posts
from marl.core.types import ConfigError


def make(n_envs: int = 1, seed: int = 0, **changes) -> Posts:
    return Posts(
        **{"n_agents": 3, "noise": 3, "goal": 0.5, "absent_agents": 0, "episode_limit": 4, **changes},
        n_envs=n_envs,
        seed=seed,
    )


@pytest.mark.parametrize("n_agents, noise, absent", [(3, 3, 0), (2, 0, 0), (4, 1, 0), (3, 3, 1), (4, 0, 3)])
def test_contract(n_agents, noise, absent):
    check_env(lambda n, s: make(n, s, n_agents=n_agents, noise=noise, absent_agents=absent))


def test_an_episode_by_hand():
    """The team is paid from the second step on until agent 1 leaves B; then agent 2 takes over: 3 of 4 steps."""
    env = make()
    env.reset()
    plays = [[GO_A, GO_A, STAY], [STAY, GO_B, STAY], [STAY, GO_IDLE, GO_B], [STAY, STAY, STAY]]
    steps = [env.step(torch.tensor([play])) for play in plays]
    assert [step.reward.tolist() for step in steps] == [[0], [1], [1], [1]]
    assert [bool(step.truncated) for step in steps] == [False, False, False, True]
    assert not any(bool(step.terminated) for step in steps)
    assert [bool(step.info["won"]) for step in steps] == [False, False, False, True]


@pytest.mark.parametrize("goal, won", [(0.25, True), (0.26, False)])
def test_won_asks_for_a_share_of_the_steps(goal, won):
    env = make(goal=goal)
    env.reset()
    for play in ([GO_A, GO_B, STAY], [STAY, GO_A, STAY], [STAY] * 3, [STAY] * 3):
        step = env.step(torch.tensor([play]))
    assert bool(step.info["won"]) == won


def test_observation_by_hand():
    env = make()
    env.reset()
    obs = env.step(torch.tensor([[GO_A, STAY, GO_B]])).next
    assert obs.obs.shape == (1, 3, 15)
    assert obs.obs[0, 1, :12].tolist() == [0, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0, 1]  # agent 1; idle; 0 at A; 2 at B
    assert obs.state.tolist() == [[0, 1, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1]]
    about = env.spec.about
    assert about[1, 0].nonzero().flatten().tolist() == [6, 7, 8]
    assert about[1, 2].nonzero().flatten().tolist() == [9, 10, 11]
    assert env.spec.obs_names[7] == "other 0 at A"


def test_noise_is_new_in_every_step_and_uniform():
    env = make(n_envs=500, episode_limit=3)
    first = env.reset().obs[..., 12:].clone()
    second = env.step(torch.full((500, 3), STAY)).next.obs[..., 12:]
    assert (first != second).all()
    assert abs(float(second.mean())) < 0.03 and abs(float(second.std()) - 3**-0.5) < 0.02
    assert abs(float((first * second).mean())) < 0.02


def test_missing_agents_are_idle_and_unseen():
    env = make(n_envs=2)
    env.reset()
    env.missing = torch.tensor([[True, False, False], [False, False, False]])
    obs = env._observe()
    assert obs.alive.tolist() == [[False, True, True], [True, True, True]]
    assert obs.avail[0, 0].tolist() == [False, False, False, True]
    assert not obs.obs[0, 0].any() and not obs.obs[0, 1, 6:9].any() and obs.obs[1, 1, 6] == 1
    with pytest.raises(ValueError, match=r"lane 0, agent 0: action 1 \(?.*not available; available are 3 \(go idle\)"):
        env.step(torch.tensor([[GO_A, STAY, STAY], [STAY, STAY, STAY]]))
    step = env.step(torch.tensor([[GO_IDLE, GO_A, GO_B], [GO_A, GO_B, STAY]]))
    assert step.reward.tolist() == [1, 1]


def test_absent_agents_are_drawn_uniformly_in_every_episode():
    env = make(n_envs=3000, absent_agents=1)
    alive = env.reset().alive.clone()
    assert (alive.sum(1) == 2).all()
    assert (~alive).float().mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    assert 0.6 < (env.reset().alive != alive).any(1).float().mean() < 0.73  # another one in two of three episodes


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"n_agents": 1}, "n_agents=1 must be at least 2"),
        ({"noise": -1}, "noise=-1 must be at least 0"),
        ({"goal": 0.0}, r"goal=0.0 must be within \(0, 1\]"),
        ({"absent_agents": 3}, r"absent_agents=3 must be within \[0, 2\]"),
        ({"episode_limit": 0}, "episode_limit=0 must be at least 1"),
    ],
)
def test_bad_sizes_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)
