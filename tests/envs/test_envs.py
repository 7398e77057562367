"""The contract checker against broken twins, and every adapter against the contract."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces

from envs.adapters.gym import Gym
from envs.adapters.pettingzoo import PettingZoo
from envs.adapters.smacv2 import SMACv2
from envs.adapters.spaces import TeamSpaces, pool_rewards
from envs.base import RULES, ContractError, check_env, refuse_unavailable
from envs.streams import LaneStreams, lane_keys
from marl.core.types import ConfigError
from tests.support.broken import BROKEN_ENVS, Sound

# ------------------------------------------------------------------------------------------------- the checker


@pytest.mark.parametrize(("rule", "broken"), BROKEN_ENVS, ids=[twin.__name__ for _, twin in BROKEN_ENVS])
def test_broken_twin_is_rejected_for_the_right_rule(rule, broken):
    with pytest.raises(ContractError) as rejected:
        check_env(broken)
    assert rejected.value.rule == rule and RULES[rule] in str(rejected.value)


def test_every_rule_has_a_broken_twin():
    assert {rule for rule, _ in BROKEN_ENVS} == set(RULES)
    check_env(Sound)


def test_refusal_names_lane_agent_action_and_alternatives():
    avail = torch.tensor([[[True, True, True]], [[True, False, True]]])
    running = torch.tensor([True, True])
    refuse_unavailable(torch.tensor([[1], [2]]), avail, running)
    with pytest.raises(ValueError, match="lane 1, agent 0: action 1 is not available; available are 0, 2"):
        refuse_unavailable(torch.tensor([[1], [1]]), avail, running)
    with pytest.raises(ValueError, match="lane 0, agent 0: action -1 is not available; available are 0 \\(a\\), 1"):
        refuse_unavailable(torch.tensor([[-1], [0]]), avail, running, ("a", "b", "c"))
    with pytest.raises(ValueError, match=r"actions have shape \[2\], expected \[2, 1\]"):
        refuse_unavailable(torch.tensor([0, 0]), avail, running)
    refuse_unavailable(torch.tensor([[1], [7]]), avail, torch.tensor([True, False]))  # finished lanes ignore theirs


def test_streams_differ_by_seed_lane_episode_and_counter():
    streams, other = LaneStreams(4, 1), LaneStreams(4, 2)
    everything = np.ones(4, bool)
    drawn = []
    for _ in range(3):
        streams.restart(everything, None)
        other.restart(everything, None)
        drawn += [streams.draw(0), streams.draw(1), other.draw(0), other.draw(1)]
    assert len(np.unique(drawn)) == 48
    keys = np.concatenate([lane_keys(64, seed) for seed in range(64)])
    assert len(np.unique(keys)) == 64 * 64  # lane 2 of seed 1 is not lane 1 of seed 2
    resumed = LaneStreams(4, 9)
    resumed.load_state_dict(streams.state_dict())
    assert (resumed.draw(1) == streams.draw(1)).all()
    with pytest.raises(ValueError, match="saved with 4 lanes, this environment has 3"):
        LaneStreams(3, 0).load_state_dict(streams.state_dict())


# ----------------------------------------------------------------------------------------------------- adapters


def countdown(
    n_envs, seed, reward="sum", state="env", limit=5, workers=1, env="tests.support.games:Countdown", **kwargs
):
    return PettingZoo(env, kwargs, reward, state, limit, None, False, workers, n_envs=n_envs, seed=seed)


def pair(n_envs, seed, reward="sum", workers=1, rebuild=False, env="tests.support.games:Pair", limit=6, **kwargs):
    return Gym(env, kwargs, reward, limit, 0, rebuild, workers, n_envs=n_envs, seed=seed)


def test_pettingzoo_contract():
    check_env(lambda n, s: countdown(n, s, masked="obs", ending="truncated", render_mode="rgb_array"))


def test_gym_contract():
    check_env(lambda n, s: pair(n, s, env="tests.support.games:TestPair-v0"))


def test_rebuild_makes_a_game_forget():
    with pytest.raises(ContractError, match="reset\\(seed\\) after some episodes"):
        check_env(lambda n, s: pair(n, s, remembers=True))
    check_env(lambda n, s: pair(n, s, remembers=True, rebuild=True))


def test_pettingzoo_by_hand():
    """Agent 0 leaves after 2 steps, agents 1 and 2 after 3; actions and rewards in the game's own numbering."""
    env = countdown(1, 0, reward="mean", state="concat", masked="info", render_mode="rgb_array")
    spec = env.spec
    assert (spec.n_agents, spec.n_actions, spec.obs_dim, spec.state_dim) == (3, 4, 3, 9)
    assert spec.obs_low.tolist() == [0, 0, 0] and spec.obs_high.tolist() == [10, 10, 10]
    obs = env.reset()
    assert obs.avail[0].int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]  # padded actions
    assert obs.obs[0, :, 1:].tolist() == [[0, 0], [4, 0], [4, 4]]  # padded features
    step = env.step(torch.tensor([[1, 2, 3]]))
    assert step.reward.item() == pytest.approx((1 + 2 + 3) / 3)
    assert step.next.avail[0].int().tolist() == [[0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]]  # masked at odd times
    assert env.render().shape == (4, 6, 3) and env.render()[0, 0, 0] == 10
    step = env.step(torch.tensor([[1, 1, 1]]))
    assert step.next.alive.tolist() == [[False, True, True]] and not step.terminated.item()
    assert step.next.obs[0, 0].tolist() == [0, 0, 0] and step.next.avail[0, 0].tolist() == [True, False, False, False]
    assert torch.equal(step.next.state[0], step.next.obs[0].flatten())
    step = env.step(torch.tensor([[0, 2, 2]]))  # the game asserts that agent 0's action is not passed on
    assert step.reward.item() == pytest.approx((2 + 2) / 3)
    assert step.terminated.item() and not step.truncated.item() and step.info["won"].item()
    env.close()


