"""Multi-Destination Spread: a team that starts on one cell is paid at every step for the goal cells it covers.

A small benchmark for zero-shot coordination, after SBC (Kang, Lee, Jo, Han 2026): who goes where is a convention. Its
rules are not published; these come from a third-party version and are consistent with the best return that SBC reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from envs.grid.game import (
    CELL_PIXELS,
    Board,
    GridGame,
    begin_lane,
    remember_cells,
)
from envs.kernels.compiled import rule
from envs.kernels.lanes import Outputs, end_step, lane_kernels, rests
from marl.core.checks import require_at_least, require_choice
from marl.core.types import Blockable, ConfigError, EnvSpec

MOVES = ("N", "NE", "E", "SE", "S", "SW", "W", "NW", "stay")
STAY = 8
DX = (0, 1, 1, 1, 0, -1, -1, -1, 0)  # by action
DY = (-1, -1, 0, 1, 1, 1, 0, -1, 0)  # y points down
EVENTS = ("covered",)


class Rules(NamedTuple):
    size: int
    limit: int
    goals: np.ndarray  # bool [size²]
    pay: np.ndarray  # f64 [goals + 1]; by the number of distinct goals covered


@rule
def move_agents(rules: Rules, board: Board, actions: np.ndarray, b: int) -> None:
    """Move all agents simultaneously. Those that head for the same cell go back to where they were, even if another
    agent has moved there."""
    cell, before, target = board.cell[b], board.before[b], board.mark[b]
    remember_cells(board, b)
    for i in range(cell.shape[0]):
        x = min(max(cell[i, 0] + DX[actions[b, i]], 0), rules.size - 1)
        y = min(max(cell[i, 1] + DY[actions[b, i]], 0), rules.size - 1)
        target[i] = y * rules.size + x
    for i in range(cell.shape[0]):
        alone = True
        for j in range(cell.shape[0]):
            alone &= j == i or target[j] != target[i]
        cell[i, 0] = target[i] % rules.size if alone else before[i, 0]
        cell[i, 1] = target[i] // rules.size if alone else before[i, 1]


@rule
def count_covered(rules: Rules, cells: np.ndarray) -> int:
    """Count the distinct goals that have an agent on them."""
    covered = 0
    for i in range(cells.shape[0]):
        first = True
        for j in range(i):
            first &= cells[j, 0] != cells[i, 0] or cells[j, 1] != cells[i, 1]
        covered += first and rules.goals[cells[i, 1] * rules.size + cells[i, 0]]
    return covered


@rule
def observe_lane(rules: Rules, board: Board, out: Outputs, b: int) -> None:
    """Write the state, a one-hot cell per agent, and the observations: the state and the agent's own one-hot index."""
    cell, state = board.cell[b], out.state[b]
    n, C = cell.shape[0], rules.size * rules.size
    state[:] = 0.0
    for i in range(n):
        state[i * C + cell[i, 1] * rules.size + cell[i, 0]] = 1.0
    for i in range(n):
        row = out.obs[b, i]
        for d in range(n * C):
            row[d] = state[d]
        for j in range(n):
            row[n * C + j] = i == j


@rule
def reset_lane(rules: Rules, board: Board, out: Outputs, seed: np.uint64, reseed: bool, b: int) -> None:
    begin_lane(board, out, seed, reseed, b)
    board.cell[b] = rules.size // 2
    observe_lane(rules, board, out, b)


@rule
def step_lane(rules: Rules, board: Board, out: Outputs, actions: np.ndarray, b: int) -> None:
    lane, events = board.lanes[b], out.events[b]
    events[0] = 0
    if rests(lane, out, b):
        return
    move_agents(rules, board, actions, b)
    for i in range(board.mark.shape[1]):
        board.mark[b, i] = board.cell[b, i, 1] * rules.size + board.cell[b, i, 0]
    events[0] = count_covered(rules, board.cell[b])
    out.reward[b] = rules.pay[events[0]]
    end_step(lane, out, False, events[0] == rules.pay.shape[0] - 1, rules.limit, b)
    observe_lane(rules, board, out, b)


KERNELS = lane_kernels(reset_lane, step_lane, observe_lane)


