"""Predator and prey with a penalty for miscoordination: a catch needs several hunters, too few are penalised.

The "relative overgeneralization" task of Böhmer, Kurin and Whiteson 2020 (Deep Coordination Graphs, section 6.1), whose
rules are followed. Here the state is a list of named coordinates; in the paper it is an image of the grid.
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
)
from envs.kernels.compiled import Record, rule
from envs.kernels.lanes import Outputs, end_step, lane_kernels, rests
from envs.kernels.rng import below, uniform
from marl.core.checks import require_at_least, require_share, require_within
from marl.core.types import ConfigError, EnvSpec

CATCH = 5
EVENTS = ("captures", "failed_catches")


class Rules(NamedTuple):
    size: int
    predators: int
    limit: int
    capture_needs: int
    sight: int
    catchers_leave: bool
    capture_reward: float
    penalty: float
    prey_rest: float


@rule
def entity_at(board: Board, x: int, y: int, b: int) -> int:
    """Return the entity that stands on this cell, or -1."""
    for e in range(board.cell.shape[1]):
        if board.present[b, e] and board.cell[b, e, 0] == x and board.cell[b, e, 1] == y:
            return e
    return -1


@rule
def is_open(rules: Rules, board: Board, x: int, y: int, b: int) -> bool:
    inside = x >= 0 and y >= 0 and x < rules.size and y < rules.size
    return inside and entity_at(board, x, y, b) < 0


@rule
def adjacent(board: Board, d: int, e: int, b: int) -> bool:
    cell = board.cell[b]
    return abs(cell[d, 0] - cell[e, 0]) + abs(cell[d, 1] - cell[e, 1]) == 1


@rule
def shuffle(lane: Record, order: np.ndarray, first: int, last: int) -> None:
    """Write first .. last - 1 in random order into the same places of ``order`` [E]."""
    for k in range(first, last):
        j = first + below(lane, k - first + 1)
        order[k] = order[j]
        order[j] = k


@rule
def move_predators(rules: Rules, board: Board, actions: np.ndarray, b: int) -> None:
    """Move the predators one after the other in random order; an entity blocks a cell for as long as it stands
    there."""
    shuffle(board.lanes[b], board.mark[b], 0, rules.predators)
    cell = board.cell[b]
    for k in range(rules.predators):
        i = board.mark[b, k]
        if board.present[b, i] and actions[b, i] != STAY and actions[b, i] != CATCH:
            x, y = cell[i, 0] + DX[actions[b, i]], cell[i, 1] + DY[actions[b, i]]
            if is_open(rules, board, x, y, b):
                cell[i, 0], cell[i, 1] = x, y


@rule
def catches(board: Board, actions: np.ndarray, i: int, prey: int, b: int) -> bool:
    return board.present[b, i] and actions[b, i] == CATCH and adjacent(board, i, prey, b)


@rule
def try_catch(rules: Rules, board: Board, out: Outputs, actions: np.ndarray, prey: int, b: int) -> bool:
    """Return whether enough neighbours catch ``prey``; it then leaves the grid, as do they if ``catchers_leave``."""
    catchers = 0
    for i in range(rules.predators):
        catchers += catches(board, actions, i, prey, b)
    if catchers >= rules.capture_needs:
        out.reward[b] += rules.capture_reward
        out.events[b, 0] += 1
        board.present[b, prey] = False
        for i in range(rules.predators):
            if rules.catchers_leave and catches(board, actions, i, prey, b):
                board.present[b, i] = False
        return True
    if catchers > 0:
        out.reward[b] -= rules.penalty
        out.events[b, 1] += 1
    return False


@rule
def flee(rules: Rules, board: Board, prey: int, b: int) -> None:
    """Move ``prey`` to a random open cell next to it; it rests with probability ``prey_rest``, or if there is none."""
    lane, cell = board.lanes[b], board.cell[b]
    if rules.prey_rest > 0.0 and uniform(lane) < rules.prey_rest:
        return
    ways = 0
    for d in range(1, CATCH):
        ways += is_open(rules, board, cell[prey, 0] + DX[d], cell[prey, 1] + DY[d], b)
    if ways == 0:
        return
    pick = below(lane, ways)
    for d in range(1, CATCH):
        x, y = cell[prey, 0] + DX[d], cell[prey, 1] + DY[d]
        if is_open(rules, board, x, y, b):
            if pick == 0:
                cell[prey, 0], cell[prey, 1] = x, y
                return
            pick -= 1


@rule
def look_around(rules: Rules, board: Board, row: np.ndarray, i: int, b: int) -> None:
    """Fill ``row`` [2 side²], the window around agent ``i``: for each cell, whether a predator and a prey are there."""
    side = 2 * rules.sight + 1
    for e in range(board.cell.shape[1]):
        dx = board.cell[b, e, 0] - board.cell[b, i, 0] + rules.sight
        dy = board.cell[b, e, 1] - board.cell[b, i, 1] + rules.sight
        if board.present[b, e] and dx >= 0 and dy >= 0 and dx < side and dy < side:
            row[2 * (dy * side + dx) + (e >= rules.predators)] = 1.0


@rule
def observe_lane(rules: Rules, board: Board, out: Outputs, b: int) -> None:
    """Write observations, masks and the state; those that are gone see zeros, appear as zeros, and may only stay."""
    cell, present, state = board.cell[b], board.present[b], out.state[b]
    E = cell.shape[0]
    for e in range(E):
        state[3 * e] = cell[e, 0] / (rules.size - 1) if present[e] else 0.0
        state[3 * e + 1] = cell[e, 1] / (rules.size - 1) if present[e] else 0.0
        state[3 * e + 2] = present[e]
    state[3 * E] = board.lanes[b].t / rules.limit
    for i in range(rules.predators):
        out.alive[b, i] = present[i]
        out.obs[b, i] = 0.0
        out.avail[b, i] = False
        out.avail[b, i, STAY] = True
        if not present[i]:
            continue
        look_around(rules, board, out.obs[b, i], i, b)
        for d in range(1, CATCH):
            x, y = cell[i, 0] + DX[d], cell[i, 1] + DY[d]
            out.avail[b, i, d] = x >= 0 and y >= 0 and x < rules.size and y < rules.size
        for e in range(rules.predators, E):
            if present[e] and adjacent(board, i, e, b):
                out.avail[b, i, CATCH] = True


@rule
def reset_lane(rules: Rules, board: Board, out: Outputs, seed: np.uint64, reseed: bool, b: int) -> None:
    """Put everybody on a cell of its own, uniformly at random."""
    begin_lane(board, out, seed, reseed, b)
    lane, cell = board.lanes[b], board.cell[b]
    board.present[b] = False
    for e in range(cell.shape[0]):
        x, y = below(lane, rules.size), below(lane, rules.size)
        while entity_at(board, x, y, b) >= 0:
            x, y = below(lane, rules.size), below(lane, rules.size)
        cell[e, 0], cell[e, 1] = x, y
        board.present[b, e] = True
    board.mark[b] = 0
    observe_lane(rules, board, out, b)


@rule
def count_present(board: Board, first: int, last: int, b: int) -> int:
    present = 0
    for e in range(first, last):
        present += board.present[b, e]
    return present


@rule
def most_captures(rules: Rules, prey: int) -> int:
    """Return how many prey can be caught at most."""
    return min(prey, rules.predators // rules.capture_needs) if rules.catchers_leave else prey


@rule
def step_lane(rules: Rules, board: Board, out: Outputs, actions: np.ndarray, b: int) -> None:
    lane = board.lanes[b]
    out.events[b] = 0
    if rests(lane, out, b):
        return
    move_predators(rules, board, actions, b)
    E = board.cell.shape[1]
    shuffle(lane, board.mark[b], rules.predators, E)
    for k in range(rules.predators, E):
        prey = board.mark[b, k]
        if board.present[b, prey] and not try_catch(rules, board, out, actions, prey, b):
            flee(rules, board, prey, b)
    prey_left = count_present(board, rules.predators, E, b)
    prey = E - rules.predators
    over = prey_left == 0 or count_present(board, 0, rules.predators, b) == 0
    won = out.events[b, 0] > 0 and prey - prey_left == most_captures(rules, prey)
    end_step(lane, out, over, won, rules.limit, b)
    observe_lane(rules, board, out, b)


KERNELS = lane_kernels(reset_lane, step_lane, observe_lane)


class StagHunt(GridGame):
    """``n_predators`` agents hunt ``n_prey`` prey, which move at random, on a ``size`` x ``size`` grid.

    No two share a cell. Each step the predators move one after the other in random order, then the prey do. A prey is
    gone and pays ``capture_reward`` when at least ``capture_needs`` predators next to it play catch; the catchers are
    gone too if ``catchers_leave``. Fewer, but at least one, cost the team ``penalty`` (per prey and step). A prey that
    is not caught moves to a random free cell next to it, or rests with probability ``prey_rest``. The episode ends when
    all prey or all predators are gone, and the clock truncates; ``won`` in the step in which the last possible prey is
    caught.

    Moves into the wall are unavailable; catching is available only next to a prey. Observation [2 (2 sight + 1)²]: a
    window around the agent, for each cell whether a predator and whether a prey is there; zeros once gone. State: x, y
    and presence of each predator and each prey, and time. ``Step.info``: "captures", "failed_catches". Raises
    ConfigError.
    """

    def __init__(
        self, size: int, n_predators: int, n_prey: int, capture_needs: int, capture_reward: float, penalty: float,
        catchers_leave: bool, prey_rest: float, sight: int, episode_limit: int, *, n_envs: int, seed: int = 0,
    ) -> None:  # fmt: skip
        require_at_least("", 2, size=size)
        require_at_least("", 1, n_predators=n_predators, n_prey=n_prey, sight=sight, episode_limit=episode_limit)
        require_at_least("", 0, penalty=penalty)
        require_share("", prey_rest=prey_rest)
        most = min(n_predators, 4)  # neighbours of a cell
        require_within("", 1, most, note=f"with {n_predators} predators", capture_needs=capture_needs)
        if n_predators + n_prey >= size * size:
            raise ConfigError(f"size is {size}: no room for {n_predators} predators and {n_prey} prey to move in")
        rules = Rules(
            size, n_predators, episode_limit, capture_needs, sight, bool(catchers_leave), float(capture_reward),
            float(penalty), float(prey_rest),
        )  # fmt: skip
        spec = build_spec(n_predators, n_prey, sight, episode_limit)
        super().__init__(spec, rules, KERNELS, size, n_predators + n_prey, EVENTS, n_envs, seed)


def build_spec(n: int, n_prey: int, sight: int, episode_limit: int) -> EnvSpec:
    """Return the spec. ``about``: the middle of the window is the agent itself; a predator elsewhere may be any other
    agent."""
    offsets = range(-sight, sight + 1)
    obs_names = tuple(f"{who} at {dx:+d},{dy:+d}" for dy in offsets for dx in offsets for who in ("predator", "prey"))
    O = len(obs_names)  # noqa: E741
    middle = O // 2 - 1
    about = torch.zeros(n, n, O, dtype=torch.bool)
    about[:, :, 0::2] = ~torch.eye(n, dtype=torch.bool)[..., None]
    about[:, :, middle] = torch.eye(n, dtype=torch.bool)
    entities = (*(f"predator {i}" for i in range(n)), *(f"prey {k}" for k in range(n_prey)))
    state_names = (*(f"{name} {what}" for name in entities for what in ("x", "y", "present")), "time")
    return EnvSpec(
        n, CATCH + 1, O, len(state_names), episode_limit, torch.zeros(O), torch.ones(O),
        noop_action=STAY, idle_action=STAY, about=about, obs_names=obs_names, state_names=state_names,
        action_names=(*MOVES, "catch"), info_names=EVENTS,
    )  # fmt: skip
