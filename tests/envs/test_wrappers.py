"""State blocking by hand on Multi-Destination Spread: whose reward falls, in which lanes, and what is reported."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from inspect import getattr_static
from typing import Any

import numba
import numpy as np
import pytest
import torch

from envs.base import ContractError, check_env
from envs.grid.mds import MultiDestinationSpread
from envs.toys.games import MatrixGame
from envs.wrappers import StateBlock
from marl.core.protocols import Locating, Moving
from marl.core.types import ConfigError, Step
from marl.run.stretch import Pausing

E, W, STAY = 2, 6, 8
WEST, CENTRE, EAST = 10, 12, 14
MINI = partial(
    MultiDestinationSpread, size=5, n_agents=2, goals=[[0, 2], [4, 2]], pay=[0, 0.1, 1], episode_limit=4
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def blocked(n_envs: int = 1, seed: int = 0, **changes: Any) -> StateBlock:
    given = {"family": "goals", "sets": [[], [WEST], [WEST, EAST]], "agents": None, "penalty": 2.0} | changes
    return StateBlock(MINI, **given, n_envs=n_envs, seed=seed)


def walk(env: StateBlock, *joint: list[int]) -> Step:
    env.reset()
    for actions in joint:
        step = env.step(torch.tensor([actions]).expand(env.n_envs, -1).contiguous())
    return step


def test_the_penalty_is_that_of_the_lanes_own_set_and_the_share_of_agents_on_it() -> None:
    env = blocked(4)
    step = walk(env, [W, E], [W, E])  # both goals: 1
    assert step.info["unblocked_reward"].tolist() == [1.0] * 4
    assert step.reward.tolist() == [1.0, 0.0, -1.0, 1.0], "lane 3 plays the first set again"
    assert step.info["blocked"].tolist() == [[False, False], [True, False], [True, True], [False, False]]
    half_way = walk(env, [W, E])
    assert half_way.reward.tolist() == [0.0] * 4 and not half_way.info["blocked"].any()


def test_only_the_named_agents_are_made_to_avoid_anything() -> None:
    env = blocked(3, agents=[1])
    assert walk(env, [W, E], [W, E]).reward.tolist() == [1.0, 1.0, -1.0], "agent 1 alone, on EAST: its whole penalty"
    assert walk(env, [E, W], [E, W]).reward.tolist() == [1.0, -1.0, -1.0]


def test_a_penalty_of_zero_is_the_game_bit_for_bit_and_a_finished_lane_pays_nothing() -> None:
    env, game = blocked(3, penalty=0.0), MINI(n_envs=3, seed=0)
    env.reset(), game.reset()
    for t in range(6):
        actions = torch.tensor([[W, E]] * 3) if t < 2 else torch.full((3, 2), STAY)
        ours, theirs = env.step(actions), game.step(actions)
        assert torch.equal(ours.reward, theirs.reward) and torch.equal(ours.next.obs, theirs.next.obs)
        assert torch.equal(ours.truncated, theirs.truncated)
    heavy = blocked(3)
    assert walk(heavy, *[[W, E]] * 2, *[[STAY, STAY]] * 2).reward.tolist() == [1.0, 0.0, -1.0]
    after = heavy.step(torch.full((3, 2), STAY))
    assert after.reward.tolist() == [0.0] * 3 and not after.info["blocked"].any(), "the clock ended the episode"


def test_contract_and_what_else_the_game_can_do() -> None:
    check_env(blocked)
    env = blocked(2)
    walk(env, [W, E])
    assert env.block_features("cells").tolist() == [[11, 13]] * 2, "handed on"
    assert env.spec.info_names == ("covered", "cell", "unblocked_reward", "blocked")
    with pytest.raises(AttributeError, match="nonsense"):
        _ = env.nonsense


def test_a_game_in_hand_goes_on_with_its_penalties_and_a_finished_lane_without() -> None:
    env, other = blocked(2, sets=[[WEST, EAST]]), blocked(2, seed=9, sets=[[WEST, EAST]])
    assert isinstance(env, Pausing) and isinstance(other, Pausing)
    walk(env, *[[W, E]] * 4)
    env.reset(mask=torch.tensor([True, False]))
    seen = env.step(torch.tensor([[W, E], [STAY, STAY]])).next.obs
    assert torch.equal(other.load_midway_state(env.midway_state()).obs, seen)
    for one in (env, other):
        assert one.step(torch.tensor([[W, E], [STAY, STAY]])).reward.tolist() == [-1.0, 0.0]
    assert not isinstance(StateBlock(partial(Fixed, MINI), "goals", [[]], None, 1.0, n_envs=1), Pausing)


class Fixed:
    """A game that passes on ``spec`` and what every game has, and cannot do anything else."""

    def __init__(self, make: Any, *, n_envs: int, seed: int = 0) -> None:
        game = make(n_envs=n_envs, seed=seed)
        self.spec, self.device, self.resumable, self.n_envs = game.spec, game.device, game.resumable, n_envs


class Able(MultiDestinationSpread):
    """Can do whatever some games can."""

    def agent_places(self, lane: int = 0) -> np.ndarray:
        return np.full((2, 3), lane)

    def follow(self, training: Any) -> None:
        assert type(training) is Able
        self.followed = training


def test_what_only_some_games_can_do_is_found_without_looking_further() -> None:
    """As ``isinstance`` looks for the methods of a protocol from Python 3.12 on."""
    make = partial(Able, **MINI.keywords)
    env, training = (StateBlock(make, "goals", [[]], None, 1.0, n_envs=1) for _ in range(2))
    for protocol in (Pausing, Locating, Moving):
        assert isinstance(env, protocol)
        assert [getattr_static(env, name) for name in vars(protocol) if not name.startswith("_")]
    env.follow(training)
    assert env.followed is training.env and env.agent_places(3).tolist() == [[3.0] * 3] * 2


class Leaky(StateBlock):
    """Pays the penalty in lanes that have ended."""

    def step(self, actions: torch.Tensor) -> Step:
        self._running[:] = True
        return super().step(actions)


def test_the_contract_would_notice_a_penalty_after_the_end() -> None:
    with pytest.raises(ContractError, match="finished"):
        check_env(lambda n, s: Leaky(MINI, "cells", [list(range(25))], None, 1.0, n_envs=n, seed=s))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "doors"}, "family 'doors' cannot be blocked in this environment; there are cells, goals"),
        ({"sets": []}, "sets must hold at least one list"),
        ({"sets": [[WEST, CENTRE]]}, "sets names feature 12; goals that these agents meet are 10, 14"),
        ({"sets": [[25]]}, "sets names feature 25"),
        ({"agents": [2]}, r"agents=\[2\] must be different numbers within \[0, 1\], or null for all"),
        ({"agents": []}, "agents=.* must be different numbers"),
        ({"penalty": -1.0}, "penalty=-1.0 must be at least 0"),
    ],
)
def test_bad_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        blocked(**changes)


def test_a_game_that_says_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="there are none"):
        StateBlock(partial(MatrixGame, "climb"), "cells", [[]], None, 1.0, n_envs=1)