def test_pettingzoo_truncation_keeps_the_last_observation():
    env = countdown(1, 0, ending="truncated")
    env.reset()
    for actions in ([[0, 0, 0]], [[0, 0, 0]], [[0, 0, 0]]):
        step = env.step(torch.tensor(actions))
    assert step.truncated.item() and not step.terminated.item() and not step.info["won"].item()
    assert step.next.alive.tolist() == [[False, True, True]]
    assert step.next.obs[0, 2, 1:].tolist() == [1, 1] and step.next.state[0, 0] == 3
    env.close()


def test_pettingzoo_limit_truncates_a_game_that_goes_on():
    env = countdown(1, 0, limit=2)
    env.reset()
    env.step(torch.zeros(1, 3, dtype=torch.long))
    step = env.step(torch.zeros(1, 3, dtype=torch.long))
    assert step.truncated.item() and step.next.alive.tolist() == [[False, True, True]]
    env.close()


def test_gym_by_hand():
    env = pair(1, 5, joint="multi", reward="mean")
    assert (env.spec.n_agents, env.spec.n_actions, env.spec.obs_dim) == (2, 4, 1)
    obs = env.reset()
    assert obs.avail[0].int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 0]]
    step = env.step(torch.tensor([[2, 2]]))  # the second agent's actions start at 1
    assert step.reward.item() == pytest.approx((2 + 3) / 2) and not step.terminated.item()
    step = env.step(torch.tensor([[2, 1]]))
    assert step.terminated.item() and step.info["won"].item() and step.reward.item() == pytest.approx(2)
    env.close()


def test_gymnasium_time_limit_is_a_truncation():
    env = pair(1, 0, env="tests.support.games:TestPair-v0", shared=True)
    env.reset()
    for t in range(4):
        step = env.step(torch.tensor([[0, 1]]))
        assert step.truncated.item() == (t == 3) and not step.terminated.item() and step.reward.item() == 1
    env.close()


def test_reward_pooling():
    assert pool_rewards([1, 2, 3], "sum", 3) == 6 and pool_rewards([2, 4], "mean", 3) == 2
    assert pool_rewards([2, 2], "shared", 3) == 2 and pool_rewards([], "shared", 3) == 0
    with pytest.raises(ValueError, match="reward=shared, but the agents got"):
        pool_rewards([1, 2], "shared", 2)


