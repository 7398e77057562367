"""Overcooked against the ``overcooked-ai`` package: thousands of steps from random positions, everything equal."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import pytest
import torch

from envs.overcooked import Overcooked
from envs.overcooked.layout import FLOOR, POT, SERVE
from envs.overcooked.pieces import Cook, Item
from tests.support.overcooked_parts import ABSENT, LAYOUTS, Package, kitchen, settings

pytestmark = pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)} (make overcooked)")

TOMATOES = "XTPXX\nO  2O\nX1  S\nXDXPX"  # no layout of the configurations has tomatoes
ORDERS = [[2, 0], [0, 3]]
LIMIT = 60  # the last 39 steps look different


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def draw_item(rng: np.random.Generator, tomatoes: bool) -> Item | None:
    """Draw nothing, an ingredient, a dish or a finished soup."""
    kind = rng.integers(5 if tomatoes else 4)
    if kind == 3:
        return Item("soup", *draw_soup(rng, tomatoes))
    return (None, Item("onion"), Item("dish"), None, Item("tomato"))[kind]


def draw_soup(rng: np.random.Generator, tomatoes: bool) -> tuple[int, int]:
    size = int(rng.integers(1, 4))
    onions = int(rng.integers(size + 1)) if tomatoes else size
    return onions, size - onions


def draw_position(env: Overcooked, rng: np.random.Generator, tomatoes: bool, auto_cook: bool):
    """Draw two cooks anywhere, things on a third of the counters, and pots in any state that the rules allow."""
    layout, width = env.layout, env.layout.width
    busy = {place for tile in layout.tiles(POT, SERVE) for place, _ in layout.stands_before(tile)}
    floor = layout.tiles(FLOOR)
    odds = np.array([4.0 if tile in busy else 1.0 for tile in floor])
    places = rng.choice(floor, 2, replace=False, p=odds / odds.sum()).tolist()
    cooks = [Cook(tile % width, tile // width, "NSEW"[rng.integers(4)], draw_item(rng, tomatoes)) for tile in places]
    things = {}
    for tile in sorted([*layout.shelves(), *layout.tiles(POT)]):
        item = draw_item(rng, tomatoes) if rng.random() < 0.3 else None
        if layout.terrain[tile] == POT:
            onions, tomatoes_in = draw_soup(rng, tomatoes)
            starts = onions + tomatoes_in == 3 or not auto_cook
            may_idle = not auto_cook or not starts
            ticks = int(rng.integers(1, 21)) if starts and (not may_idle or rng.random() < 0.5) else -1
            item = Item("soup", onions, tomatoes_in, ticks) if rng.random() < 0.5 else None
        if item is not None:
            things[tile % width, tile // width] = item
    return cooks, things


def draw_action(env: Overcooked, cook: Cook, rng: np.random.Generator) -> int:
    """Draw actions; cooks mostly use what they face, or soups would hardly ever be served."""
    way = "NSEW".index(cook.way)
    ahead = env.layout.terrain[cook.y * env.layout.width + cook.x + env.layout.steps[way]]
    return 5 if ahead != FLOOR and rng.random() < 0.6 else int(rng.integers(6))


def compare(env: Overcooked, other: Overcooked, package: Package) -> None:
    """Compare positions, things and both forms of observation; ``env`` sees planes, ``other`` features."""
    for ours in (env, other):
        assert ours.cooks() == package.cooks() and ours.things() == package.things()
    planes, features = package.observe(LIMIT)
    assert np.array_equal(env._obs.obs[0].numpy().reshape(planes.shape), planes)
    wrong = np.flatnonzero((other._obs.obs[0].numpy() != features).any(0))
    assert not len(wrong), [other.spec.obs_names[d] for d in wrong]


def compare_games(layout: str, auto_cook: bool, counters: bool, games: int, grid: str | None = None) -> dict[str, int]:
    """Play ``games`` of LIMIT steps from random positions; return how often each event took place."""
    orders = ORDERS if grid else [[3, 0]]
    changes = {"auto_cook": auto_cook, "counter_features": counters, "episode_limit": LIMIT, "orders": orders}
    given = {**changes, **({"grid": grid} if grid else {"layout": layout})}
    env, other = kitchen(obs="lossless", **given), kitchen(obs="features", **given)
    package = Package(grid, layout, auto_cook, orders, counters)
    rng, seen = np.random.default_rng([LAYOUTS.index(layout), auto_cook, counters]), dict.fromkeys(env.event_names, 0)
    for _ in range(games):
        position = draw_position(env, rng, bool(grid), auto_cook)
        package.arrange(*position)
        for ours in (env, other):
            ours.reset()
            ours.arrange(*position)
        compare(env, other, package)
        for t in range(LIMIT):
            actions = np.array([draw_action(env, cook, rng) for cook in env.cooks()])
            reward, shaped, events = package.step(actions.tolist())
            for ours in (env, other):
                step = ours.step(torch.from_numpy(actions)[None])
                assert float(step.reward) == reward and step.info["shaped"][0].tolist() == shaped
                assert bool(step.truncated) == (t == LIMIT - 1) and not step.terminated
            happened = {name: step.info["events"][0, :, k].tolist() for k, name in enumerate(ours.event_names)}
            assert happened == events, {name: (happened[name], events[name]) for name in events
                                        if happened[name] != events[name]}  # fmt: skip
            for name, who in events.items():
                seen[name] += sum(who)
            compare(env, other, package)
    return seen


@pytest.mark.parametrize("auto_cook", [True, False], ids=["auto", "manual"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_step_equals_the_package(layout: str, auto_cook: bool) -> None:
    seen = compare_games(layout, auto_cook, counters=not auto_cook, games=18)
    met = {name for name, count in seen.items() if count}
    assert {"onion_pickup", "useful_onion_pickup", "onion_drop", "potting_onion", "dish_pickup", "dish_drop",
            "soup_pickup", "soup_delivery", "soup_drop", "optimal_onion_potting"} <= met  # fmt: skip


def test_tomatoes_and_orders_equal_the_package() -> None:
    seen = compare_games("cramped_room", False, counters=True, games=60, grid=TOMATOES)
    assert [name for name, count in seen.items() if not count] == []
    assert settings("cramped_room")["grid"] != TOMATOES
