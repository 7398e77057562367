"""Small helpers for the tests of the battle: hand-placed units, simple scripts, whole episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from envs.skirmish import Skirmish, UnitView
from envs.skirmish.battle import random_actions
from envs.skirmish.units import TYPE_ID, UNIT_TYPES
from marl.types import Obs

STOP, NORTH, SOUTH, EAST, WEST, FIRST_TARGET = 1, 2, 3, 4, 5, 6


def view(owner: str, kind: str, x: float, y: float, **values: float) -> UnitView:
    """A unit in full health unless ``values`` say otherwise."""
    stock = UNIT_TYPES[TYPE_ID[kind]]
    return UnitView(owner, kind, x, y, **{"health": stock.health, "shield": stock.shield, **values})


def ally(kind: str, x: float, y: float, **values: float) -> UnitView:
    return view("ally", kind, x, y, **values)


def enemy(kind: str, x: float, y: float, **values: float) -> UnitView:
    return view("enemy", kind, x, y, **values)


def pacify(env: Skirmish) -> None:
    """The enemy neither moves nor shoots."""
    env._lanes.units["scripted"] = 0
    env._lanes.units["order"] = 0


def act(env: Skirmish, obs: Obs, wanted: Sequence[int], lane: int = 0) -> Tensor:
    """Long [B, n]: the ``wanted`` actions in ``lane``, no-op for its dead; any available action elsewhere."""
    actions = obs.avail.int().argmax(2)
    alive = obs.avail[lane, :, 1:].any(1)
    actions[lane] = torch.where(alive, torch.tensor(wanted), 0)
    return actions


def attack_nearest(env: Skirmish, obs: Obs) -> Tensor:
    """Long [B, n]: the nearest enemy within reach, else one step east."""
    units = env._lanes.units
    n = env.spec.n_agents
    gap = np.hypot(
        units["x"][:, :n, None] - units["x"][:, None, n:], units["y"][:, :n, None] - units["y"][:, None, n:]
    )  # [B, n, enemies]
    reach = obs.avail[:, :, FIRST_TARGET:]
    near = torch.from_numpy(gap).masked_fill(~reach, 1e9).argmin(2) + FIRST_TARGET
    walk = torch.where(obs.avail[:, :, EAST], EAST, obs.avail.int().argmax(2))
    return torch.where(reach.any(2), near, walk)


def uniform_actions(env: Skirmish, counter: np.ndarray) -> Tensor:
    """Long [B, n]: any available action; ``counter`` uint64 [1] is the random state."""
    actions = np.zeros((env.n_envs, env.spec.n_agents), np.int64)
    random_actions(env._outputs.avail, counter, actions)
    return torch.from_numpy(actions)


def win_rate(env: Skirmish, script: str) -> float:
    """Share of lanes won in one episode each, by ``random`` or ``nearest`` agents."""
    obs, counter = env.reset(), np.zeros(1, np.uint64)
    won = torch.zeros(env.n_envs, dtype=torch.bool)
    for _ in range(env.spec.episode_limit):
        step = env.step(uniform_actions(env, counter) if script == "random" else attack_nearest(env, obs))
        obs, won = step.next, won | step.info["won"]
    return won.float().mean().item()
