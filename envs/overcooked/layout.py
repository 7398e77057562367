"""Kitchens as text, and what follows from the layout alone: who can reach what, and how far away it is.

The notation is that of the ``overcooked-ai`` package: one character per tile, rows from top to bottom; ``X`` counter,
``P`` pot, ``O`` onions, ``T`` tomatoes, ``D`` dishes, ``S`` serving window, space floor, ``1`` and ``2`` where the
cooks 0 and 1 start. A tile's number is y * width + x, y pointing down.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from marl.core.types import ConfigError

FLOOR, COUNTER, POT, ONIONS, TOMATOES, DISHES, SERVE = range(7)
TILES = {" ": FLOOR, "X": COUNTER, "P": POT, "O": ONIONS, "T": TOMATOES, "D": DISHES, "S": SERVE}
PLAYERS = 2
DX, DY = (0, 0, 1, -1), (-1, 1, 0, 0)  # of the four directions: N, S, E, W
OPPOSITE = (1, 0, 3, 2)
FAR = 10_000  # stands for unreachable; longer than any path


@dataclass(frozen=True)
class Layout:
    """A kitchen. ``terrain`` int64 [tiles], ``start`` the players' first tiles, ``reach`` the floor each can reach."""

    width: int
    height: int
    terrain: np.ndarray
    start: tuple[int, int]
    reach: tuple[frozenset[int], frozenset[int]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reach", tuple(self._walkable_from(tile) for tile in self.start))

    @property
    def steps(self) -> tuple[int, int, int, int]:
        """Return the offsets in tile numbers of the four directions."""
        return (-self.width, self.width, 1, -1)

    @property
    def text(self) -> str:
        """Return the kitchen as ``parse`` reads it."""
        letters = {kind: letter for letter, kind in TILES.items()}
        tiles = [letters[kind] for kind in self.terrain.tolist()]
        for i, tile in enumerate(self.start):
            tiles[tile] = str(i + 1)
        return "/".join("".join(tiles[at : at + self.width]) for at in range(0, len(tiles), self.width))

    def tiles(self, *kinds: int) -> list[int]:
        """Return the tiles of these kinds, row by row."""
        return [tile for tile, kind in enumerate(self.terrain.tolist()) if kind in kinds]

    def shelves(self) -> list[int]:
        """Return the counters next to a floor tile, on which things can be put down."""
        return [tile for tile in self.tiles(COUNTER) if self.stands_before(tile)]

    def stands_before(self, tile: int) -> list[tuple[int, int]]:
        """Return the (floor tile, direction) pairs from which a player faces ``tile``, which is not floor; floor tiles
        N, S, E, W of it, in this order."""
        x, y, found = tile % self.width, tile // self.width, []
        for way in range(4):
            column, row = x + DX[way], y + DY[way]
            if 0 <= column < self.width and 0 <= row < self.height:
                beside = row * self.width + column
                if self.terrain[beside] == FLOOR:
                    found.append((beside, OPPOSITE[way]))
        return found

    def distances(self, counters: bool) -> np.ndarray:
        """Return int64 [tiles, 4, tiles]: how many actions it takes from a tile and a direction until a player faces a
        tile; ``FAR``: never.

        An action moves to the next floor tile, or only turns if that tile is not floor. Other players are ignored.
        Without ``counters``, counters count as unreachable.
        """
        size = len(self.terrain)
        far = np.full((size, 4, size), FAR, np.int64)
        for start in self.tiles(FLOOR):
            for way in range(4):
                for (tile, facing), steps in self._turns_from(start, way).items():
                    ahead = tile + self.steps[facing]
                    kind = self.terrain[ahead]
                    if kind != FLOOR and (counters or kind != COUNTER):
                        far[start, way, ahead] = min(far[start, way, ahead], steps)
        return far

    def _turns_from(self, tile: int, way: int) -> dict[tuple[int, int], int]:
        """Return the number of actions to every reachable (tile, direction)."""
        reached, queue = {(tile, way): 0}, deque([(tile, way)])
        while queue:
            here = queue.popleft()
            for turn in range(4):
                ahead = here[0] + self.steps[turn]
                there = (ahead if self.terrain[ahead] == FLOOR else here[0], turn)
                if there not in reached:
                    reached[there] = reached[here] + 1
                    queue.append(there)
        return reached

    def _walkable_from(self, tile: int) -> frozenset[int]:
        return frozenset(place for place, _ in self._turns_from(tile, 0))


def parse(grid: str) -> Layout:
    """Read a kitchen from its rows, one per line or separated by "/", ignoring empty lines before and after them.

    Raise a ConfigError that says what is wrong with it.
    """
    rows = [row.strip() for row in grid.strip().replace("/", "\n").split("\n")]
    width, height = len(rows[0]), len(rows)
    shown = "/".join(rows)
    if not width:
        raise ConfigError("grid has no tiles; give its rows, separated by /")
    if any(len(row) != width for row in rows):
        raise ConfigError(f"grid {shown}: rows must be equally long, they have {[len(row) for row in rows]} tiles")
    text = "".join(rows)
    known = "".join(TILES) + "12"
    if wrong := sorted(set(text) - set(known)):
        raise ConfigError(f"grid {shown}: unknown tile {wrong[0]!r}; allowed are {known!r}, two players at most")
    edge = rows[0] + rows[-1] + "".join(row[0] + row[-1] for row in rows)
    if open_ := set(edge) & set(" 12"):
        raise ConfigError(f"grid {shown}: its border must be closed, but has {min(open_)!r}")
    for what, tiles in (("1, where cook 0 starts,", "1"), ("2, where cook 1 starts,", "2")):
        if text.count(tiles) != 1:
            raise ConfigError(f"grid {shown}: {what} must be there once, but is there {text.count(tiles)} times")
    for what, tiles in (("P", "P"), ("D", "D"), ("S", "S"), ("O or T", "OT")):
        if not set(text) & set(tiles):
            raise ConfigError(f"grid {shown}: there must be a tile {what}")
    terrain = np.array([TILES.get(tile, FLOOR) for tile in text], np.int64)
    return Layout(width, height, terrain, (text.index("1"), text.index("2")))
