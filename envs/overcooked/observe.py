"""Observations: the 26 lossless planes or the 96 features of the ``overcooked-ai`` package, and the state.

Planes hardly change from step to step, so the old marks are cleared and new ones set instead of redrawing everything.
"""

from __future__ import annotations

import numpy as np

from envs.kernels.compiled import Record, rule
from envs.kernels.lanes import Outputs
from envs.overcooked.cooking import is_ready
from envs.overcooked.layout import DISHES, FLOOR, ONIONS, SERVE, TOMATOES
from envs.overcooked.records import DISH, FULL, IDLE, NOTHING, ONION, SOUP, TOMATO, Kitchens, Rules

PLANES = (
    "own place", "other's place", *(f"own way {way}" for way in "NSEW"), *(f"other's way {way}" for way in "NSEW"),
    "pot", "counter", "onions", "tomatoes", "dishes", "serving window", "onions in pot", "tomatoes in pot",
    "onions in soup", "tomatoes in soup", "time to cook", "soup done", "dish", "onion", "tomato", "urgency",
)  # fmt: skip
TERRAIN, IN_POT, IN_SOUP, TIME, DONE = 10, 16, 18, 20, 21  # positions in PLANES
LOOSE_DISH, LOOSE_ONION, LOOSE_TOMATO, URGENCY = 22, 23, 24, 25
URGENT = 40  # urgency is shown when fewer than this many steps are left
OWN = 46  # features of one player
FEATURES = 2 * OWN + 4
PLAYER_STATE, POT_STATE, SHELF_STATE = 12, 4, 6


# --- planes ----------------------------------------------------------------------------------------------------------


@rule
def mark_item(planes: np.ndarray, place: int, item: int, onions: int, tomatoes: int, on: float) -> None:
    """Mark an item in a hand or on a counter; ``on`` is 1 or, to clear the mark, 0."""
    if item == SOUP:
        planes[place + IN_SOUP] = on * onions
        planes[place + IN_SOUP + 1] = on * tomatoes
        planes[place + DONE] = on
    elif item == DISH:
        planes[place + LOOSE_DISH] = on
    elif item == ONION:
        planes[place + LOOSE_ONION] = on
    elif item == TOMATO:
        planes[place + LOOSE_TOMATO] = on


@rule
def mark_pot(rules: Rules, planes: np.ndarray, place: int, soup: Record, on: float) -> None:
    if soup.ticks == IDLE:
        planes[place + IN_POT] = on * soup.onions
        planes[place + IN_POT + 1] = on * soup.tomatoes
    else:
        planes[place + IN_SOUP] = on * soup.onions
        planes[place + IN_SOUP + 1] = on * soup.tomatoes
        planes[place + TIME] = on * (rules.cook_time - soup.ticks)
        planes[place + DONE] = on * is_ready(rules, soup)


@rule
def mark(rules: Rules, kitchens: Kitchens, out: Outputs, on: float, b: int) -> None:
    """Set (``on`` 1) or clear (0) the marks of everything that may change, in both players' planes."""
    for viewer in range(2):
        planes = out.obs[b, viewer]
        for whose in range(2):
            player = kitchens.players[b, (viewer + whose) % 2]
            place = rules.base[player.at]
            planes[place + whose] = on
            planes[place + 2 + 4 * whose + player.way] = on
            mark_item(planes, place, player.held, player.onions, player.tomatoes, on)
        for pot in rules.pots:
            mark_pot(rules, planes, rules.base[pot], kitchens.things[b, pot], on)
    for shelf in rules.shelves:
        thing = kitchens.things[b, shelf]
        if thing.item != NOTHING:
            for viewer in range(2):
                mark_item(out.obs[b, viewer], rules.base[shelf], thing.item, thing.onions, thing.tomatoes, on)


@rule
def draw_planes(rules: Rules, kitchens: Kitchens, out: Outputs, b: int) -> None:
    """Draw all planes from scratch."""
    urgent = rules.limit - kitchens.lanes[b].t < URGENT
    for viewer in range(2):
        planes = out.obs[b, viewer]
        for d in range(planes.shape[0]):
            planes[d] = rules.blank[d]
        if urgent:
            hurry(rules, planes)
    mark(rules, kitchens, out, 1.0, b)


@rule
def hurry(rules: Rules, planes: np.ndarray) -> None:
    for place in rules.base:
        planes[place + URGENCY] = 1.0


@rule
def update_planes(rules: Rules, kitchens: Kitchens, out: Outputs, b: int) -> None:
    """Update the planes after a step; ``mark`` has already cleared the marks from before it."""
    if kitchens.lanes[b].t == rules.limit - URGENT + 1:
        for viewer in range(2):
            hurry(rules, out.obs[b, viewer])
    mark(rules, kitchens, out, 1.0, b)


# --- features --------------------------------------------------------------------------------------------------------


@rule
def nearest_item(rules: Rules, kitchens: Kitchens, me: Record, item: int, kind: int, b: int) -> int:
    """Return the tile where ``me`` can get an ``item`` soonest, or -1: a dispenser (``kind``; FLOOR: there is none) or,
    with ``counters``, a counter. Ties go to the dispenser, then to the item that has been there longest."""
    found = -1 if kind == FLOOR else rules.nearest[me.at, me.way, kind]
    if not rules.counters:
        return found
    way = rules.distance[me.at, me.way]
    least = way[found] if found >= 0 else 10_000
    since = -1
    for shelf in rules.shelves:
        thing = kitchens.things[b, shelf]
        if thing.item == item and (way[shelf] < least or (way[shelf] == least and thing.since < since)):
            found, least, since = shelf, way[shelf], thing.since
    return found


