"""Bonuses of a soup that waits on a counter: kept, as published, or taken back until somebody picks it up."""

from __future__ import annotations

import pytest
import torch

from envs.overcooked.pieces import Cook, Item
from tests.support.overcooked_parts import kitchen, play, set_up

N, S, E, W, STAY, USE = range(6)
DISH, SOUP = Item("dish"), Item("soup", 3)
# cramped_room:   XXPXX
#                 O  2O
#                 X1  X
#                 XDXSX
POT, SHELF = (2, 0), (1, 0)
FULL = {POT: Item("soup", 3, 0, 20)}


@pytest.mark.parametrize(("pays", "parking"), [(True, 0.0), (False, 35.0)])
def test_a_soup_on_a_counter_has_brought_nothing_until_it_is_taken_up(pays: bool, parking: float) -> None:
    """Three times ten for its onions and five for itself, to whoever moves it; serving it takes nothing back."""
    env = set_up(Cook(2, 1, "N", DISH), Cook(1, 2, "S"), dict(FULL), potting_bonus=10.0, parked_soup_pays=pays)
    assert play(env, [USE, STAY]).info["shaped"].tolist() == [[5, 0]]
    play(env, [W, STAY], [N, STAY])
    assert play(env, [USE, STAY]).info["shaped"].tolist() == [[-parking, 0]]
    assert env.things()[SHELF] == Item("soup", 3)
    play(env, [E, STAY], [E, N], [STAY, N])
    assert play(env, [STAY, USE]).info["shaped"].tolist() == [[0, parking]]
    play(env, [N, E], [STAY, E], [W, S])
    step = play(env, [STAY, E], [STAY, S], [STAY, USE])
    assert step.info["shaped"].tolist() == [[0, 0]] and float(step.reward) == 20


@pytest.mark.parametrize(("item", "onions"), [("onion", 0), ("dish", 0), ("soup", 1)])
def test_only_soups_take_back_and_only_what_is_in_them(item: str, onions: int) -> None:
    held = Item(item, onions)
    env = set_up(Cook(1, 1, "N", held), Cook(3, 2, "S"), {}, potting_bonus=10.0, parked_soup_pays=False)
    bonus = 15.0 if onions else 0.0
    assert play(env, [USE, STAY]).info["shaped"].tolist() == [[-bonus, 0]]
    assert play(env, [USE, STAY]).info["shaped"].tolist() == [[bonus, 0]]


def test_no_round_trip_of_a_soup_pays() -> None:
    """Cooks at random, each with a soup to begin with: what they earned is what is in hands, delivered and in the pot,
    less what they had."""
    env, lanes = kitchen(8, dish_bonus=0.0, parked_soup_pays=False), range(8)
    env.reset()
    for lane in lanes:
        env.arrange([Cook(1, 1, "N", SOUP), Cook(3, 2, "S", SOUP)], {}, lane)
    generator = torch.Generator().manual_seed(0)
    earned, served, parked = torch.zeros(8), torch.zeros(8), 0
    for _ in range(399):
        step = env.step(torch.randint(6, (8, 2), generator=generator))
        earned += step.info["shaped"].sum(1)
        served += step.reward / 20.0
        parked += int(step.info["events"][:, :, env.event_names.index("soup_drop")].sum())
    for lane in lanes:
        held = sum(cook.held is not None and cook.held.name == "soup" for cook in env.cooks(lane))
        potted = env.things(lane).get(POT, Item("soup")).onions
        assert float(earned[lane]) == 14.0 * (held + float(served[lane]) - 2.0) + 3.0 * potted
    assert parked >= 8
