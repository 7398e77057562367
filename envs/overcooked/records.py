"""The records that the kernels of Overcooked read and write: players, things on tiles, a kitchen's rules, all lanes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# What a hand or a tile holds, in the order of the 96 features.
NOTHING, ONION, SOUP, DISH, TOMATO = range(5)
ITEMS = ("nothing", "onion", "soup", "dish", "tomato")
FULL = 3  # ingredients
IDLE = -1  # ticks of a soup that is not cooking

ACTIONS = ("N", "S", "E", "W", "stay", "interact")
STAY, INTERACT = 4, 5

# What happened to a player in a step: the names of the ``overcooked-ai`` package, in its order.
EVENTS = (
    "tomato_pickup", "useful_tomato_pickup", "tomato_drop", "useful_tomato_drop", "potting_tomato",
    "onion_pickup", "useful_onion_pickup", "onion_drop", "useful_onion_drop", "potting_onion",
    "dish_pickup", "useful_dish_pickup", "dish_drop", "useful_dish_drop",
    "soup_pickup", "soup_delivery", "soup_drop",
    "optimal_onion_potting", "optimal_tomato_potting", "viable_onion_potting", "viable_tomato_potting",
    "catastrophic_onion_potting", "catastrophic_tomato_potting", "useless_onion_potting", "useless_tomato_potting",
)  # fmt: skip
# Columns of EVENTS by item: the event; its useful form, which soup lacks, is the next column.
PICKUP = (-1, EVENTS.index("onion_pickup"), EVENTS.index("soup_pickup"), EVENTS.index("dish_pickup"), 0)
DROP = (-1, EVENTS.index("onion_drop"), EVENTS.index("soup_drop"), EVENTS.index("dish_drop"), 2)
POTTING = (-1, EVENTS.index("potting_onion"), -1, -1, EVENTS.index("potting_tomato"))
DELIVERY = EVENTS.index("soup_delivery")
OPTIMAL, VIABLE, CATASTROPHIC, USELESS = (EVENTS.index(f"{how}_onion_potting") for how in (
    "optimal", "viable", "catastrophic", "useless"))  # fmt: skip

# fmt: off
PLAYER = np.dtype([(name, np.int32) for name in (
    "at",  # tile
    "way",  # direction it faces: N, S, E, W
    "held",  # item
    "onions", "tomatoes")])  # of the soup it holds
THING = np.dtype([(name, np.int32) for name in (
    "item",
    "onions", "tomatoes",  # of a soup
    "ticks",  # steps a soup has cooked; IDLE: not cooking
    "since")])  # when it was put there: ties between equally near things go to the older one
# fmt: on


class Rules(NamedTuple):
    """A kitchen, its recipes and its rewards; shared by all lanes."""

    width: int
    height: int
    limit: int
    cook_time: int
    auto_cook: bool
    planes: bool  # observations are planes, otherwise the 96 features
    counters: bool  # features cover things on counters
    potting_bonus: float
    dish_bonus: float
    soup_bonus: float
    parked_soup_pays: bool  # whether a soup keeps its bonuses while it lies on a counter
    random_start: float  # probability that an episode starts mid-game
    terrain: np.ndarray  # int64 [tiles]
    steps: np.ndarray  # int64 [6]; the offset in tile numbers of each action
    start: np.ndarray  # int64 [2]; tiles
    floors: np.ndarray  # bool [2, tiles]; the floor that each player can reach
    ingredients: np.ndarray  # int64 [kinds]; ONION and TOMATO, as far as the kitchen has them
    shelves: np.ndarray  # int64 [shelves]; counters that can be reached from some floor
    pots: np.ndarray  # int64 [pots]
    value: np.ndarray  # f64 [4, 4]; what a soup of i onions and j tomatoes pays
    best: np.ndarray  # f64 [4, 4]; the most it can still end up paying
    blank: np.ndarray  # f32 [tiles * 26]; the planes of an empty kitchen without players
    base: np.ndarray  # int64 [tiles]; where a tile's planes begin
    nearest: np.ndarray  # int64 [tiles, 4, 7]; from a tile and a direction, the nearest tile of each kind, -1: none
    pot_order: np.ndarray  # int64 [tiles, 4, 2]; the nearest and the second nearest pot, -1: none
    distance: np.ndarray  # int64 [tiles, 4, tiles]; see Layout.distances


class Kitchens(NamedTuple):
    """All lanes."""

    lanes: np.ndarray  # envs.kernels.lanes.LANE [B]
    players: np.ndarray  # PLAYER [B, 2]
    things: np.ndarray  # THING [B, tiles]
    shaped: np.ndarray  # f32 [B, 2]; shaped rewards of the step
    cell: np.ndarray  # int64 [B, 2]; the tile where each player stands
    station: np.ndarray  # int64 [B, 2]; the tile that each player used in the step, -1: none