def test_nested_observations_are_flattened():
    space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(-1, 2, (2, 2))})
    team, row = TeamSpaces([spaces.Discrete(2)], [space]), np.empty(7, np.float32)
    team.write(0, {"a": 1, "b": np.arange(4.0).reshape(2, 2) / 2}, row)
    assert row.tolist() == [0, 1, 0, 0, 0.5, 1, 1.5] and team.low.tolist() == [0, 0, 0, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: countdown(1, 0, env="mpe2.x"), r"'mpe2'.*pip install -e .\[mpe\]"),
        (lambda: pair(1, 0, env="lbforaging:F-v3"), r"'lbforaging'.*pip install -e .\[lbf\]"),
        (lambda: countdown(1, 0, env="tests.support.games:Nope"), "no attribute 'Nope'"),
        (lambda: countdown(1, 0, reward="max"), "'sum', 'mean' or 'shared', got 'max'"),
        (lambda: countdown(1, 0, state="all"), "'env' or 'concat', got 'all'"),
        (lambda: countdown(1, 0, colour="red"), "unexpected keyword argument 'colour'"),
        (lambda: pair(1, 0, env="CartPole-v1"), "expected one space per agent"),
    ],
)
def test_bad_options_are_one_clear_line(make, message, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in ("mpe2", "lbforaging") else found(n))
    with pytest.raises(ConfigError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(importlib.util.find_spec("mpe2") is None, reason="needs mpe2: pip install -e .[mpe]")
def test_real_mpe_contract():
    kwargs = {"N": 3, "max_cycles": 10, "render_mode": "rgb_array"}
    check_env(lambda n, s: countdown(n, s, reward="mean", limit=10, env="mpe2.simple_spread_v3", **kwargs))


@pytest.mark.skipif(importlib.util.find_spec("lbforaging") is None, reason="needs lbforaging: pip install -e .[lbf]")
def test_real_foraging_contract():
    config = yaml.safe_load((Path(__file__).parents[2] / "conf/env/lbf.yaml").read_text())
    make = functools.partial(Gym, config["env"], config["kwargs"], "sum")
    check_env(lambda n, s: make(10, 0, True, 1, n_envs=n, seed=s))
    env = make(config["episode_limit"], 0, True, 1, n_envs=8)
    env.reset()
    for _ in range(50):  # nobody collects anything: the end must be the clock's, not the game's
        step = env.step(torch.zeros(8, 2, dtype=torch.long))
    assert step.truncated.all() and not step.terminated.any()
    env.close()


# -------------------------------------------------------------------------- SMACv2, with a stand-in for the package


@pytest.fixture
def starcraft(tmp_path, monkeypatch):
    """Put a stand-in package on the path of this process and of its workers, and an empty game with one map."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "support/fakes"))
    monkeypatch.setenv("SC2PATH", str(tmp_path))
    (tmp_path / "Versions").mkdir()
    (tmp_path / "Maps" / "SMAC_Maps").mkdir(parents=True)
    (tmp_path / "Maps" / "SMAC_Maps" / "32x32_flat.SC2Map").touch()
    return tmp_path


def battle(n_envs=1, seed=0, name="10gen_terran", timeout_is_terminal=False, workers=1, options=None):
    config = {"n_units": 3, "n_enemies": 2, "team_gen": {"dist_type": "weighted_teams"}}
    options = {"obs_own_pos": True} if options is None else options
    return SMACv2(name, config, options, timeout_is_terminal, workers, n_envs=n_envs, seed=seed)


def test_smacv2_contract(starcraft):
    check_env(lambda n, s: battle(n, s, workers=1), steps=20)


def test_smacv2_by_hand(starcraft):
    env = battle(2, workers=None)
    assert len({handle.process.pid for handle in env._handles}) == 2 and not env.resumable
    assert env.spec.noop_action == 0 and env.spec.obs_high.max() == 1 and env.spec.state_names == ()
    assert env.spec.action_names[-3:] == ("west", "target 0", "target 1")
    about = env.spec.about  # 4 movement, 2 enemies of 2, 2 allies of 3, 2 own
    assert about is not None
    assert about[1, 1].nonzero().flatten().tolist() == [0, 1, 2, 3, 14, 15]
    assert about[1, 0].nonzero().flatten().tolist() == [8, 9, 10]
    assert about[1, 2].nonzero().flatten().tolist() == [11, 12, 13]
    obs = env.reset()
    assert not torch.equal(obs.state[0], obs.state[1])  # scenarios are seeded per lane
    assert obs.alive.all() and not obs.avail[..., 0].any()
    fight = torch.tensor([[6, 6, 6], [1, 1, 1]])
    env.step(fight)
    step = env.step(torch.tensor([[7, 7, 7], [1, 1, 1]]))
    assert step.terminated.tolist() == [True, False] and step.info["won"].tolist() == [True, False]
    assert step.reward.tolist() == [1, 0]
    env.step(torch.tensor([[0, 0, 0], [1, 1, 1]]))
    for actions in ([0, 1, 1], [0, 1, 1], [0, 0, 1]):
        step = env.step(torch.tensor([[0, 0, 0], actions]))
    assert step.truncated.tolist() == [False, True] and not step.terminated.any()
    assert step.next.alive[1].tolist() == [False, False, True]
    env.close()


def test_smacv2_timeout_and_lost_connection(starcraft):
    env = battle(timeout_is_terminal=True)
    env.reset()
    for actions in 3 * [[1, 1, 1]] + 2 * [[0, 1, 1]] + [[0, 0, 1]]:
        step = env.step(torch.tensor([actions]))
    assert step.terminated.item() and not step.truncated.item()
    env.close()
    env = battle(name="crash", timeout_is_terminal=True)
    env.reset()
    env.step(torch.tensor([[1, 1, 1]]))
    step = env.step(torch.tensor([[1, 1, 1]]))
    assert step.truncated.item() and not step.terminated.item()  # nobody lost: the package restarted the game
    env.close()


def test_smacv2_says_what_is_missing(starcraft, monkeypatch):
    with pytest.raises(ConfigError, match="unexpected keyword argument 'obs_own_poss'"):
        battle(options={"obs_own_poss": True})
    (starcraft / "Maps" / "SMAC_Maps" / "32x32_flat.SC2Map").unlink()
    with pytest.raises(ConfigError, match=r"no maps under .*copy the folder .*SMAC_Maps"):
        battle()
    (starcraft / "Versions").rmdir()
    with pytest.raises(ConfigError, match=r"StarCraft II is not at .*unpack .* or set SC2PATH"):
        battle()
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "smacv2" else found(name))
    with pytest.raises(ConfigError, match=r"'smacv2', which is not installed: pip install -e .\[smacv2\]"):
        battle()
