"""Spread: agents start on one cell and are rewarded once, when they are all far apart.

The exploration task of ``docs/environments.md``: what matters is the agents' formation, not where it is.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
import torch

from envs.grid.game import (
    DX,
    DY,
    STAY,
    Board,
    GridGame,
    begin_lane,
)
from envs.kernels.compiled import rule
from envs.kernels.lanes import Outputs, end_step, lane_kernels, rests
from envs.kernels.rng import below
from marl.core.checks import require_at_least, require_choice
from marl.core.types import ConfigError, EnvSpec

MOVES = ("stay", "right", "left", "up", "down")
EVENTS = ("formation", "positions")
Start = Literal["centre", "anywhere"]


class Rules(NamedTuple):
    size: int
    limit: int
    distance: int
    sight: int
    goal_reward: float
    anywhere: bool


@rule
def far_apart(cells: np.ndarray, distance: int) -> bool:
    """Return whether all pairs of ``cells`` [n, 2] are at least ``distance`` apart, by the larger of |dx| and |dy|."""
    for i in range(cells.shape[0]):
        for j in range(i):
            if max(abs(cells[i, 0] - cells[j, 0]), abs(cells[i, 1] - cells[j, 1])) < distance:
                return False
    return True


@rule
def number_positions(cells: np.ndarray, size: int) -> int:
    """Return one number per joint position: the agents' cells are the digits of a number in base size * size."""
    number = 0
    for i in range(cells.shape[0]):
        number = number * size * size + cells[i, 1] * size + cells[i, 0]
    return number


@rule
def number_formation(cells: np.ndarray, order: np.ndarray, size: int) -> int:
    """Return a number that is the same for joint positions that differ only by a shift or by who stands where.
    ``order`` [n] is scratch for sorting."""
    n = cells.shape[0]
    left = bottom = size
    for i in range(n):
        left, bottom = min(left, cells[i, 0]), min(bottom, cells[i, 1])
    for i in range(n):
        digit = (cells[i, 1] - bottom) * size + cells[i, 0] - left
        j = i
        while j > 0 and order[j - 1] > digit:
            order[j] = order[j - 1]
            j -= 1
        order[j] = digit
    number = 0
    for i in range(n):
        number = number * size * size + order[i]
    return number


@rule
def observe_lane(rules: Rules, board: Board, out: Outputs, b: int) -> None:
    """Write the state and the observations: own cell and time and, if ``sight`` > 0, offsets of teammates within
    sight."""
    cell, state, scale = board.cell[b], out.state[b], rules.size - 1
    n = cell.shape[0]
    time = board.lanes[b].t / rules.limit
    for i in range(n):
        state[2 * i], state[2 * i + 1] = cell[i, 0] / scale, cell[i, 1] / scale
        row = out.obs[b, i]
        row[0], row[1], row[2] = cell[i, 0] / scale, cell[i, 1] / scale, time
        for slot in range(n - 1 if rules.sight > 0 else 0):
            j = slot + (slot >= i)
            dx, dy = cell[j, 0] - cell[i, 0], cell[j, 1] - cell[i, 1]
            seen = max(abs(dx), abs(dy)) <= rules.sight
            row[3 + 3 * slot] = 1.0 if seen else 0.0
            row[4 + 3 * slot] = dx / rules.sight if seen else 0.0
            row[5 + 3 * slot] = dy / rules.sight if seen else 0.0
    state[2 * n] = time


@rule
def reset_lane(rules: Rules, board: Board, out: Outputs, seed: np.uint64, reseed: bool, b: int) -> None:
    begin_lane(board, out, seed, reseed, b)
    if rules.anywhere:
        lane = board.lanes[b]
        board.cell[b, :, 0], board.cell[b, :, 1] = below(lane, rules.size), below(lane, rules.size)
    else:
        board.cell[b] = (rules.size - 1) // 2
    observe_lane(rules, board, out, b)


