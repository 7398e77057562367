"""Level-based foraging as batched kernels: agents with levels collect food that may need several of them at once.

The task of Albrecht and Ramamoorthy 2013 in the form of Papoudakis et al. 2021 (arXiv 2006.07869), whose rules are
followed; ``env=lbf`` is the original package behind an adapter. ``docs/environments.md`` lists the differences.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from envs.grid.game import (
    DX,
    DY,
    MOVES,
    STAY,
    Board,
    GridGame,
    begin_lane,
    remember_cells,
)
from envs.kernels.compiled import Record, rule
from envs.kernels.lanes import Outputs, end_step, lane_kernels, rests
from envs.kernels.rng import below
from marl.core.checks import require_at_least, require_within
from marl.core.types import ConfigError, EnvSpec

LOAD = 5
NEAR = 3  # no food needs more than the summed levels of this many of the weakest agents
ATTEMPTS = 1000  # tries to find a random cell for each food
EVENTS = ("loads", "failed_loads")


class Rules(NamedTuple):
    size: int
    limit: int
    n: int  # agents; the entities after them are food
    least: int  # levels of agents
    most: int
    coop: bool
    sight: int
    penalty: float
    absent: int


@rule
def food_at(board: Board, n: int, x: int, y: int, b: int) -> int:
    """Return the entity number of the food in this cell, or -1."""
    for f in range(n, board.cell.shape[1]):
        if board.present[b, f] and board.cell[b, f, 0] == x and board.cell[b, f, 1] == y:
            return f
    return -1


@rule
def food_beside(board: Board, n: int, i: int, b: int) -> int:
    """Return the first food next to agent ``i``, in the order of the moves, or -1."""
    for d in range(1, 5):
        f = food_at(board, n, board.cell[b, i, 0] + DX[d], board.cell[b, i, 1] + DY[d], b)
        if f >= 0:
            return f
    return -1


@rule
def may_lie(rules: Rules, board: Board, x: int, y: int, last: int, b: int) -> bool:
    """Return whether food may be put here: not on an agent, and at least two cells (three along rows and columns) from
    the food placed before it."""
    for e in range(last):
        dx, dy = abs(board.cell[b, e, 0] - x), abs(board.cell[b, e, 1] - y)
        if not board.present[b, e]:
            continue
        if e < rules.n:
            if dx + dy == 0:
                return False
        elif max(dx, dy) <= 1 or (min(dx, dy) == 0 and dx + dy <= 2):
            return False
    return True


@rule
def spawn_agents(rules: Rules, board: Board, lane: Record, b: int) -> None:
    """Sample who is absent, then put every other agent on a cell of its own with a level; the absent have level 0."""
    cell, level = board.cell[b], board.mark[b]
    left = rules.absent
    for i in range(rules.n):
        gone = below(lane, rules.n - i) < left
        left -= gone
        board.present[b, i] = not gone
        level[i] = 0
    for i in range(rules.n):
        if not board.present[b, i]:
            cell[i] = 0
            continue
        level[i] = rules.least + below(lane, rules.most - rules.least + 1)
        while True:
            x, y = below(lane, rules.size), below(lane, rules.size)
            taken = False
            for j in range(i):
                taken = taken or (board.present[b, j] and cell[j, 0] == x and cell[j, 1] == y)
            if not taken:
                break
        cell[i, 0], cell[i, 1] = x, y


@rule
def needed(rules: Rules, level: np.ndarray, present: np.ndarray) -> int:
    """Sum the levels of the ``NEAR`` weakest agents that are present."""
    total, found = 0, 0
    for value in range(1, rules.most + 1):
        for i in range(rules.n):
            if present[i] and level[i] == value and found < NEAR:
                total, found = total + value, found + 1
    return total


@rule
def spawn_food(rules: Rules, board: Board, lane: Record, b: int) -> None:
    """Place food inside the border, as much of it as fits."""
    most = needed(rules, board.mark[b], board.present[b])
    for f in range(rules.n, board.cell.shape[1]):
        board.present[b, f] = False
        board.mark[b, f] = 0
        board.cell[b, f] = 0
        for _ in range(ATTEMPTS):
            x, y = 1 + below(lane, rules.size - 2), 1 + below(lane, rules.size - 2)
            if may_lie(rules, board, x, y, f, b):
                board.cell[b, f, 0], board.cell[b, f, 1] = x, y
                board.mark[b, f] = most if rules.coop else 1 + below(lane, most)
                board.present[b, f] = True
                break


@rule
def move_agents(rules: Rules, board: Board, actions: np.ndarray, b: int) -> None:
    """Move all agents simultaneously; those that want the same cell, or the cell of an agent that stays, stay where
    they are."""
    cell, was = board.cell[b], board.before[b]
    remember_cells(board, b)
    for i in range(rules.n):
        if board.present[b, i] and actions[b, i] < LOAD:
            cell[i, 0] += DX[actions[b, i]]
            cell[i, 1] += DY[actions[b, i]]
    changed = True
    while changed:
        changed = False
        for i in range(rules.n):
            for j in range(i):
                if not (board.present[b, i] and board.present[b, j]):
                    continue
                if cell[i, 0] == cell[j, 0] and cell[i, 1] == cell[j, 1]:
                    for e in (i, j):
                        cell[e, 0], cell[e, 1] = was[e, 0], was[e, 1]
                    changed = True


@rule
def load_food(rules: Rules, board: Board, out: Outputs, actions: np.ndarray, b: int) -> float:
    """Load food and return the step's reward: the loaded share of all food levels, less penalties. An agent takes part
    in at most one attempt."""
    level, n = board.mark[b], rules.n
    total = 0
    for f in range(n, board.cell.shape[1]):
        total += level[f]
    reward = 0.0
    for i in range(n):
        board.before[b, i, 0] = board.present[b, i] and actions[b, i] == LOAD  # has not taken part yet
    for i in range(n):
        f = food_beside(board, n, i, b) if board.before[b, i, 0] else -1
        if f < 0:
            continue
        strength, hands = 0, 0
        for j in range(n):
            beside = (
                abs(board.cell[b, j, 0] - board.cell[b, f, 0]) + abs(board.cell[b, j, 1] - board.cell[b, f, 1]) == 1
            )
            if board.before[b, j, 0] and beside:
                strength, hands = strength + level[j], hands + 1
                board.before[b, j, 0] = 0
        if strength >= level[f]:
            board.present[b, f] = False
            reward += level[f] / total
            out.events[b, 0] += 1
        else:
            reward -= rules.penalty * hands
            out.events[b, 1] += 1
    return reward


@rule
def write_seen(rules: Rules, board: Board, row: np.ndarray, place: int, i: int, e: int, highest: float, b: int) -> None:
    """Write four features of entity ``e`` for agent ``i``: present within sight, offset, level; zeros if not seen."""
    dx, dy = board.cell[b, e, 0] - board.cell[b, i, 0], board.cell[b, e, 1] - board.cell[b, i, 1]
    seen = board.present[b, e] and max(abs(dx), abs(dy)) <= rules.sight
    row[place] = 1.0 if seen else 0.0
    row[place + 1] = dx / (rules.size - 1) if seen else 0.0
    row[place + 2] = dy / (rules.size - 1) if seen else 0.0
    row[place + 3] = board.mark[b, e] / highest if seen else 0.0


@rule
def observe_lane(rules: Rules, board: Board, out: Outputs, b: int) -> None:
    """Write observations, masks and the state."""
    cell, level, n, E = board.cell[b], board.mark[b], rules.n, board.cell.shape[1]
    scale, state = rules.size - 1, out.state[b]
    top = float(rules.most * min(n, NEAR))
    for e in range(E):
        there = board.present[b, e]
        state[4 * e] = 1.0 if there else 0.0
        state[4 * e + 1] = cell[e, 0] / scale if there else 0.0
        state[4 * e + 2] = cell[e, 1] / scale if there else 0.0
        state[4 * e + 3] = level[e] / (rules.most if e < n else top) if there else 0.0
    state[4 * E] = board.lanes[b].t / rules.limit
    for i in range(n):
        row, avail = out.obs[b, i], out.avail[b, i]
        there = board.present[b, i]
        out.alive[b, i] = there
        avail[:] = False
        avail[STAY] = True
        row[:] = 0.0
        if not there:
            continue
        row[0], row[1], row[2] = cell[i, 0] / scale, cell[i, 1] / scale, level[i] / rules.most
        for f in range(n, E):
            write_seen(rules, board, row, 3 + 4 * (f - n), i, f, top, b)
        for slot in range(n - 1):
            write_seen(rules, board, row, 3 + 4 * (E - n + slot), i, slot + (slot >= i), float(rules.most), b)
        for d in range(1, 5):
            x, y = cell[i, 0] + DX[d], cell[i, 1] + DY[d]
            inside = 0 <= x < rules.size and 0 <= y < rules.size
            avail[d] = inside and food_at(board, n, x, y, b) < 0
        avail[LOAD] = food_beside(board, n, i, b) >= 0


@rule
def reset_lane(rules: Rules, board: Board, out: Outputs, seed: np.uint64, reseed: bool, b: int) -> None:
    begin_lane(board, out, seed, reseed, b)
    spawn_agents(rules, board, board.lanes[b], b)
    spawn_food(rules, board, board.lanes[b], b)
    observe_lane(rules, board, out, b)


@rule
def step_lane(rules: Rules, board: Board, out: Outputs, actions: np.ndarray, b: int) -> None:
    lane = board.lanes[b]
    if rests(lane, out, b):
        return
    out.events[b] = 0
    move_agents(rules, board, actions, b)
    out.reward[b] = load_food(rules, board, out, actions, b)
    won = not board.present[b, rules.n :].any()
    end_step(lane, out, won, won, rules.limit, b)
    observe_lane(rules, board, out, b)


KERNELS = lane_kernels(reset_lane, step_lane, observe_lane)


class Foraging(GridGame):
    """``n_agents`` with levels ``min_level`` .. ``max_level`` and ``n_food`` foods on a ``size`` x ``size`` grid.

    A food is loaded when the levels of the agents that load next to it add up to at least its own, which is the sum of
    the (at most three) lowest agent levels if ``coop``, else uniform from 1 to that sum. Loading pays the food's share
    of all food levels, so that loading everything pays 1; an attempt that is too weak costs ``penalty`` per agent
    taking part. The episode is won, and ends, when no food is left. In every episode ``absent_agents`` agents, chosen
    at random, do not take part. The clock truncates.

    Observation [3 + 4 n_food + 4 (n-1)]: own cell and level; for every food, then for every other agent, whether it is
    present within ``sight`` cells, its offset and its level; scaled, zeros if not. State: presence, cell and level of
    every agent and food, and time.
    ``Step.info``: "loads", "failed_loads" of the step. Raises ConfigError.
    """

    def __init__(
        self, size: int, n_agents: int, n_food: int, min_level: int, max_level: int, coop: bool, sight: int,
        penalty: float, absent_agents: int, episode_limit: int, *, n_envs: int, seed: int = 0,
    ) -> None:  # fmt: skip
        require_at_least("", 4, size=size)
        require_at_least("", 1, n_agents=n_agents, n_food=n_food, min_level=min_level, sight=sight)
        require_at_least("", min_level, max_level=max_level)
        require_at_least("", 0, penalty=penalty)
        require_at_least("", 1, episode_limit=episode_limit)
        require_within("", 0, n_agents - 1, absent_agents=absent_agents)
        if n_agents >= (size - 2) ** 2:
            raise ConfigError(f"n_agents is {n_agents}; {size} x {size} cells have room for {(size - 2) ** 2 - 1}")
        rules = Rules(size, episode_limit, n_agents, min_level, max_level, coop, sight, float(penalty), absent_agents)
        super().__init__(
            build_spec(n_agents, n_food, episode_limit), rules, KERNELS, size,
            n_agents + n_food, EVENTS, n_envs, seed,
        )  # fmt: skip


def build_spec(n: int, foods: int, episode_limit: int) -> EnvSpec:
    things = (*(f"food {k}" for k in range(foods)), *(f"other {k}" for k in range(n - 1)))
    names = ("own x", "own y", "own level", *(f"{x} {what}" for x in things for what in ("seen", "dx", "dy", "level")))
    low, about = torch.zeros(len(names)), torch.zeros(n, n, len(names), dtype=torch.bool)
    for k in range(len(things)):
        low[4 + 4 * k : 6 + 4 * k] = -1.0
    for i in range(n):
        about[i, i, :3] = True
        for slot in range(n - 1):
            start = 3 + 4 * (foods + slot)
            about[i, slot + (slot >= i), start : start + 4] = True
    entities = (*(f"agent {i}" for i in range(n)), *(f"food {k}" for k in range(foods)))
    state = (*(f"{e} {what}" for e in entities for what in ("there", "x", "y", "level")), "time")
    return EnvSpec(
        n, 6, len(names), len(state), episode_limit, low, torch.ones(len(names)),
        noop_action=STAY, idle_action=STAY, about=about, obs_names=names, state_names=state,
        action_names=(*MOVES, "load"),
    )  # fmt: skip
