"""A kitchen as seen from outside the kernels: cooks and the things that they handle."""

from __future__ import annotations

from typing import NamedTuple

from envs.overcooked.records import IDLE


class Item(NamedTuple):
    """Something in a hand or on a tile: ``name`` onion, tomato, dish or soup. A soup has ingredients and, in a pot, the
    number of steps that it has cooked (-1: not cooking)."""

    name: str
    onions: int = 0
    tomatoes: int = 0
    ticks: int = IDLE


class Cook(NamedTuple):
    """A player: its tile, the direction it faces (N, S, E, W), and what it holds."""

    x: int
    y: int
    way: str = "N"
    held: Item | None = None