@rule
def step_lane(rules: Rules, board: Board, out: Outputs, actions: np.ndarray, b: int) -> None:
    lane, cell = board.lanes[b], board.cell[b]
    if rests(lane, out, b):
        return
    for i in range(cell.shape[0]):
        cell[i, 0] = min(max(cell[i, 0] + DX[actions[b, i]], 0), rules.size - 1)
        cell[i, 1] = min(max(cell[i, 1] + DY[actions[b, i]], 0), rules.size - 1)
    out.events[b, 0] = number_formation(cell, board.mark[b], rules.size)
    out.events[b, 1] = number_positions(cell, rules.size)
    won = far_apart(cell, rules.distance)
    out.reward[b] = rules.goal_reward if won else 0.0
    end_step(lane, out, won, won, rules.limit, b)
    observe_lane(rules, board, out, b)


KERNELS = lane_kernels(reset_lane, step_lane, observe_lane)


class Spread(GridGame):
    """``n_agents`` start on one cell of a ``size`` x ``size`` grid: the one at its centre, (size - 1) // 2 in x and y,
    or, if ``start`` is "anywhere", a random cell that is sampled for every episode.

    The episode is won, pays ``goal_reward`` and ends as soon as all pairs of agents are at least ``distance`` cells
    apart in x or in y; everything else pays 0, and the clock (``episode_limit``) truncates. Agents may share cells;
    walls block.

    Observation [3]: own cell scaled to 0..1, time; with ``sight`` > 0 also, for each other agent, whether it is within
    that many cells in x and in y, and its offset, scaled to -1..1, zeros if not. State [2 n + 1]: all cells, time.

    ``Step.info``: "positions", a number for the joint position reached, and "formation", which is the same for
    positions that are equal up to a shift and up to who stands where; count the distinct ones. Raises ConfigError.
    """

    def __init__(
        self, size: int, n_agents: int, distance: int, sight: int, start: Start,
        goal_reward: float, episode_limit: int, *, n_envs: int, seed: int = 0,
    ) -> None:  # fmt: skip
        require_at_least("", 2, size=size, n_agents=n_agents)
        require_at_least("", 1, distance=distance, episode_limit=episode_limit)
        require_at_least("", 0, sight=sight)
        require_choice("", get_args(Start), start=start)
        room = ((size - 1) // distance + 1) ** 2
        if n_agents > room:
            raise ConfigError(f"distance is {distance}; {size} x {size} cells have room for {room} agents so far apart")
        if size ** (2 * n_agents) >= 2**63:
            raise ConfigError(f"n_agents is {n_agents}, too many to number the formations on {size} x {size} cells")
        rules = Rules(size, episode_limit, distance, sight, float(goal_reward), start == "anywhere")
        spec = build_spec(n_agents, sight, episode_limit)
        super().__init__(spec, rules, KERNELS, size, n_agents, EVENTS, n_envs, seed)


def build_spec(n: int, sight: int, episode_limit: int) -> EnvSpec:
    agents, slots = range(n), range(n - 1 if sight > 0 else 0)
    obs_names = ("own x", "own y", "time", *(f"other {k} {what}" for k in slots for what in ("seen", "dx", "dy")))
    O = len(obs_names)  # noqa: E741
    low = torch.zeros(O)
    about = torch.zeros(n, n, O, dtype=torch.bool)
    for i in agents:
        about[i, i, :2] = True
    for k in slots:
        low[4 + 3 * k : 6 + 3 * k] = -1.0
        for i in agents:
            about[i, k + (k >= i), 3 + 3 * k : 6 + 3 * k] = True
    return EnvSpec(
        n, len(MOVES), O, 2 * n + 1, episode_limit, low, torch.ones(O),
        idle_action=STAY, about=about, obs_names=obs_names,
        state_names=(*(f"agent {i} {axis}" for i in agents for axis in "xy"), "time"), action_names=MOVES,
        info_names=EVENTS,
    )  # fmt: skip
