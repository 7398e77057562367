"""Football: how the engine is driven, on a stand-in; and, where the engine is installed, matches kept from it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from envs.adapters.football import Football
from envs.adapters.football.engine import ACTIONS, IDLE, LEFT, RIGHT, SHORT_PASS, Builder, Engine, _go_on, levels
from envs.adapters.football.game import FootballGame, _MakeFootball
from envs.adapters.football.scene import NORMAL, Who, read_scene
from envs.adapters.pool import Pool, require_package
from envs.adapters.worker import Outcome, View
from envs.base import ContractError, check_env
from marl.core.types import ConfigError
from tests.support.football_parts import ACADEMY, info, needs_engine, pretended, rules, scene

__all__ = ["pretended"]  # a fixture
LEVEL = "academy_3_vs_1_with_keeper"
GOLDEN = Path(__file__).parents[2] / "data" / "football.json"
SHOT, SLIDE = ACTIONS.index("shot"), ACTIONS.index("sliding")


def football(n_envs: int = 1, seed: int = 0, **changed: Any) -> Pool:
    return Football(**{**ACADEMY, **changed}, n_envs=n_envs, seed=seed)


def view(n: int = 3, size: int = 26) -> View:
    return View(np.zeros((n, size), np.float32), np.zeros(size, np.float32), np.zeros((n, 19), bool), np.zeros(n, bool))


def game(level: str = LEVEL, agents: int = 3, enemies: int = 2, observe: Who = "last", **changed: Any) -> FootballGame:
    return _MakeFootball(level, agents, enemies, observe, 1.0, 10, rules(episode_limit=150, **changed))()


def acts(*names: str) -> np.ndarray:
    return np.array([ACTIONS.index(name) for name in names])


# ------------------------------------------------------------------------------------------------ on a stand-in


@pytest.mark.usefixtures("pretended")
def test_a_match_by_hand() -> None:
    match, seen = game(), view()
    match.reset(8, seen)
    env = match.engine.env
    assert env.started == 1 and env.game_config.physics_steps_per_frame == 10 and env.config.left_agents == 3
    config = env.config
    assert (config.game_engine_random_seed, config.reverse_team_processing, config.right_agents) == (8, False, 0)
    assert config.real_time is False and env.halted == 0, "the engine went on until play began"
    assert seen.avail.all() and seen.alive.all() and seen.obs[0, :4].tolist() == pytest.approx([0.6, 0, 0.1, 0.2])
    for _ in range(3):
        assert match.step(acts("right", "idle", "left"), seen) == Outcome(0.0, False, False, False)
    assert env.actions[:3] == [(0, "right"), (1, "idle"), (2, "left")]
    assert seen.state[:6].tolist() == pytest.approx([0.9, 0, 0.7, 0.2, 0.4, -0.2])
    assert match.step(acts("shot", "idle", "idle"), seen) == Outcome(100.0, True, False, True)
    match.reset(9, seen)
    assert env.started == 1 and env.config.reverse_team_processing is True
    assert match.step(acts("shot", "idle", "idle"), seen).reward == 100, "the score of the match before is forgotten"


@pytest.mark.usefixtures("pretended")
def test_what_is_out_of_play_is_passed_over_and_made_to_go_on() -> None:
    match = game(reward="goals")
    match.reset(1, view())
    match.step(acts("sliding", "idle", "idle"), view())
    assert match.engine.env.halted == 0 and match.scene.mode == 3 and match.engine.waited == 1
    for _ in range(19):
        match.step(acts("idle", "idle", "idle"), view())
    assert match.engine.waited == 20
    match.step(acts("left", "left", "left"), view())
    assert match.engine.env.actions[-3:] == [(0, "short_pass"), (1, "short_pass"), (2, "short_pass")]
    assert match.scene.mode == NORMAL and match.engine.waited == 0


def test_who_holds_the_ball_too_long_runs() -> None:
    waiting = scene(owner_team=0, owner=2)  # agent 1's
    assert [_go_on(waiting, 1, SHOT, waited) for waited in (0, 19, 20, 21, 29, 30, 40)] == [
        SHOT, SHOT, SHORT_PASS, RIGHT, RIGHT, LEFT, LEFT
    ]  # fmt: skip
    assert [_go_on(waiting, 0, SHOT, waited) for waited in (19, 20, 21, 30)] == [SHOT, SHORT_PASS, IDLE, IDLE]
    assert _go_on(scene(owner_team=1, owner=2), 1, SHOT, 21) == IDLE, "it is the others' ball"


@pytest.mark.usefixtures("pretended")
def test_an_empty_team_gets_a_keeper_and_the_seed_says_who_kicks_off() -> None:
    engine = Engine("kick_off", 1, 10)
    (keeper,) = engine.scenario(3).right_team
    assert (keeper.x, keeper.y, keeper.role, keeper.lazy) == (-1.0, 0.42, "GK", True)
    assert [engine.scenario(seed).left_team[1].x for seed in (2, 3)] == [-0.1, -0.2]
    assert len(engine.scenario(2).left_team) == 2
    builder = Builder(engine.lib, 0)
    builder.SetTeam("right")
    builder.AddPlayer(0.1, 0.2, "CM")
    assert not builder.config().left_team and builder.config().right_team[0].lazy is False


@pytest.mark.usefixtures("pretended")
def test_contract() -> None:
    check_env(lambda n, s: football(n, s, episode_limit=7), steps=18)


@pytest.mark.usefixtures("pretended")
def test_an_engine_that_remembers_the_match_before_would_be_seen() -> None:
    with pytest.raises(ContractError, match=r"\[seed\]"):
        check_env(lambda n, s: football(n, s, episode_limit=7, level="leaky"), steps=18)


@pytest.mark.usefixtures("pretended")
def test_lanes_and_time_outs_of_the_pool() -> None:
    env = football(2, episode_limit=2)
    env.reset()
    env.step(torch.full((2, 3), IDLE))
    step = env.step(torch.tensor([[SHOT, IDLE, IDLE], [IDLE, IDLE, IDLE]]))
    assert step.reward.tolist() == [100, -1] and step.info["won"].tolist() == [True, False]
    assert step.terminated.tolist() == [True, False] and step.truncated.tolist() == [False, True]
    assert env.spec.action_names == ACTIONS and env.spec.idle_action == IDLE and env.spec.noop_action is None
    assert env.resumable and env.render(1).shape == (265, 512, 3)
    env.close()


REFUSED = {
    "level=academy_3_vs_2 is not known; choose one of academy_3_vs_1_with_keeper, kick_off, leaky": {
        "level": "academy_3_vs_2"
    },
    "env.reward=scoring is not known; choose one of goals, fox, mean": {"reward": "scoring"},
    "env.observe=all is not known; choose one of last, controlled": {"observe": "all"},
    "env.agents=0 must be at least 1": {"agents": 0},
    "env.enemies=-1 must be at least 1": {"enemies": -1},
    "env.episode_limit=0 must be at least 1": {"episode_limit": 0},
    "env.physics_steps_per_frame=0 must be at least 1": {"physics_steps_per_frame": 0},
    "env.pos_limit=2 must be within [-1, 1], or null": {"pos_limit": 2},
    "env.scale_directions=0 must be above 0": {"scale_directions": 0},
    "env.agents=5 must be at most 4, the players of academy_3_vs_1_with_keeper": {"agents": 5},
    "env.enemies=3 must be at most 2, the players of academy_3_vs_1_with_keeper": {"enemies": 3},
    "env.agents=2 must be at most 1, the players of kick_off": {"level": "kick_off", "agents": 2, "enemies": 1},
}


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_played_is_one_line(line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        football(**REFUSED[line])
    assert line in str(refused.value) and "\n" not in str(refused.value)


def test_without_the_engine_one_line_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gfootball_engine" else found(name))
    with pytest.raises(ConfigError) as refused:
        football()
    wanted = "the environment needs the package 'gfootball_engine', which is not installed: make football"
    assert str(refused.value) == wanted
    with pytest.raises(ConfigError, match=r"'gfootball_engine'.*make football"):
        require_package("gfootball_engine")


# ------------------------------------------------------------------------------------------- with the engine itself


def replayed(match: FootballGame, kept: dict[str, Any]) -> tuple[list[float], str, Outcome]:
    """Play the kept actions; return rewards, the digest of all states and observations, and the last outcome."""
    n, size = match.spec.n_agents, match.spec.obs_dim
    seen, digest, rewards = view(n, size), hashlib.sha256(), []
    match.reset(kept["seed"], seen)
    digest.update(seen.state.tobytes() + seen.obs.tobytes())
    for actions in kept["actions"]:
        outcome = match.step(np.array(actions), seen)
        rewards.append(outcome.reward)
        digest.update(seen.state.tobytes() + seen.obs.tobytes())
    return rewards, digest.hexdigest(), outcome


def kept_matches() -> list[dict[str, Any]]:
    found = json.loads(GOLDEN.read_text())
    assert isinstance(found, list)
    return found


def kept_game(one: dict[str, Any]) -> FootballGame:
    return game(one["level"], one["agents"], one["enemies"], pos_limit=one["pos_limit"], checkpoints=True)


@needs_engine
def test_kept_matches_play_again_whatever_was_played_before() -> None:
    """Three matches, played twice in other orders in one engine: a fresh one, and one with a past."""
    kept = kept_matches()
    matches = {one["level"]: kept_game(one) for one in kept}
    for one in [*kept, *reversed(kept)]:
        rewards, digest, last = replayed(matches[one["level"]], one)
        assert rewards == pytest.approx(one["rewards"]) and digest == one["digest"]
        assert [last.terminated, last.truncated, last.won] == one["last"]


@needs_engine
def test_another_action_would_be_seen() -> None:
    one = kept_matches()[0]
    other = {**one, "actions": [[(one["actions"][0][0] + 1) % 19, *one["actions"][0][1:]], *one["actions"][1:]]}
    assert replayed(kept_game(one), other)[1] != one["digest"]


@needs_engine
def test_contract_of_the_engine() -> None:
    check_env(lambda n, s: football(n, s, episode_limit=6), steps=14)


@needs_engine
def test_every_configured_scenario_is_there_and_normal_play_is_0() -> None:
    import gfootball_engine

    assert int(gfootball_engine.e_GameMode.e_GameMode_Normal) == NORMAL
    there = {"academy_counterattack_hard", "academy_counterattack_easy", "academy_corner", "5_vs_5", LEVEL,
             "academy_run_pass_and_shoot_with_keeper"}  # fmt: skip
    assert there <= set(levels())
    assert read_scene(info(), 1).mode == NORMAL