class MultiDestinationSpread(GridGame):
    """``n_agents`` start on the centre of a ``size`` x ``size`` grid; ``goals`` are cells [x, y], y pointing down.

    Every step pays ``pay[k]`` for k distinct covered goals, until the clock (``episode_limit``) truncates; ``won`` in a
    step in which all are covered. Agents move in eight directions, and walls block; agents that head for the same cell
    all go back to where they were. Agents share a cell at the start, and when one goes back to a cell that another has
    entered.

    State [n size²]: a one-hot cell for each agent. Observation [n size² + n]: the state and the agent's one-hot index.
    ``Step.info``: "covered", the distinct goals covered, and "cell" long [B, n], where the agents are (y size + x).
    For state blocking there are the families "cells" and "goals". Raises ConfigError.
    """

    families = ("cells", "goals")

    def __init__(
        self, size: int, n_agents: int, goals: Sequence[Sequence[int]], pay: Sequence[float], episode_limit: int,
        *, n_envs: int, seed: int = 0,
    ) -> None:  # fmt: skip
        require_at_least("", 2, size=size, n_agents=n_agents)
        require_at_least("", 1, episode_limit=episode_limit)
        taken = np.zeros(size * size, np.bool_)
        for goal in goals:
            if len(goal) != 2 or not all(0 <= c < size for c in goal) or taken[goal[1] * size + goal[0]]:
                raise ConfigError(f"goals must be different [x, y] in 0..{size - 1}, got {[list(g) for g in goals]}")
            taken[goal[1] * size + goal[0]] = True
        if not 1 <= len(goals) <= n_agents:
            raise ConfigError(f"goals must be 1..{n_agents} cells for {n_agents} agents, got {len(goals)}")
        if len(pay) != len(goals) + 1:
            raise ConfigError(f"pay must have {len(goals) + 1} values, for 0..{len(goals)} goals, got {len(pay)}")
        self.n_block_features = size * size
        rules = Rules(size, episode_limit, taken, np.array(pay, np.float64))
        spec = build_spec(size, n_agents, taken, episode_limit)
        super().__init__(spec, rules, KERNELS, size, n_agents, EVENTS, n_envs, seed)
        self._info["cell"] = torch.from_numpy(self._board.mark)

    def block_features(self, family: str) -> Tensor:
        """Return the cell that each agent is on, long [B, n]; the same for both families."""
        self.blockable(family)
        return torch.from_numpy(self._board.cell[..., 1] * self.size + self._board.cell[..., 0])

    def blockable(self, family: str) -> Tensor:
        """Return which cells can be blocked for each agent, bool [n, C]."""
        require_choice("", self.families, family=family)
        return self.spec.blockable[family].mask.clone()

    def render(self, lane: int = 0) -> np.ndarray:
        """Draw a lane, uint8 [height, width, 3]: goals are squares, agents are slices of a disc, one colour and angle
        each."""
        side, n = CELL_PIXELS, self.spec.n_agents
        image = Image.new("RGB", (side * self.size + 1, side * self.size + 1), "white")
        pen = ImageDraw.Draw(image)
        for place, goal in enumerate(self._rules.goals):
            x, y = side * (place % self.size), side * (place // self.size)
            pen.rectangle((x, y, x + side, y + side), fill="palegreen" if goal else "white", outline="lightgray")
        for i, (column, row) in enumerate(self._board.cell[lane].tolist()):
            box = (column * side + 3, row * side + 3, column * side + side - 3, row * side + side - 3)
            pen.pieslice(box, 360 * i / n, 360 * (i + 1) / n, fill=f"hsl({360 * i // n},70%,45%)", outline="black")
        return np.array(image)


def build_spec(size: int, n: int, goals: np.ndarray, episode_limit: int) -> EnvSpec:
    C = size * size
    families = {"cells": torch.ones(n, C, dtype=torch.bool), "goals": torch.from_numpy(goals).expand(n, -1).clone()}
    state = tuple(f"agent {i} at {place % size},{place // size}" for i in range(n) for place in range(C))
    O = len(state) + n  # noqa: E741
    about = torch.zeros(n, n, O, dtype=torch.bool)
    for j in range(n):
        about[:, j, j * C : (j + 1) * C] = True
        about[j, j, n * C :] = True
    return EnvSpec(
        n, len(MOVES), O, len(state), episode_limit, torch.zeros(O), torch.ones(O), idle_action=STAY, about=about,
        obs_names=(*state, *(f"is agent {i}" for i in range(n))), state_names=state, action_names=MOVES,
        info_names=(*EVENTS, "cell"), blockable={name: Blockable("cell", mask) for name, mask in families.items()},
    )  # fmt: skip