@rule
def nearest_gap(rules: Rules, kitchens: Kitchens, me: Record, b: int) -> int:
    """Return the nearest empty counter, -1 if there is none or without ``counters``."""
    found, least = -1, 10_000
    if rules.counters:
        for shelf in rules.shelves:
            steps = rules.distance[me.at, me.way, shelf]
            if kitchens.things[b, shelf].item == NOTHING and steps < least:
                found, least = shelf, steps
    return found


@rule
def write_way(rules: Rules, row: np.ndarray, d: int, me: Record, tile: int) -> None:
    """Write how far east and south ``tile`` is; zeros if it is -1."""
    row[d] = tile % rules.width - me.at % rules.width if tile >= 0 else 0.0
    row[d + 1] = tile // rules.width - me.at // rules.width if tile >= 0 else 0.0


@rule
def write_items(rules: Rules, kitchens: Kitchens, row: np.ndarray, me: Record, b: int) -> None:
    """Write features 8..21: offsets to the nearest item of each kind, the ingredients of the soup, offsets to the
    nearest serving window and empty counter; zero offsets for what is held."""
    kinds = (FLOOR, ONIONS, FLOOR, DISHES, TOMATOES)  # by item
    for slot, item in enumerate((ONION, TOMATO, DISH, SOUP)):
        tile = -1 if me.held == item else nearest_item(rules, kitchens, me, item, kinds[item], b)
        write_way(rules, row, 8 + 2 * slot, me, tile)
        if item == SOUP:
            row[16] = kitchens.things[b, tile].onions if tile >= 0 else me.onions
            row[17] = kitchens.things[b, tile].tomatoes if tile >= 0 else me.tomatoes
    write_way(rules, row, 18, me, rules.nearest[me.at, me.way, SERVE])
    write_way(rules, row, 20, me, nearest_gap(rules, kitchens, me, b))


@rule
def write_pot(rules: Rules, kitchens: Kitchens, row: np.ndarray, d: int, me: Record, pot: int, b: int) -> None:
    """Write the ten features of ``pot``; zeros if it is -1."""
    if pot < 0:
        for k in range(10):
            row[d + k] = 0.0
        return
    soup = kitchens.things[b, pot]
    cooks = soup.ticks != IDLE
    row[d] = 1.0
    row[d + 1] = soup.item == NOTHING
    row[d + 2] = cooks or soup.onions + soup.tomatoes == FULL
    row[d + 3] = cooks and not is_ready(rules, soup)
    row[d + 4] = is_ready(rules, soup)
    row[d + 5] = soup.onions
    row[d + 6] = soup.tomatoes
    row[d + 7] = rules.cook_time - soup.ticks if cooks else 0.0
    write_way(rules, row, d + 8, me, pot)


@rule
def write_features(rules: Rules, kitchens: Kitchens, out: Outputs, b: int) -> None:
    """Write, for each player, its own 46 features, the other's, the offset to the other, and its own place."""
    for i in range(2):
        me, mate, row = kitchens.players[b, i], kitchens.players[b, 1 - i], out.obs[b, i]
        for k in range(4):
            row[k] = me.way == k
            row[4 + k] = me.held == k + 1
            row[42 + k] = rules.terrain[me.at + rules.steps[k]] != FLOOR
        write_items(rules, kitchens, row, me, b)
        for k in range(2):
            write_pot(rules, kitchens, row, 22 + 10 * k, me, rules.pot_order[me.at, me.way, k], b)
        write_way(rules, row, 92, me, mate.at)
        row[94], row[95] = me.at % rules.width, me.at // rules.width
    for i in range(2):
        for d in range(OWN):
            out.obs[b, i, OWN + d] = out.obs[b, 1 - i, d]


# --- state -----------------------------------------------------------------------------------------------------------


@rule
def write_item(state: np.ndarray, d: int, item: int, onions: int, tomatoes: int) -> None:
    """Write six features: onion, soup, dish, tomato, and a soup's ingredients."""
    if item != NOTHING:
        state[d + item - 1] = 1.0
        state[d + 4] = onions / FULL
        state[d + 5] = tomatoes / FULL


@rule
def write_state(rules: Rules, kitchens: Kitchens, out: Outputs, b: int) -> None:
    """Write the state: players, pots, counters, time."""
    state, d = out.state[b], 0
    state[:] = 0.0
    for i in range(2):
        player = kitchens.players[b, i]
        state[d] = (player.at % rules.width) / (rules.width - 1)
        state[d + 1] = (player.at // rules.width) / (rules.height - 1)
        state[d + 2 + player.way] = 1.0
        write_item(state, d + 6, player.held, player.onions, player.tomatoes)
        d += PLAYER_STATE
    for pot in rules.pots:
        soup = kitchens.things[b, pot]
        state[d], state[d + 1] = soup.onions / FULL, soup.tomatoes / FULL
        state[d + 2] = soup.ticks != IDLE
        state[d + 3] = max(soup.ticks, 0) / rules.cook_time
        d += POT_STATE
    for shelf in rules.shelves:
        thing = kitchens.things[b, shelf]
        write_item(state, d, thing.item, thing.onions, thing.tomatoes)
        d += SHELF_STATE
    state[d] = kitchens.lanes[b].t / rules.limit


@rule
def write_beside(out: Outputs, b: int) -> None:
    """Append the state, except the time, to each player's features if the observation has room for it."""
    for i in range(out.obs.shape[1]):
        for d in range(FEATURES, out.obs.shape[2]):
            out.obs[b, i, d] = out.state[b, d - FEATURES]
