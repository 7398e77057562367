"""Overcooked by hand: walking, cooking, serving, events, planes, features, what can be blocked; and its contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import pytest
import torch

from envs.base import check_env
from envs.overcooked import Overcooked
from envs.overcooked.layout import parse
from envs.overcooked.pieces import Cook, Item
from marl.core.types import ConfigError, Obs, Step
from tests.support.overcooked_parts import kitchen, play, set_up

N, S, E, W, STAY, USE = range(6)
ONION, DISH, TOMATO, SOUP = Item("onion"), Item("dish"), Item("tomato"), Item("soup", 3)
# cramped_room:   XXPXX
#                 O  2O
#                 X1  X
#                 XDXSX
POT = (2, 0)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def happened(env: Overcooked, step: Step, who: int = 0) -> set[str]:
    return {name for name, yes in zip(env.event_names, step.info["events"][0, who].tolist(), strict=True) if yes}


@pytest.mark.parametrize("layout", ["cramped_room", "forced_coordination"])
@pytest.mark.parametrize("obs", ["lossless", "features", "features_and_state"])
def test_contract(layout: str, obs: str) -> None:
    check_env(lambda n, s: kitchen(n, s, layout=layout, obs=obs, episode_limit=45, auto_cook=obs == "features"))


class StalePlanes(Overcooked):
    """A broken twin: a masked reset keeps the old planes."""

    def reset(self, seed: int | None = None, mask: torch.Tensor | None = None) -> Obs:
        before = self._out.obs.copy()
        obs = super().reset(seed, mask)
        if mask is not None:
            self._out.obs[:] = before
        return obs


def test_stale_planes_are_noticed() -> None:
    env = kitchen(3, episode_limit=45)
    twin = kitchen(3, episode_limit=45)
    twin.__class__ = StalePlanes
    for game in (env, twin):
        game.reset()
        for _ in range(45):
            game.step(torch.full((3, 2), E))
        game.reset(mask=torch.tensor([True, False, True]))
    fresh = kitchen(1, episode_limit=45).reset().obs[0]
    assert torch.equal(env._obs.obs[0], fresh) and not torch.equal(twin._obs.obs[0], fresh)


# --- walking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "actions", "after", "ways", "why"),
    [
        ([(1, 1), (3, 2)], [E, W], [(2, 1), (2, 2)], "EW", "free floor"),
        ([(1, 1), (3, 1)], [E, W], [(1, 1), (3, 1)], "EW", "they would meet"),
        ([(1, 1), (2, 1)], [E, W], [(1, 1), (2, 1)], "EW", "they would change places"),
        ([(1, 1), (2, 1)], [E, STAY], [(1, 1), (2, 1)], "EN", "the other stands there"),
        ([(1, 1), (2, 1)], [E, E], [(2, 1), (3, 1)], "EE", "the other leaves"),
        ([(1, 1), (2, 1)], [E, N], [(1, 1), (2, 1)], "EN", "the other only turns to the pot"),
        ([(1, 1), (3, 1)], [W, USE], [(1, 1), (3, 1)], "WN", "a dispenser in the way"),
        ([(1, 1), (3, 2)], [S, N], [(1, 2), (3, 1)], "SN", "south and north"),
        ([(1, 1), (1, 2)], [S, E], [(1, 2), (2, 2)], "SE", "one follows"),
    ],
)
def test_who_walks(cells, actions: list[int], after, ways: str, why: str) -> None:
    env = set_up(Cook(*cells[0]), Cook(*cells[1]))
    play(env, actions)
    assert [(cook.x, cook.y) for cook in env.cooks()] == after, why
    assert "".join(cook.way for cook in env.cooks()) == ways


def test_a_collision_keeps_both_where_they_were() -> None:
    """One heads for where the other stays: the one that would have been free to go stays as well."""
    env = set_up(Cook(1, 1), Cook(2, 1))
    play(env, [E, W], [E, STAY])
    assert [(cook.x, cook.y) for cook in env.cooks()] == [(1, 1), (2, 1)]


# --- cooking ---------------------------------------------------------------------------------------------------------


def test_a_soup_from_the_first_onion_to_the_window() -> None:
    """Three onions by one player, the dish by the other: the clock of the classic game."""
    env = kitchen()
    env.reset()
    play(env, [N, STAY], [W, STAY])  # (1, 1) facing the onions
    for k in range(3):
        step = play(env, [USE, STAY])
        assert env.cooks()[0].held == ONION and "onion_pickup" in happened(env, step)
        play(env, [E, S] if k == 0 else [E, STAY], [N, STAY])
        step = play(env, [USE, STAY])
        assert {"potting_onion", "optimal_onion_potting", "viable_onion_potting"} == happened(env, step)
        assert step.info["shaped"].tolist() == [[3, 0]] and float(step.reward) == 0
        assert env.things() == {POT: Item("soup", k + 1, 0, 1 if k == 2 else -1)}
        if k < 2:
            play(env, [W, STAY], [W, STAY])
    play(env, [W, W], [STAY, W])
    step = play(env, [STAY, S], [STAY, USE])  # the other at (1, 2) takes a dish
    assert happened(env, step, 1) == {"dish_pickup", "useful_dish_pickup"}
    assert step.info["shaped"].tolist() == [[0, 3]]
    assert env.things()[POT].ticks == 5
    play(env, [STAY, E], [STAY, N], [STAY, N])
    for ticks in range(9, 20):
        step = play(env, [STAY, USE])
        assert not happened(env, step, 1) and env.things()[POT].ticks == ticks
    step = play(env, [STAY, STAY])
    assert env.things()[POT].ticks == 20
    step = play(env, [STAY, USE])
    assert happened(env, step, 1) == {"soup_pickup"} and step.info["shaped"].tolist() == [[0, 5]]
    assert env.cooks()[1].held == SOUP and env.things() == {}
    play(env, [STAY, E], [STAY, S], [STAY, S])
    step = play(env, [STAY, USE])
    assert float(step.reward) == 20 and happened(env, step, 1) == {"soup_delivery"} and step.info["won"].all()
    assert env.cooks()[1].held is None and not step.terminated.any()
    assert float(play(env, [STAY, USE]).reward) == 0


def test_three_ingredients_cook_by_themselves_only_with_auto_cook() -> None:
    for auto, empty_hands, ticks in ((True, False, 6), (True, True, 6), (False, False, -1), (False, True, 5)):
        env = set_up(Cook(2, 1, held=ONION), Cook(1, 2), {POT: Item("soup", 2)}, auto_cook=auto)
        play(env, [USE, STAY], [USE if empty_hands else STAY, STAY], *[[STAY, STAY]] * 4)
        assert env.things() == {POT: Item("soup", 3, 0, ticks)}


def test_empty_hands_start_an_unfinished_soup_only_without_auto_cook() -> None:
    for auto, ticks in ((True, -1), (False, 1)):
        env = set_up(Cook(2, 1), Cook(1, 2), {POT: Item("soup", 1)}, auto_cook=auto)
        step = play(env, [USE, STAY])
        assert env.things() == {POT: Item("soup", 1, 0, ticks)}
        assert step.info["station"].tolist() == [[-1 if auto else 2, -1]]
    env = set_up(Cook(2, 1, held=SOUP._replace(onions=1)), Cook(3, 2, "S", Item("soup", 1)))
    assert float(play(env, [STAY, USE]).reward) == 0  # nobody ordered it
    assert env.cooks()[1].held is None


@pytest.mark.parametrize(
    ("held", "soup", "why"),
    [
        (ONION, Item("soup", 3, 0, 7), "it cooks"),
        (ONION, Item("soup", 3, 0, 20), "it is done"),
        (DISH, Item("soup", 3, 0, 19), "one step too early"),
        (DISH, Item("soup", 2), "it is not full"),
        (SOUP, Item("soup", 3, 0, 20), "no empty dish"),
        (None, Item("soup", 3, 0, 20), "no dish"),
        (DISH, None, "there is none"),
    ],
)
def test_what_a_pot_refuses(held: Item | None, soup: Item | None, why: str) -> None:
    env = set_up(Cook(2, 1, held=held), Cook(1, 2), {} if soup is None else {POT: soup})
    step = play(env, [USE, STAY])
    assert env.cooks()[0].held == held and not happened(env, step), why
    assert step.info["station"].tolist() == [[-1, -1]] and step.info["shaped"].tolist() == [[0, 0]]


@pytest.mark.parametrize("held", [ONION, DISH, TOMATO, SOUP])
def test_counters_hold_one_thing(held: Item) -> None:
    env = set_up(Cook(1, 1, "N", held), Cook(3, 1, "N", DISH))
    step = play(env, [USE, STAY])
    assert env.things() == {(1, 0): held} and env.cooks()[0].held is None
    assert f"{held.name}_drop" in happened(env, step) and step.info["station"].tolist() == [[1, -1]]
    play(env, [STAY, USE], [S, W], [STAY, W], [STAY, N])
    assert env.things() == {(1, 0): held, (3, 0): DISH}
    assert env.cooks()[1] == Cook(1, 1, "N")
    step = play(env, [STAY, USE])
    assert env.cooks()[1].held == held and env.things() == {(3, 0): DISH}
    assert f"{held.name}_pickup" in happened(env, step, 1)


def test_the_first_player_acts_first() -> None:
    """Both reach for the onion on the counter between them; then one puts it back and the other takes it at once."""
    env = set_up(Cook(3, 1, "W"), Cook(1, 1, "E"), {(2, 1): ONION}, layout="forced_coordination")
    step = play(env, [USE, USE])
    assert [cook.held for cook in env.cooks()] == [ONION, None]
    assert step.info["station"].tolist() == [[7, -1]]
    step = play(env, [USE, USE])
    assert [cook.held for cook in env.cooks()] == [None, ONION] and env.things() == {}
    assert step.info["station"].tolist() == [[7, 7]]


def test_useful_or_not() -> None:
    """An onion is useless when all pots are full, unless the partner has a dish; a dish needs a soup that has begun."""
    full, cooking = {POT: Item("soup", 3, 0, 3)}, "useful_onion_pickup"
    for things, mate, useful in ((full, None, False), (full, DISH, True), ({}, None, True)):
        env = set_up(Cook(1, 1, "W"), Cook(3, 1, "E", mate), things)
        assert (cooking in happened(env, play(env, [USE, STAY]))) is useful
    on_counter = {**full, (0, 2): DISH}
    for things, mate, useful in (({}, None, 0), (full, None, 1), (full, DISH, 0), (on_counter, None, 0)):
        env = set_up(Cook(1, 2, "S"), Cook(3, 1, "E", mate), things)
        step = play(env, [USE, STAY])
        assert ("useful_dish_pickup" in happened(env, step)) == useful
        assert step.info["shaped"].tolist() == [[3 * useful, 0]]


def test_a_tomato_in_an_onion_soup_is_a_catastrophe() -> None:
    env = set_up(Cook(2, 1, "N", TOMATO), Cook(1, 2, "N", ONION), {POT: Item("soup", 1)})
    assert happened(env, play(env, [USE, STAY])) == {"potting_tomato", "catastrophic_tomato_potting"}
    step = play(env, [E, E], [STAY, N], [STAY, USE])
    assert happened(env, step, 1) == {"potting_onion", "useless_onion_potting", "optimal_onion_potting"}
    assert env.things() == {POT: Item("soup", 2, 1, 1)}


# --- the rest --------------------------------------------------------------------------------------------------------


def test_the_clock_truncates_and_lanes_are_independent() -> None:
    env, rng = kitchen(7, layout="coordination_ring", episode_limit=30), np.random.default_rng(0)
    actions = torch.from_numpy(rng.integers(0, 6, (30, 7, 2)))
    env.reset()
    many = [env.step(actions[t]).next.obs.clone() for t in range(30)]
    alone = kitchen(1, layout="coordination_ring", episode_limit=30)
    alone.reset()
    for t in range(30):
        step = alone.step(actions[t, 4:5])
        assert torch.equal(step.next.obs[0], many[t][4]) and bool(step.truncated) == (t == 29)


def test_any_kitchen_as_text() -> None:
    layout = parse("XTPXX/O  2O/X1  S/XDXPX")
    assert (layout.width, layout.height, layout.start) == (5, 4, (11, 8))
    assert parse("\n  XTPXX\n  O  2O\n  X1  S\n  XDXPX\n").start == (11, 8)
    env = kitchen(grid="XTPXX/O  2O/X1  S/XDXPX", orders=[[1, 2]], delivery_reward=7.0)
    env.reset()
    env.arrange([Cook(3, 2, "E", Item("soup", 1, 2)), Cook(1, 1, "N")], {})
    assert float(play(env, [USE, USE]).reward) == 7 and env.cooks()[1].held == TOMATO


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kitchen(grid="XXPXX/O  2O/X1 X/XDXSX"), r"rows must be equally long, they have \[5, 5, 4, 5\]"),
        (lambda: kitchen(grid="XXPXX/O  2O/X1 aX/XDXSX"), "unknown tile 'a'; allowed are ' XPOTDS12'"),
        (lambda: kitchen(grid="XX XX/O  2O/X1  X/XDPSX"), "its border must be closed, but has ' '"),
        (
            lambda: kitchen(grid="XXPXX/O   O/X1  X/XDXSX"),
            "2, where cook 1 starts, must be there once, but is there 0 times",
        ),
        (
            lambda: kitchen(grid="XXPXX/O 12O/X1  X/XDXSX"),
            "1, where cook 0 starts, must be there once, but is there 2 times",
        ),
        (lambda: kitchen(grid="XXXXX/O  2O/X1  X/XDXSX"), "there must be a tile P"),
        (lambda: kitchen(grid="XXPXX/X  2X/X1  X/XDXSX"), "there must be a tile O or T"),
        (
            lambda: kitchen(obs="pixels"),
            "obs=pixels is not known; choose one of lossless, features, features_and_state",
        ),
        (lambda: kitchen(orders=[[2, 2]]), r"orders are \[onions, tomatoes\], together 1..3, got \[2, 2\]"),
        (lambda: kitchen(orders=[]), "orders must name at least one soup"),
        (lambda: kitchen(cook_time=0), "cook_time=0 must be at least 1"),
        (lambda: kitchen(0), "n_envs=0 must be at least 1"),
        (lambda: set_up(Cook(1, 1), Cook(1, 1)), "cooks must be two on different floor tiles"),
        (lambda: set_up(Cook(1, 1), Cook(0, 0)), "cooks must be two on different floor tiles"),
        (lambda: set_up(Cook(1, 1), Cook(2, 1), {(1, 2): DISH}), r"on counters and in pots only, got \(1, 2\)"),
        (lambda: set_up(Cook(1, 1, "N", Item("soup", 4)), Cook(2, 1)), "a soup with 1..3 ingredients; got"),
    ],
)
def test_bad_arguments_are_one_clear_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)
