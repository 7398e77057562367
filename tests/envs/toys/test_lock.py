"""The formation lock: contract, episodes by hand in both forms, where the location goes, pictures, refused sizes; and
what value tables learn in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algos.count import CountBonus
from algos.fox.formation import Formations
from envs.base import check_env
from envs.toys.lock import FormationLock
from marl.core.types import ConfigError
from tests.support.helpers import compose_train
from tests.support.lock_tables import OPTIONS, opened


def make(n_envs: int = 1, seed: int = 0, **changes: Any) -> FormationLock:
    game = {**OPTIONS, "depth": 3, "cells": 5, "episode_limit": 9, "key": 0, **changes}
    return FormationLock(**game, n_envs=n_envs, seed=seed)


def play(env: FormationLock, *pairs: tuple[bool, bool]) -> list[Any]:
    """Play one lane's steps in which the agents do the right thing, or not, and return where they stand then."""
    found = []
    for rights in pairs:
        _, *places = env.standing()
        notches = places if env.chains else [places[1]] * 2
        turns = [
            int((env.key[i, min(notch, env.depth - 1)] + (not right)) % env.spec.n_actions)
            for i, (notch, right) in enumerate(zip(notches, rights, strict=True))
        ]
        step = env.step(torch.tensor([turns]))
        found.append((*env.standing()[1:], float(step.reward), bool(step.terminated), bool(step.truncated)))
    return found


RIGHT, FIRST, SECOND, WRONG = (True, True), (True, False), (False, True), (False, False)


@pytest.mark.parametrize("cells", [1, 5])
@pytest.mark.parametrize("form", ["offset", "chains"])
def test_contract(form: str, cells: int) -> None:
    check_env(lambda n, s: make(n, s, form=form, cells=cells))
    check_env(lambda n, s: make(n, s, form=form, cells=cells, wrong="reset", depth=1))


def test_an_episode_by_hand() -> None:
    env = make()
    env.reset()
    assert play(env, WRONG, RIGHT, RIGHT, FIRST, SECOND, RIGHT, RIGHT) == [
        (0, 0, 0.0, False, False), (0, 1, 0.0, False, False), (0, 2, 0.0, False, False), (0, 1, 0.0, False, False),
        (0, 0, 0.0, False, False), (0, 1, 0.0, False, False), (0, 2, 0.0, False, False),
    ]  # fmt: skip
    assert play(env, RIGHT) == [(0, 3, 10.0, True, False)]
    env.reset()
    assert [found[-1] for found in play(env, *[WRONG] * 9)] == [False] * 8 + [True]


def test_a_wrong_step_may_lead_to_the_beginning() -> None:
    env = make(wrong="reset")
    env.reset()
    assert [found[1] for found in play(env, RIGHT, RIGHT, FIRST, RIGHT)] == [1, 2, 0, 1]


def test_chains_by_hand() -> None:
    """Each agent has its own place; what opens the lock is that they are 3 apart, not that one is at the end."""
    env = make(form="chains", wrong="reset")
    env.reset()
    found = play(env, RIGHT, RIGHT, SECOND, SECOND, SECOND)
    assert [f[:2] for f in found] == [(1, 1), (2, 2), (0, 3), (0, 3), (0, 3)], "once it is over nobody moves"
    assert [f[2:4] for f in found] == [(0.0, False), (0.0, False), (10.0, True), (0.0, False), (0.0, False)]


def test_at_the_end_of_its_chain_an_agent_stays() -> None:
    env = make(form="chains", wrong="reset", episode_limit=20)
    env.reset()
    found = play(env, RIGHT, RIGHT, RIGHT, FIRST, SECOND)
    assert [f[:2] for f in found] == [(1, 1), (2, 2), (3, 3), (3, 3), (3, 3)] and not any(f[3] for f in found)


def test_what_is_seen_by_hand() -> None:
    env = make(cells=5, drift=0)
    env.reset()
    play(env, RIGHT, RIGHT)
    location = env.standing()[0] / 5
    step = env.step(env.key[:, 2][None])
    assert step.next.obs[0].flatten().tolist() == pytest.approx([0, location, 0, 0, 0, 1, 1, location, 0, 0, 0, 1])
    assert step.next.state[0].tolist() == pytest.approx([0, 1, location])
    assert step.info["formation"].tolist() == [3]
    assert step.info["positions"].tolist() == [round(location * 5) * 16 + 3]
    chains = make(form="chains", cells=1)
    chains.reset()
    play(chains, FIRST)
    obs = chains._obs.obs[0]
    assert obs[:, 2:].tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]] and obs[:, 0].tolist() == pytest.approx([1 / 3, 0])


