"""Scripted partners for Overcooked: one fills pots, one plates and delivers, one does both; each may stick to one pot.

A cook knows the kitchen (``EnvSpec.floor_plan``) and reads the state. At every step it finds the tiles where it can
carry out its next task and walks to the nearest; while it waits, or when its path is blocked, it makes room.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from envs.overcooked.layout import COUNTER, DISHES, FAR, FLOOR, ONIONS, PLAYERS, POT, SERVE, Layout, parse
from envs.overcooked.observe import PLAYER_STATE, POT_STATE, SHELF_STATE
from envs.overcooked.records import ACTIONS, DISH, FULL, INTERACT, ITEMS, NOTHING, ONION, SOUP, STAY
from marl.core.caching import njit
from marl.core.types import Carry, ConfigError, EnvSpec, Obs

POTS = ("nearest", "first", "last")
SOON = 0.75  # fraction of the cooking time after which a cook with a dish sets out for the pot
# A cook's memory: where it was, whether it tried to walk, how many times in a row it tried but did not move, for how
# many more steps it walks around its partner, and a pseudo-random number that sets the length of its next detour.
PLACE, WALKED, STILL, AROUND, LUCK = range(5)


class Kitchen(NamedTuple):
    """What never changes. ``usable``: tiles that each player can use; ``mine``: the pots that a cook in that player's
    place uses; ``shared``: counters that both can reach."""

    width: int
    height: int
    terrain: np.ndarray  # int64 [tiles]
    steps: np.ndarray  # int64 [4]; the offset in tile numbers of each direction
    pots: np.ndarray  # int64 [pots]; in the order of the state
    shelves: np.ndarray  # int64 [shelves]
    usable: np.ndarray  # bool [2, tiles]
    mine: np.ndarray  # bool [2, tiles]
    shared: np.ndarray  # bool [tiles]


class Now(NamedTuple):
    """A decoded state. ``item``: what lies on each counter; ``filled``: ingredients in each pot; ``share``: fraction of
    the cooking time that has passed (-1: not cooking)."""

    at: np.ndarray  # int64 [2]
    way: np.ndarray  # int64 [2]
    held: np.ndarray  # int64 [2]
    item: np.ndarray  # int64 [tiles]
    filled: np.ndarray  # int64 [tiles]
    share: np.ndarray  # f64 [tiles]


def build_kitchen(layout: Layout, pot: str) -> Kitchen:
    usable = np.zeros((PLAYERS, len(layout.terrain)), np.bool_)
    for tile in np.flatnonzero(layout.terrain != FLOOR).tolist():
        before = {place for place, _ in layout.stands_before(tile)}
        usable[:, tile] = [bool(before & floor) for floor in layout.reach]
    mine = usable & (layout.terrain == POT)
    for i in range(PLAYERS):
        if pot != "nearest" and mine[i].any():
            chosen = np.flatnonzero(mine[i])[0 if pot == "first" else -1]
            mine[i] = np.arange(len(layout.terrain)) == chosen
    pots, shelves = (np.array(tiles, np.int64) for tiles in (layout.tiles(POT), layout.shelves()))
    return Kitchen(
        layout.width, layout.height, layout.terrain, np.array(layout.steps), pots, shelves, usable, mine,
        usable.all(0) & (layout.terrain == COUNTER),
    )  # fmt: skip


@njit(cache=True)
def read_item(state: np.ndarray, d: int) -> int:
    for k in range(len(ITEMS) - 1):
        if state[d + k] > 0.5:
            return k + 1
    return NOTHING


@njit(cache=True)
def read(kitchen: Kitchen, state: np.ndarray) -> Now:
    """Decode the state [S] of one lane, in the order of ``spec.name_state``."""
    tiles = kitchen.terrain.shape[0]
    at, way, held = np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64)
    item, filled, share = np.zeros(tiles, np.int64), np.zeros(tiles, np.int64), np.full(tiles, -1.0)
    for i in range(2):
        d = i * PLAYER_STATE
        x, y = state[d] * (kitchen.width - 1), state[d + 1] * (kitchen.height - 1)
        at[i] = round(y) * kitchen.width + round(x)
        way[i] = np.argmax(state[d + 2 : d + 6])
        held[i] = read_item(state, d + 6)
    d = 2 * PLAYER_STATE
    for pot in kitchen.pots:
        filled[pot] = round((state[d] + state[d + 1]) * FULL)
        if state[d + 2] > 0.5:
            share[pot] = state[d + 3]
        d += POT_STATE
    for shelf in kitchen.shelves:
        item[shelf] = read_item(state, d)
        d += SHELF_STATE
    return Now(at, way, held, item, filled, share)


@njit(cache=True)
def pick_goals(kitchen: Kitchen, now: Now, fills: bool, serves: bool, i: int) -> np.ndarray:
    """Return bool [tiles]: where cook ``i`` can carry out its next task; no tile: it waits. Ignore what its partner
    holds."""
    terrain, held, can, pots = kitchen.terrain, now.held[i], kitchen.usable[i], kitchen.mine[i]
    free = (terrain == COUNTER) & (now.item == NOTHING)
    counters, over = can & free, kitchen.shared & free
    wanting, begun = pots & (now.share < 0.0) & (now.filled < FULL), pots & (now.share >= 0.0)
    full, soon = pots & (now.share < 0.0) & (now.filled == FULL), pots & (now.share >= SOON)
    nothing = np.zeros_like(can)
    if held == SOUP:
        windows = can & (terrain == SERVE)
        return windows if windows.any() else over
    if held == DISH and serves:
        if not pots.any():
            return over
        if soon.any():
            return soon
        return counters if fills and not begun.any() else nothing
    if held == ONION and fills:
        if not pots.any():
            return over
        if wanting.any():
            return wanting
        return counters if serves else nothing
    if held != NOTHING:  # not its task
        return counters
    if full.any():  # without ``auto_cook``
        return full
    if not pots.any():
        return pick_gifts(kitchen, now, fills, serves, i)
    onions = can & ((terrain == ONIONS) | (now.item == ONION))
    dishes = can & ((terrain == DISHES) | (now.item == DISH))
    soups = can & (now.item == SOUP)
    if serves and soups.any() and (can & (terrain == SERVE)).any():
        return soups
    if serves and soon.any() and dishes.any():
        return dishes
    if fills and wanting.any() and onions.any():
        return onions
    if serves and begun.any():
        return dishes
    return nothing


@njit(cache=True)
def pick_gifts(kitchen: Kitchen, now: Now, fills: bool, serves: bool, i: int) -> np.ndarray:
    """Return bool [tiles]: where to fetch what the partner, the only one who can reach pots, needs and does not find on
    a counter. The last free counter is reserved for dishes."""
    terrain, can = kitchen.terrain, kitchen.usable[i]
    missing = cooking = 0
    for pot in kitchen.pots:
        cooking += now.share[pot] >= 0.0
        missing += FULL - now.filled[pot] if now.share[pot] < 0.0 else 0
    if serves and (kitchen.shared & (now.item == DISH)).sum() < cooking:
        return can & (terrain == DISHES)
    room = (kitchen.shared & (now.item == NOTHING)).sum()
    if fills and room >= 2 and (kitchen.shared & (now.item == ONION)).sum() < missing:
        return can & (terrain == ONIONS)
    return np.zeros_like(can)


@njit(cache=True)
def find_ways(kitchen: Kitchen, start: int, closed: int) -> tuple[np.ndarray, np.ndarray]:
    """Search breadth-first, avoiding ``closed``. Return the number of steps to every floor tile, int64 [tiles]
    (``FAR``: unreachable), and the direction of the first step."""
    size = kitchen.terrain.shape[0]
    steps, first, queue = np.full(size, FAR), np.full(size, -1), np.zeros(size, np.int64)
    steps[start], queue[0], head, tail = 0, start, 0, 1
    while head < tail:
        here = queue[head]
        head += 1
        for way in range(4):
            there = here + kitchen.steps[way]
            if kitchen.terrain[there] == FLOOR and there != closed and steps[there] == FAR:
                steps[there] = steps[here] + 1
                first[there] = way if here == start else first[here]
                queue[tail] = there
                tail += 1
    return steps, first


@njit(cache=True)
def approach(kitchen: Kitchen, now: Now, goals: np.ndarray, closed: int, i: int) -> int:
    """Return the action that brings cook ``i`` closer to using the nearest of ``goals``; -1 if none is reachable."""
    steps, first = find_ways(kitchen, now.at[i], closed)
    action, least = -1, 2 * FAR
    for tile in np.flatnonzero(goals):
        for way in range(4):
            before = tile - kitchen.steps[way]
            if not 0 <= before < goals.shape[0] or kitchen.terrain[before] != FLOOR:
                continue
            there, faces = before == now.at[i], way == now.way[i]
            cost = 2 * steps[before] + (there and not faces)
            if cost < least:
                least = cost
                action = first[before] if not there else (INTERACT if faces else way)
    return action


@njit(cache=True)
def step_aside(kitchen: Kitchen, now: Now, luck: int, i: int) -> int:
    """Return a move onto a free floor tile, or STAY if there is none."""
    for turn in range(4):
        way = (luck + turn) % 4
        there = now.at[i] + kitchen.steps[way]
        if kitchen.terrain[there] == FLOOR and there != now.at[1 - i]:
            return way
    return STAY


@njit(cache=True)
def decide(kitchen: Kitchen, now: Now, fills: bool, serves: bool, memory: np.ndarray, i: int) -> int:
    """Return the action of cook ``i`` and update its ``memory`` [5]."""
    partner, here = now.at[1 - i], now.at[i]
    memory[STILL] = memory[STILL] + 1 if memory[WALKED] and memory[PLACE] == here else 0
    stuck = memory[STILL] > i  # the second player is more patient, so that they do not both give way
    if stuck:
        memory[LUCK] = (memory[LUCK] * 1103515245 + 12345) % 2**31
        memory[STILL], memory[AROUND] = 0, 2 + (memory[LUCK] >> 16) % 15
    goals = pick_goals(kitchen, now, fills, serves, i)
    waits = not goals.any()
    pushed = partner + kitchen.steps[now.way[1 - i]] == here
    action = -1
    if not waits and not stuck:
        action = approach(kitchen, now, goals, partner if memory[AROUND] > 0 else -1, i)
    if action < 0:
        action = STAY if waits and not pushed else step_aside(kitchen, now, (memory[LUCK] >> 16) + memory[AROUND], i)
    memory[AROUND] = 0 if action == INTERACT else max(memory[AROUND] - 1, 0)
    memory[PLACE] = here
    memory[WALKED] = action < STAY and kitchen.terrain[here + kitchen.steps[min(action, 3)]] == FLOOR
    return action


@njit(cache=True)
def decide_all(
    kitchen: Kitchen, states: np.ndarray, fills: bool, serves: bool, memory: np.ndarray, actions: np.ndarray
) -> None:
    """Choose actions in all lanes: read states [B, S], update memory int64 [B, 2, 5], fill actions int64 [B, 2]."""
    for b in range(states.shape[0]):
        now = read(kitchen, states[b])
        for i in range(2):
            actions[b, i] = decide(kitchen, now, fills, serves, memory[b, i], i)


class Cooks:
    """A cook that fills pots with onions (``fills``), fetches a dish when a soup is cooking and delivers the soup
    (``serves``), or both. It uses the nearest ``pot``, or only the first or the last (row by row) that it can reach. A
    cook that cannot reach any pot puts what its partner needs on counters that both can reach.

    It puts down what it has no use for, and starts full pots that do not start on their own. A waiting cook steps aside
    when its partner faces it; a cook that tried to walk but did not move walks around its partner for some steps, or
    steps aside. It has no randomness of its own: the lengths of its detours come from a fixed pseudo-random sequence.
    It ignores tomatoes.

    Raises ConfigError for other games, and if neither ``fills`` nor ``serves`` is set.
    """

    def __init__(self, spec: EnvSpec, device: torch.device | str, *, fills: bool, serves: bool, pot: str) -> None:
        if spec.action_names != ACTIONS or not spec.floor_plan:
            raise ConfigError("cooks play Overcooked only")
        if not fills and not serves:
            raise ConfigError("a cook with fills=false and serves=false has nothing to do")
        if pot not in POTS:
            raise ConfigError(f"pot must be one of {', '.join(POTS)}, got {pot}")
        self.fills, self.serves = fills, serves
        self.device, self.kitchen = torch.device(device), build_kitchen(parse(spec.floor_plan), pot)

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        memory = torch.zeros(n_envs, PLAYERS, 5, dtype=torch.long, device=self.device)
        memory[..., PLACE], memory[:, 1, LUCK] = -1, 1
        return {"memory": memory}

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        memory = carry["memory"].to("cpu", copy=True)
        actions = torch.zeros(memory.shape[:2], dtype=torch.long)
        states = obs.state.cpu().numpy()
        decide_all(self.kitchen, states, self.fills, self.serves, memory.numpy(), actions.numpy())
        return actions.to(self.device), {"memory": memory.to(self.device)}, {}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        return carry
