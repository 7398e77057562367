"""Paths around walls: for every pair of cells, the next waypoint; computed once per terrain.

Shortest paths over neighbouring cells (Dijkstra with lengths 1 and sqrt 2, never across a corner), cut short to the
farthest cell on the path that a straight line reaches.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from envs.skirmish.terrain import SIZE, walkable_cells
from marl.core.caching import njit

STRAIGHT = -1
CELLS = SIZE * SIZE
BODY = 0.3  # a line is open if a body that extends this far to either side can pass
SAMPLE = 0.2  # distance between the points at which a line is probed
NO_ROUTES = np.full((1, 1), STRAIGHT, np.int16)


@functools.lru_cache(maxsize=16)
def routes_on(terrain: str) -> np.ndarray:
    """Return int16 [1024, 1024]: from cell ``32 y + x`` to another, the cell to head for, or STRAIGHT.

    For a rectangle, where no wall is ever in the way, return ``NO_ROUTES``.
    """
    walkable = walkable_cells(terrain)
    rows, columns = np.flatnonzero(walkable.any(1)), np.flatnonzero(walkable.any(0))
    if walkable.sum() == len(rows) * len(columns):
        return NO_ROUTES
    routes = np.full((CELLS, CELLS), STRAIGHT, np.int16)
    fill_routes(walkable.ravel(), _nearest_open(walkable), routes)
    return routes


def _nearest_open(walkable: np.ndarray) -> np.ndarray:
    """Return the walkable cell nearest to each cell, int16 [1024]."""
    open_cells = np.argwhere(walkable)
    everywhere = np.argwhere(np.ones_like(walkable))
    square = ((everywhere[:, None] - open_cells[None]) ** 2).sum(2)
    return (open_cells @ np.array([SIZE, 1]))[square.argmin(1)].astype(np.int16)


@njit(cache=True)
def line_is_open(walkable: np.ndarray, one: int, two: int) -> bool:
    """Return whether a body can pass between the centres of two cells of ``walkable`` [1024]."""
    x, y = one % SIZE + 0.5, one // SIZE + 0.5
    dx, dy = float(two % SIZE - one % SIZE), float(two // SIZE - one // SIZE)
    far = math.sqrt(dx * dx + dy * dy)
    steps = int(far / SAMPLE) + 1
    for k in range(steps + 1):
        for side in range(-1, 2):
            px = x + dx * k / steps - side * BODY * dy / max(far, 1e-9)
            py = y + dy * k / steps + side * BODY * dx / max(far, 1e-9)
            if not walkable[int(py) * SIZE + int(px)]:
                return False
    return True


@njit(cache=True)
def search(walkable: np.ndarray, goal: int, next_cell: np.ndarray) -> None:
    """Fill ``next_cell`` int16 [1024]: the neighbour on a shortest path to ``goal``; STRAIGHT where there is none."""
    length = np.full(CELLS, np.inf)
    settled = np.zeros(CELLS, np.bool_)
    next_cell[:] = STRAIGHT
    length[goal] = 0.0
    while True:
        here = -1
        for cell in range(CELLS):
            if not settled[cell] and length[cell] < np.inf and (here < 0 or length[cell] < length[here]):
                here = cell
        if here < 0:
            return
        settled[here] = True
        x, y = here % SIZE, here // SIZE
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                if not (0 <= x + dx < SIZE and 0 <= y + dy < SIZE) or not walkable[here + SIZE * dy + dx]:
                    continue
                if not (walkable[here + SIZE * dy] and walkable[here + dx]):
                    continue
                there = here + SIZE * dy + dx
                via = length[here] + math.sqrt(dx * dx + dy * dy)
                if via < length[there] - 1e-9:
                    length[there] = via
                    next_cell[there] = here


@njit(cache=True)
def fill_routes(walkable: np.ndarray, nearest: np.ndarray, routes: np.ndarray) -> None:
    """Fill ``routes`` (see ``routes_on``). ``walkable`` uint8 [1024]; ``nearest`` int16 [1024] is the open cell that
    stands in for a blocked goal."""
    next_cell = np.zeros(CELLS, np.int16)
    for goal in range(CELLS):
        if not walkable[goal]:
            continue
        search(walkable, goal, next_cell)
        for start in range(CELLS):
            if not walkable[start] or next_cell[start] < 0 or line_is_open(walkable, start, goal):
                continue
            via = next_cell[start]
            while line_is_open(walkable, start, next_cell[via]):
                via = next_cell[via]
            routes[start, goal] = via
    for goal in range(CELLS):
        if not walkable[goal]:
            routes[:, goal] = routes[:, nearest[goal]]
