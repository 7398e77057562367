"""Push-2-Box: two agents push boxes to the wall; together they always move a box, alone only by chance.

After the toy task of the FIM paper (Park, Lee, Han 2025), whose exact layout is not published; this one is ours.
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
from envs.kernels.compiled import rule
from envs.kernels.lanes import Outputs, end_step, lane_kernels, rests
from envs.kernels.rng import uniform
from marl.core.checks import require_at_least, require_share, require_within
from marl.core.types import EnvSpec

AGENTS = 2
STARTS = ((-2, 0), (2, 0), (-2, -2), (2, 2), (-2, 2), (2, -2), (0, -2), (0, 2))  # offsets of the boxes from the centre
EVENTS = ("pushing", "joint_pushes", "boxes_moved")
NOTHING, PULLED_APART = -1, -2  # in place of a direction


class Rules(NamedTuple):
    size: int
    limit: int
    lone_push: float
    goal_reward: float


@rule
def box_at(cells: np.ndarray, x: int, y: int) -> int:
    """Return the entity number of the box on this cell, or -1. ``cells`` [E, 2]."""
    for k in range(AGENTS, cells.shape[0]):
        if cells[k, 0] == x and cells[k, 1] == y:
            return k
    return -1


@rule
def find_pushes(board: Board, events: np.ndarray, actions: np.ndarray, b: int) -> None:
    """Set mark[agent] to the box that it pushes, or NOTHING, and mark[box] to the direction in which it will move.

    A box always moves if both push it the same way, by chance if one does, and never if they disagree.
    """
    before, mark = board.before[b], board.mark[b]
    mark[:] = NOTHING
    for i in range(AGENTS):
        x, y = before[i, 0] + DX[actions[b, i]], before[i, 1] + DY[actions[b, i]]
        box = box_at(before, x, y)
        if box >= 0 and actions[b, i] != STAY:
            mark[i] = box
            events[0] += 1
            if mark[box] == NOTHING:
                mark[box] = actions[b, i]
            elif mark[box] != actions[b, i]:
                mark[box] = PULLED_APART
            else:
                events[1] += 1


@rule
def is_free(board: Board, box: int, x: int, y: int, size: int, b: int) -> bool:
    """Return whether ``box`` may enter a cell: no box is or was there, and any agent there moves away, following
    another box."""
    before, cell = board.before[b], board.cell[b]
    if x < 0 or y < 0 or x >= size or y >= size:
        return False
    if box_at(before, x, y) >= 0 or box_at(cell, x, y) >= 0:
        return False
    for i in range(AGENTS):
        if before[i, 0] == x and before[i, 1] == y:
            pushed = board.mark[b, i]
            if pushed == NOTHING or pushed == box or not has_moved(board, pushed, b):
                return False
    return True


@rule
def has_moved(board: Board, entity: int, b: int) -> bool:
    return (
        board.cell[b, entity, 0] != board.before[b, entity, 0] or board.cell[b, entity, 1] != board.before[b, entity, 1]
    )


@rule
def move_boxes(rules: Rules, board: Board, events: np.ndarray, b: int) -> None:
    """Move the boxes that are pushed hard enough; a second pass moves a box whose path was cleared in the first."""
    before, cell, mark = board.before[b], board.cell[b], board.mark[b]
    joint = mark[0] == mark[1]
    for k in range(AGENTS, cell.shape[0]):
        if mark[k] > 0 and not joint and uniform(board.lanes[b]) >= rules.lone_push:
            mark[k] = NOTHING
    for _ in range(2):
        for k in range(AGENTS, cell.shape[0]):
            if mark[k] > 0:
                x, y = before[k, 0] + DX[mark[k]], before[k, 1] + DY[mark[k]]
                if not has_moved(board, k, b) and is_free(board, k, x, y, rules.size, b):
                    cell[k, 0], cell[k, 1] = x, y
                    events[2] += 1


@rule
def move_agents(rules: Rules, board: Board, actions: np.ndarray, b: int) -> None:
    """Move the agents, unless the wall or a box is in the way once the boxes have moved."""
    cell = board.cell[b]
    for i in range(AGENTS):
        x, y = cell[i, 0] + DX[actions[b, i]], cell[i, 1] + DY[actions[b, i]]
        if x >= 0 and y >= 0 and x < rules.size and y < rules.size and box_at(cell, x, y) < 0:
            cell[i, 0], cell[i, 1] = x, y


@rule
def at_border(cells: np.ndarray, size: int) -> bool:
    for k in range(AGENTS, cells.shape[0]):
        x, y = cells[k, 0], cells[k, 1]
        if x == 0 or y == 0 or x == size - 1 or y == size - 1:
            return True
    return False


@rule
def observe_lane(rules: Rules, board: Board, out: Outputs, b: int) -> None:
    """Write the state (all cells, time, a constant) and the observations: the state, the agent's number, and its
    offsets to the boxes and to the other agent."""
    cell, state, scale = board.cell[b], out.state[b], rules.size - 1
    E = cell.shape[0]
    for e in range(E):
        state[2 * e] = cell[e, 0] / scale
        state[2 * e + 1] = cell[e, 1] / scale
    state[2 * E] = board.lanes[b].t / rules.limit
    state[2 * E + 1] = 1.0
    S = 2 * E + 2
    for i in range(AGENTS):
        row = out.obs[b, i]
        for d in range(S):
            row[d] = state[d]
        row[S] = i
        for slot in range(E - 1):
            e = slot + AGENTS if slot < E - AGENTS else 1 - i
            row[S + 1 + 2 * slot] = (cell[e, 0] - cell[i, 0]) / scale
            row[S + 2 + 2 * slot] = (cell[e, 1] - cell[i, 1]) / scale


@rule
def reset_lane(rules: Rules, board: Board, out: Outputs, seed: np.uint64, reseed: bool, b: int) -> None:
    begin_lane(board, out, seed, reseed, b)
    cell, centre = board.cell[b], rules.size // 2
    for i in range(AGENTS):
        cell[i, 0], cell[i, 1] = centre, centre - 1 + 2 * i
    for k in range(cell.shape[0] - AGENTS):
        cell[AGENTS + k, 0], cell[AGENTS + k, 1] = centre + STARTS[k][0], centre + STARTS[k][1]
    observe_lane(rules, board, out, b)


@rule
def step_lane(rules: Rules, board: Board, out: Outputs, actions: np.ndarray, b: int) -> None:
    lane, events = board.lanes[b], out.events[b]
    events[:] = 0
    if rests(lane, out, b):
        return
    remember_cells(board, b)
    find_pushes(board, events, actions, b)
    move_boxes(rules, board, events, b)
    move_agents(rules, board, actions, b)
    won = at_border(board.cell[b], rules.size)
    out.reward[b] = rules.goal_reward if won else 0.0
    end_step(lane, out, won, won, rules.limit, b)
    observe_lane(rules, board, out, b)


KERNELS = lane_kernels(reset_lane, step_lane, observe_lane)


class PushBox(GridGame):
    """Two agents push ``n_boxes`` boxes on a ``size`` x ``size`` grid; won, and over, when a box is at the wall.

    An agent that walks into a box pushes it. Two agents that push a box in the same direction move it; one alone moves
    it with probability ``lone_push``; pushes in different directions do not move it. ``goal_reward`` is paid once, for
    the box at the wall. Everything else pays 0, and the clock (``episode_limit``) truncates.

    State [2 (2 + boxes) + 2]: cells scaled to 0..1, time, a constant. Observation: the state, own number, and scaled
    offsets to each box and to the other agent. ``Step.info``: "pushing", the agents that push a box (0..2),
    "joint_pushes", the boxes pushed by both the same way, and "boxes_moved". Raises ConfigError.
    """

    def __init__(
        self, size: int, n_boxes: int, lone_push: float, goal_reward: float, episode_limit: int,
        *, n_envs: int, seed: int = 0,
    ) -> None:  # fmt: skip
        require_at_least("", 7, size=size)  # on a smaller grid a box would start at the wall
        require_at_least("", 1, episode_limit=episode_limit)
        require_share("", lone_push=lone_push)
        require_within("", 1, len(STARTS), n_boxes=n_boxes)
        rules = Rules(size, episode_limit, float(lone_push), float(goal_reward))
        spec = build_spec(n_boxes, episode_limit)
        super().__init__(spec, rules, KERNELS, size, AGENTS + n_boxes, EVENTS, n_envs, seed)


def build_spec(n_boxes: int, episode_limit: int) -> EnvSpec:
    entities = (*(f"agent {i}" for i in range(AGENTS)), *(f"box {k}" for k in range(n_boxes)))
    state = (*(f"{name} {axis}" for name in entities for axis in "xy"), "time", "constant")
    targets = (*(f"box {k}" for k in range(n_boxes)), "other agent")
    names = (*state, "own id", *(f"{name} d{axis}" for name in targets for axis in "xy"))
    S, O = len(state), len(names)  # noqa: E741
    low = torch.zeros(O)
    low[S + 1 :] = -1.0
    about = torch.zeros(AGENTS, AGENTS, O, dtype=torch.bool)
    for i in range(AGENTS):
        about[i, 0, 0:2] = about[i, 1, 2:4] = True
        about[i, i, S : S + 1 + 2 * n_boxes] = True  # its number, and the offsets of the boxes from it
        about[i, 1 - i, S + 1 + 2 * n_boxes :] = True
    return EnvSpec(
        AGENTS, len(MOVES), O, S, episode_limit, low, torch.ones(O),
        idle_action=STAY, about=about, obs_names=names, state_names=state, action_names=MOVES,
        info_names=EVENTS,
    )  # fmt: skip
