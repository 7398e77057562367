"""A kitchen's lookup tables for the kernels, and the names of its features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from envs.overcooked.layout import COUNTER, DISHES, FAR, ONIONS, PLAYERS, POT, SERVE, TOMATOES, Layout
from envs.overcooked.observe import FEATURES, OWN, PLANES, PLAYER_STATE, TERRAIN
from envs.overcooked.records import ACTIONS, FULL, ITEMS, ONION, STAY, TOMATO, Rules
from marl.core.types import ConfigError, EnvSpec

TERRAIN_PLANES = (POT, COUNTER, ONIONS, TOMATOES, DISHES, SERVE)


def price(orders: Sequence[Sequence[int]], reward: float) -> np.ndarray:
    """Return f64 [4, 4]: what a soup of i onions and j tomatoes pays. Raise ConfigError if an order is not a soup."""
    value = np.zeros((FULL + 1, FULL + 1))
    for order in orders:
        if len(order) != 2 or min(order) < 0 or not 1 <= sum(order) <= FULL:
            raise ConfigError(f"orders are [onions, tomatoes], together 1..{FULL}, got {list(order)}")
        value[order[0], order[1]] = reward
    if not len(orders):
        raise ConfigError("orders must name at least one soup, as [onions, tomatoes]")
    return value


def most(value: np.ndarray) -> np.ndarray:
    """Return f64 [4, 4]: the highest value of a soup with at least i onions and j tomatoes."""
    return np.array([[value[onions:, tomatoes:].max() for tomatoes in range(FULL + 1)] for onions in range(FULL + 1)])


def build_rules(
    layout: Layout, limit: int, cook_time: int, switches: tuple[bool, bool, bool],
    bonuses: tuple[float, float, float, bool], random_start: float, value: np.ndarray,
) -> Rules:  # fmt: skip
    """Return the kernels' tables. ``switches``: auto_cook, planes, counters. ``bonuses``: potting, dish, soup, and
    whether a parked soup keeps its bonuses."""
    potting, dish, soup, parked = bonuses
    size, width, height = len(layout.terrain), layout.width, layout.height
    base = np.array([(tile % width * height + tile // width) * len(PLANES) for tile in range(size)])
    blank = np.zeros(size * len(PLANES), np.float32)
    for plane, kind in enumerate(TERRAIN_PLANES):
        blank[base[layout.tiles(kind)] + TERRAIN + plane] = 1.0
    distance = layout.distances(counters=switches[2])
    nearest = np.full((size, 4, SERVE + 1), -1, np.int64)
    for kind in (ONIONS, TOMATOES, DISHES, SERVE):
        nearest[..., kind] = in_order(distance, layout.tiles(kind), 1)[..., 0]
    return Rules(
        width, height, limit, cook_time, *switches, potting, dish, soup, parked, random_start,
        terrain=layout.terrain,
        steps=np.array([*layout.steps, 0, 0]),
        start=np.array(layout.start),
        floors=np.array([[tile in floor for tile in range(size)] for floor in layout.reach]),
        ingredients=np.array([item for item, kind in ((ONION, ONIONS), (TOMATO, TOMATOES)) if layout.tiles(kind)]),
        shelves=np.array(layout.shelves(), np.int64),
        pots=np.array(layout.tiles(POT)),
        value=value,
        best=most(value),
        blank=blank,
        base=base,
        nearest=nearest,
        pot_order=in_order(distance, layout.tiles(POT), 2),
        distance=distance,
    )  # fmt: skip


def in_order(distance: np.ndarray, tiles: list[int], count: int) -> np.ndarray:
    """Return int64 [tiles, 4, count]: the ``count`` nearest of ``tiles`` from every tile and direction, -1 where there
    are fewer. Ties go to the first in the list."""
    found = np.full((*distance.shape[:2], count), -1, np.int64)
    if tiles:
        steps = distance[..., tiles]
        order = np.argsort(steps, axis=-1, kind="stable")[..., :count]
        near = np.take_along_axis(steps, order, -1) < FAR
        found[..., : order.shape[-1]] = np.where(near, np.array(tiles)[order], -1)
    return found


def name_state(layout: Layout) -> list[str]:
    def item(place: str) -> list[str]:
        return [f"{place} {what}" for what in (*ITEMS[1:], "soup's onions", "soup's tomatoes")]

    def at(tile: int) -> str:
        return f"{tile % layout.width},{tile // layout.width}"

    names = []
    for i in range(PLAYERS):
        names += [f"cook {i} {what}" for what in ("x", "y", *(f"faces {way}" for way in "NSEW"))]
        names += item(f"cook {i} holds")
    for pot in layout.tiles(POT):
        names += [f"pot {at(pot)} {what}" for what in ("onions", "tomatoes", "cooks", "cooked share")]
    for shelf in layout.shelves():
        names += item(f"counter {at(shelf)}")
    return [*names, "time"]


def name_features(layout: Layout, cook_time: int) -> list[tuple[str, float, float]]:
    """Return name, lowest and highest value of each of the 96 features."""
    x, y = layout.width - 1, layout.height - 1

    def way(what: str) -> list[tuple[str, float, float]]:
        return [(f"{what} dx", -x, x), (f"{what} dy", -y, y)]

    def flags(*names: str) -> list[tuple[str, float, float]]:
        return [(name, 0, 1) for name in names]

    own = flags(*(f"faces {way}" for way in "NSEW"), *(f"holds {item}" for item in ITEMS[1:]))
    own += [*way("onion"), *way("tomato"), *way("dish"), *way("soup"), ("soup's onions", 0, FULL)]
    own += [("soup's tomatoes", 0, FULL), *way("serving window"), *way("free counter")]
    for k in range(2):
        own += flags(*(f"pot {k} {what}" for what in ("exists", "is empty", "is full", "cooks", "is ready")))
        own += [(f"pot {k} onions", 0, FULL), (f"pot {k} tomatoes", 0, FULL), (f"pot {k} time to cook", 0, cook_time)]
        own += way(f"pot {k}")
    own += flags(*(f"blocked {side}" for side in "NSEW"))
    both = [(f"{whose} {name}", low, high) for whose in ("own", "other's") for name, low, high in own]
    return [*both, *way("other"), ("own x", 0, x), ("own y", 0, y)]


def build_spec(layout: Layout, rules: Rules, beside: bool) -> EnvSpec:
    """Return the spec; ``beside``: the state is appended to the features. ``about`` covers a player's position and
    direction and, among the features, its offsets to everything. Planes show held items the same way as items on
    counters, so items are not attributed to anyone."""
    state = name_state(layout)
    more = state[:-1] if beside else []  # all but the time
    if rules.planes:
        places = [(x, y) for x in range(layout.width) for y in range(layout.height)]
        highest = dict.fromkeys(range(16, 20), float(FULL)) | {20: float(rules.cook_time)}
        table = [(f"{plane} at {x},{y}", 0.0, highest.get(k, 1.0)) for x, y in places for k, plane in enumerate(PLANES)]
    else:
        table = name_features(layout, rules.cook_time) + [(name, 0.0, 1.0) for name in more]
    names, low, high = zip(*table, strict=True)
    O = len(names)  # noqa: E741
    about = torch.zeros(PLAYERS, PLAYERS, O, dtype=torch.bool)
    if rules.planes:
        plane = torch.arange(O) % len(PLANES)
        own = (plane == 0) | ((plane >= 2) & (plane < 6))
        other = (plane == 1) | ((plane >= 6) & (plane < TERRAIN))
    else:
        d = torch.arange(O)
        last = (d >= 2 * OWN + 2) & (d < FEATURES)
        own, other = (d < OWN) | last, (d >= OWN) & (d < 2 * OWN + 2)
    for i in range(PLAYERS):
        about[i, i], about[i, 1 - i] = own, other
        for j in range(PLAYERS * beside):
            about[i, j, FEATURES + j * PLAYER_STATE : FEATURES + (j + 1) * PLAYER_STATE] = True
    return EnvSpec(
        PLAYERS, len(ACTIONS), O, len(state), rules.limit, torch.tensor(low, dtype=torch.float32),
        torch.tensor(high, dtype=torch.float32), idle_action=STAY, about=about, obs_names=names,
        state_names=tuple(state), action_names=ACTIONS, floor_plan=layout.text,
    )  # fmt: skip