def test_the_right_actions_belong_to_the_key_and_not_to_the_seed() -> None:
    assert make(seed=1).key.tolist() == make(seed=2, n_envs=3).key.tolist() == [[3, 2, 2], [1, 1, 0]]
    assert make(key=1).key.tolist() != make().key.tolist()


def locations(cells: int, drift: int, lanes: int = 400) -> Tensor:
    env = make(lanes, cells=cells, drift=drift)
    env.reset()
    seen = [env._board.location.copy()]
    for _ in range(6):
        env.step(torch.zeros(lanes, 2, dtype=torch.long))
        seen.append(env._board.location.copy())
    return torch.from_numpy(np.stack(seen))


def test_the_location_is_drawn_and_drifts_around_the_ring() -> None:
    seen = locations(7, 2)
    assert sorted(set(seen[0].tolist())) == list(range(7))
    shift = (seen[1:] - seen[:-1] + 2) % 7
    assert sorted(set(shift.flatten().tolist())) == [0, 1, 2, 3, 4], "by -2..2, also over the ring's seam"
    assert torch.equal(locations(7, 0)[0], locations(7, 0)[5]) and not locations(1, 2).any()


def counters(cells: int, rounds: int = 60) -> tuple[int, int, int]:
    """Return how many cells the joint counts, how many formations FoX and how many places the game tell apart."""
    env = make(64, cells=cells, drift=1)
    torch.manual_seed(0)
    count = CountBonus(env.spec, scale=1.0, resolution=1e6, features=["place$", "^location"])
    fox = Formations(
        torch.randn(9, 2), decimals=3, features=[0, 1], partners="minmax", mask_dead=False, canonical=False
    )
    gen, obs, found = torch.Generator().manual_seed(1), env.reset(), [set[int](), set[int](), set[int]()]
    for _ in range(rounds):
        guess = torch.randint(4, (64, 2), generator=gen)
        at = env._board.place[:, 1].clip(max=env.depth - 1)
        lucky = torch.rand(64, 1, generator=gen) < 0.6
        step = env.step(torch.where(lucky, env.key.T[at], guess))
        found[0].update(count.cells(step.next.state).tolist())
        found[1].update(fox(step.next.obs, torch.ones(64, 2, dtype=torch.bool))[2].tolist())
        found[2].update(step.info["positions"].tolist())
        obs = env.reset(mask=step.terminated | step.truncated)
    assert obs.obs.shape == (64, 2, 6)
    return len(found[0]), len(found[1]), len(found[2])


def test_with_one_location_formations_are_joint_positions_and_with_more_they_are_fewer() -> None:
    assert counters(1) == (4, 4, 4)
    assert counters(5) == (20, 4, 20)


def test_tables_tell_the_counts_apart_by_the_number_of_locations() -> None:
    """Two seeds of the experiment in docs/fox.md, with fewer locations and episodes."""
    for seed in (0, 1):
        alike = [opened(bonus, seed, 1, episodes=1500) for bonus in ("formation", "positions")]
        assert (alike[0] == alike[1]).all() and alike[0][-300:].mean() > 0.5
        assert opened("formation", seed, 16384, episodes=1500)[-300:].mean() > 0.5
        assert not opened("positions", seed, 16384, episodes=1500).any()
        assert not opened("none", seed, 1, episodes=1500).any()


def test_the_tables_play_the_game_of_the_configuration(tmp_path: Path) -> None:
    game = compose_train(tmp_path, "env=lock").env
    assert {name: game[name] for name in OPTIONS} == OPTIONS


@pytest.mark.parametrize("form", ["offset", "chains"])
def test_the_picture_shows_who_stands_where(form: str) -> None:
    env = make(form=form, cells=5, drift=0)
    env.reset()
    before = env.render()
    assert before.shape == (24 * 3 + 1, 24 * 4 + 1, 3)
    play(env, RIGHT)
    assert env.agent_places().tolist() == [[36 if form == "chains" else 12, 12, 9], [36, 36, 9]]
    assert (env.render()[36, 36] == (65, 105, 225)).all() and not (before[36, 36] == (65, 105, 225)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"cells": 0}, r"cells=0 must be within \[1, 16777216\]"),
        ({"drift": -1}, "drift=-1 must be at least 0"),
        ({"n_actions": 1}, "n_actions=1 must be at least 2"),
        ({"form": "ring"}, "form=ring is not known; choose one of offset, chains"),
        ({"wrong": "stay"}, "wrong=stay is not known; choose one of slip, reset"),
        ({"key": -1}, "key=-1 must be at least 0"),
        ({"n_envs": 0}, "n_envs=0 must be at least 1"),
    ],
)
def test_bad_arguments_are_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)
