"""Episodes of Overcooked that begin in the middle: where cooks stand, what hands and pots hold, and how often."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from envs.base import check_env
from envs.overcooked import Overcooked
from marl.core.types import ConfigError
from tests.support.overcooked_parts import LAYOUTS, kitchen

LANES = 800
TOMATOES = {"grid": "XXPXX\nO  2T\nX1  X\nXDXSX", "orders": [[3, 0], [1, 2]]}


def begun(**changes: Any) -> Overcooked:
    env = kitchen(LANES, seed=3, **{"obs": "features", "random_start": 1.0, **changes})
    env.reset()
    return env


def about(count: int, share: float, of: int = LANES) -> bool:
    """Whether ``count`` is within four deviations of what a share of ``of`` draws comes to."""
    return abs(count - share * of) < 4 * (of * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cooks_stand_where_they_can_walk_and_hold_any_thing(layout: str) -> None:
    env = begun(layout=layout)
    lanes = [env.cooks(lane) for lane in range(LANES)]
    for i, reach in enumerate(env.layout.reach):
        places = Counter(cooks[i].y * env.layout.width + cooks[i].x for cooks in lanes)
        assert set(places) == reach
        held = Counter(cooks[i].held and (cooks[i].held.name, cooks[i].held.onions) for cooks in lanes)
        assert set(held) == {None, ("onion", 0), ("soup", 3), ("dish", 0)}
        assert all(about(count, 1 / 4) for count in held.values())
        assert all(about(count, 1 / 4) for count in Counter(cooks[i].way for cooks in lanes).values())
    assert all(one[:2] != two[:2] for one, two in lanes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pots_are_filled_to_any_height_and_full_ones_have_cooked_for_any_time(layout: str) -> None:
    env = begun(layout=layout)
    things = [env.things(lane) for lane in range(LANES)]
    pots = [divmod(tile, env.layout.width)[::-1] for tile in env._rules.pots.tolist()]
    assert {place for lane in things for place in lane} == set(pots), "nothing lies on counters"
    for pot in pots:
        soups = [lane[pot] for lane in things if pot in lane]
        sizes = Counter(soup.onions for soup in soups)
        assert set(sizes) == {1, 2, 3} and all(about(count, 1 / 4) for count in sizes.values())
        assert {soup.ticks for soup in soups if soup.onions < 3} == {-1}
        assert {soup.ticks for soup in soups if soup.onions == 3} == set(range(21))


def test_soups_are_of_what_the_kitchen_has_and_full_ones_may_wait_for_a_hand() -> None:
    env = begun(**TOMATOES, auto_cook=False)
    pots = [soup for lane in range(LANES) for soup in env.things(lane).values()]
    held = [cook.held for lane in range(LANES) for cook in env.cooks(lane) if cook.held]
    full = {(n, 3 - n) for n in range(4)}
    assert {(soup.onions, soup.tomatoes) for soup in pots if soup.onions + soup.tomatoes == 3} == full
    assert {(item.onions, item.tomatoes) for item in held if item.name == "soup"} == full
    assert {item.name for item in held} == {"onion", "tomato", "dish", "soup"}
    waiting = [soup.ticks == -1 for soup in pots if soup.onions + soup.tomatoes == 3]
    assert about(sum(waiting), 1 / 2, len(waiting))


@pytest.mark.parametrize("obs", ["lossless", "features_and_state"])
def test_what_is_seen_is_what_is_there(obs: str) -> None:
    env = kitchen(40, seed=3, obs=obs, random_start=1.0)
    seen, twin = env.reset(), kitchen(40, obs=obs)
    twin.reset()
    for lane in range(40):
        same = twin.arrange(env.cooks(lane), env.things(lane), lane)
    assert torch.equal(seen.obs, same.obs) and torch.equal(seen.state, same.state)
    assert torch.equal(env.block_features("cells"), twin.block_features("cells"))


def test_every_episode_begins_elsewhere() -> None:
    env = begun()
    before = [(env.cooks(lane), env.things(lane)) for lane in range(LANES)]
    env.reset(mask=torch.ones(LANES, dtype=torch.bool))
    assert sum(before[lane] == (env.cooks(lane), env.things(lane)) for lane in range(LANES)) < LANES / 20


def test_it_is_a_share_of_the_episodes_and_at_zero_nothing_is_drawn() -> None:
    plain, some = begun(random_start=0.0), begun(random_start=0.3)
    first = plain.cooks(0)
    middle = sum(some.cooks(lane) != first or bool(some.things(lane)) for lane in range(LANES))
    assert about(middle, 0.3)
    assert all(plain.cooks(lane) == first and not plain.things(lane) for lane in range(LANES))
    rng = plain._board.lanes["rng"].copy()
    plain.reset(mask=torch.ones(LANES, dtype=torch.bool))
    assert np.array_equal(plain._board.lanes["rng"], rng)


def test_contract() -> None:
    check_env(lambda n, s: kitchen(n, s, obs="features", episode_limit=45, random_start=0.5))


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_chance_is_within_0_and_1(share: float) -> None:
    with pytest.raises(ConfigError, match="random_start"):
        kitchen(random_start=share)
