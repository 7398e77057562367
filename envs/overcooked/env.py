"""Overcooked: two cooks make soup in a narrow kitchen; the rules of one lane, their kernels, and the class that wraps
them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from envs.kernels.compiled import rule
from envs.kernels.game import LaneGame
from envs.kernels.lanes import LANE, Outputs, allocate_outputs, begin_episode, end_step, lane_kernels, rests
from envs.kernels.rng import uniform
from envs.overcooked import layout, spec
from envs.overcooked.beginning import begin_in_the_middle
from envs.overcooked.cooking import play
from envs.overcooked.layout import COUNTER, FLOOR
from envs.overcooked.observe import draw_planes, mark, update_planes, write_beside, write_features, write_state
from envs.overcooked.pieces import Cook, Item
from envs.overcooked.records import (
    DELIVERY,
    EVENTS,
    FULL,
    IDLE,
    ITEMS,
    NOTHING,
    PLAYER,
    SOUP,
    THING,
    Kitchens,
    Rules,
)
from envs.overcooked.render import draw
from marl.core.checks import require_at_least, require_choice, require_share
from marl.core.types import Blockable, ConfigError, Obs

OBSERVATIONS = ("lossless", "features", "features_and_state")
WAYS = "NSEW"


@rule
def observe_lane(rules: Rules, kitchens: Kitchens, out: Outputs, b: int) -> None:
    if rules.planes:
        draw_planes(rules, kitchens, out, b)
    else:
        write_features(rules, kitchens, out, b)
    write_state(rules, kitchens, out, b)
    if not rules.planes:
        write_beside(out, b)


@rule
def reset_lane(rules: Rules, kitchens: Kitchens, out: Outputs, seed: np.uint64, reseed: bool, b: int) -> None:
    """Clear counters, pots and hands; both players face north."""
    begin_episode(kitchens.lanes[b], out, seed, reseed, b)
    for tile in range(rules.terrain.shape[0]):
        thing = kitchens.things[b, tile]
        thing.item = thing.onions = thing.tomatoes = thing.since = 0
        thing.ticks = IDLE
    for i in range(2):
        player = kitchens.players[b, i]
        player.at = rules.start[i]
        player.way = player.held = player.onions = player.tomatoes = 0
        kitchens.shaped[b, i], kitchens.cell[b, i], kitchens.station[b, i] = 0.0, player.at, -1
    if rules.random_start > 0.0 and uniform(kitchens.lanes[b]) < rules.random_start:
        begin_in_the_middle(rules, kitchens, b)
    observe_lane(rules, kitchens, out, b)


@rule
def step_lane(rules: Rules, kitchens: Kitchens, out: Outputs, actions: np.ndarray, b: int) -> None:
    lane = kitchens.lanes[b]
    out.events[b] = False
    if rests(lane, out, b):
        return
    if rules.planes:
        mark(rules, kitchens, out, 0.0, b)
    play(rules, kitchens, out, actions, b)
    delivered = out.events[b, 0, DELIVERY] or out.events[b, 1, DELIVERY]
    end_step(lane, out, False, delivered, rules.limit, b)
    if rules.planes:
        update_planes(rules, kitchens, out, b)
    else:
        write_features(rules, kitchens, out, b)
    write_state(rules, kitchens, out, b)
    if not rules.planes:
        write_beside(out, b)


KERNELS = lane_kernels(reset_lane, step_lane, observe_lane)


class Overcooked(LaneGame):
    """Two cooks fill pots with three ingredients, wait, and carry the soup in a dish to the serving window.

    ``grid`` is a kitchen as text (``layout.parse``). ``orders`` are the soups that pay ``delivery_reward``, as [onions,
    tomatoes]; others pay 0. Soups take ``cook_time`` steps, including the one in which they start. With ``auto_cook``
    the third ingredient starts them, as in the published results since 2019; without it a player with empty hands does,
    with any number of ingredients, as in version 1.1 of the package. Only the clock (``episode_limit``) ends an
    episode; it truncates. With probability ``random_start`` an episode starts mid-game: both players stand on random
    floor tiles that they can reach, their hands and the pots hold something or nothing. This is meant for training
    (``train.env``); all published results start from the grid's own positions with empty hands.

    ``obs`` "lossless": planes of shape [width, height, 26], flattened; "features": the 96 features with the two nearest
    pots, which cover counters only with ``counter_features``; "features_and_state": these, followed by all of the state
    except the time. State: names in ``spec.state_names``.

    ``Step.info``: "won", a soup was delivered; "events" bool [B, 2, 25], names in ``event_names``; "shaped" f32 [B, 2],
    the shaped rewards ``potting_bonus``, ``dish_bonus`` (for a useful dish) and ``soup_bonus`` (for taking a soup out
    of the pot), never part of the reward; without ``parked_soup_pays`` a soup that is put on a counter loses its
    bonuses, those of its ingredients included, until somebody picks it up, so that they cannot be farmed; "cell" and
    "station" long [B, 2], the tile where each player stands and the tile that it used (-1: none).

    For state blocking, ``block_features`` returns the last two; families "cells" and "stations". Raises ConfigError.
    """

    families = ("cells", "stations")
    event_names = EVENTS

    def __init__(
        self, grid: str, obs: str, counter_features: bool, auto_cook: bool, cook_time: int,
        orders: Sequence[Sequence[int]], delivery_reward: float, potting_bonus: float, dish_bonus: float,
        soup_bonus: float, parked_soup_pays: bool, episode_limit: int, random_start: float, *,
        n_envs: int, seed: int = 0,
    ) -> None:  # fmt: skip
        require_at_least("", 1, cook_time=cook_time, episode_limit=episode_limit, n_envs=n_envs)
        require_choice("", OBSERVATIONS, obs=obs)
        require_share("", random_start=random_start)
        self.layout = layout.parse(grid)
        self.n_block_features = tiles = len(self.layout.terrain)
        numbers = (bool(auto_cook), obs == "lossless", bool(counter_features))
        bonuses = (float(potting_bonus), float(dish_bonus), float(soup_bonus), bool(parked_soup_pays))
        value = spec.price(orders, float(delivery_reward))
        rules = spec.build_rules(self.layout, episode_limit, cook_time, numbers, bonuses, float(random_start), value)
        board = Kitchens(
            lanes=np.zeros(n_envs, LANE),
            players=np.zeros((n_envs, 2), PLAYER),
            things=np.zeros((n_envs, tiles), THING),
            shaped=np.zeros((n_envs, 2), np.float32),
            cell=np.zeros((n_envs, 2), np.int64),
            station=np.full((n_envs, 2), -1, np.int64),
        )
        board.players["at"] = self.layout.start
        happened = np.zeros((n_envs, 2, len(EVENTS)), np.bool_)
        info = {"events": happened, "shaped": board.shaped, "cell": board.cell, "station": board.station}
        families = {"cells": Blockable("cell", self.floor()), "stations": Blockable("station", self.stations())}
        described = replace(
            spec.build_spec(self.layout, rules, obs == OBSERVATIONS[2]), info_names=tuple(info), blockable=families
        )
        out = Outputs(**allocate_outputs(described, n_envs), events=happened)
        super().__init__(described, rules, KERNELS, board, out, info, n_envs, seed)

    def block_features(self, family: str) -> Tensor:
        """Return long [B, 2]: the tile where each player stands ("cells"), or the tile that it used ("stations", -1:
        none)."""
        self._require_family(family)
        return self._info["cell" if family == "cells" else "station"].clone()

    def blockable(self, family: str) -> Tensor:
        """Return bool [2, tiles]: the floor that each player can reach ("cells"), or the stations next to it
        ("stations"), which include counters only if the other player reaches them too."""
        self._require_family(family)
        return self.spec.blockable[family].mask.clone()

    def floor(self) -> Tensor:
        """Return bool [2, tiles]: the floor that each player can reach."""
        found = torch.zeros(2, self.n_block_features, dtype=torch.bool)
        for i, floor in enumerate(self.layout.reach):
            found[i, sorted(floor)] = True
        return found

    def stations(self) -> Tensor:
        """Return bool [2, tiles]: what each player can use, counters only if the other player reaches them too."""
        found = torch.zeros(2, self.n_block_features, dtype=torch.bool)
        terrain = torch.from_numpy(self.layout.terrain)
        for tile in (terrain != FLOOR).nonzero().flatten().tolist():
            before = {place for place, _ in self.layout.stands_before(tile)}
            for i, floor in enumerate(self.layout.reach):
                found[i, tile] = bool(before & floor)
        found[:, terrain == COUNTER] &= found[:, terrain == COUNTER].all(0)
        return found

    def _require_family(self, family: str) -> None:
        require_choice("", self.families, family=family)

    def cooks(self, lane: int = 0) -> list[Cook]:
        """Return the players of a lane."""
        width, found = self.layout.width, []
        for player in self._board.players[lane]:
            held = Item(ITEMS[player["held"]], int(player["onions"]), int(player["tomatoes"]))
            place = (int(player["at"]) % width, int(player["at"]) // width)
            found.append(Cook(*place, WAYS[player["way"]], held if player["held"] else None))
        return found

    def things(self, lane: int = 0) -> dict[tuple[int, int], Item]:
        """Return what lies on counters and in pots, by tile."""
        width, all_ = self.layout.width, self._board.things[lane]
        on_tiles = [(tile, all_[tile]) for tile in np.flatnonzero(all_["item"]).tolist()]
        pots = set(self._rules.pots.tolist())
        return {
            (tile % width, tile // width): Item(
                ITEMS[thing["item"]], int(thing["onions"]), int(thing["tomatoes"]),
                int(thing["ticks"]) if tile in pots else IDLE,
            )
            for tile, thing in on_tiles
        }  # fmt: skip

    def arrange(self, cooks: Sequence[Cook], things: Mapping[tuple[int, int], Item], lane: int = 0) -> Obs:
        """Put a running lane into this position, keep its time, and recompute the observations."""
        tiles = self.layout
        floor, holds = set(tiles.tiles(FLOOR)), {*tiles.tiles(COUNTER, layout.POT)}
        places = [cook.y * tiles.width + cook.x for cook in cooks]
        if len(set(places)) != 2 or not set(places) <= floor:
            raise ConfigError(f"cooks must be two on different floor tiles, got {[tuple(cook) for cook in cooks]}")
        if wrong := [place for place in things if place[1] * tiles.width + place[0] not in holds]:
            raise ConfigError(f"things lie on counters and in pots only, got {wrong[0]}")
        self._board.things[lane] = (NOTHING, 0, 0, IDLE, 0)
        for (x, y), item in things.items():
            loose = item.name == ITEMS[SOUP] and tiles.terrain[y * tiles.width + x] == COUNTER
            ticks = self._rules.cook_time if loose else item.ticks
            self._board.things[lane, y * tiles.width + x] = (*self._packed(item), ticks, 0)
        for i, cook in enumerate(cooks):
            self._board.players[lane, i] = (places[i], WAYS.index(cook.way), *self._packed(cook.held))
        self._board.cell[lane] = places
        self._kernels.observe(self._rules, self._board, self._out, lane)
        return self._obs

    def _packed(self, item: Item | None) -> tuple[int, int, int]:
        """Return item, onions and tomatoes as numbers."""
        if item is None:
            return NOTHING, 0, 0
        sizes = range(1, FULL + 1) if item.name == ITEMS[SOUP] else (0,)
        if item.name not in ITEMS[1:] or item.onions + item.tomatoes not in sizes:
            known = f"one of {', '.join(ITEMS[1:])}, a soup with 1..{FULL} ingredients"
            raise ConfigError(f"an item is {known}; got {tuple(item)}")
        return ITEMS.index(item.name), item.onions, item.tomatoes

    def render(self, lane: int = 0) -> np.ndarray:
        """Draw a lane, uint8 [height, width, 3]."""
        clock = f"{self._board.lanes[lane]['t']}/{self._rules.limit}"
        return draw(self.layout, self.cooks(lane), self.things(lane), self._rules.cook_time, clock)
