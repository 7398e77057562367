"""Helpers for the tests of the battle: hand-placed units, simple scripts, whole episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from envs.kernels.lanes import random_actions
from envs.skirmish import Skirmish, UnitView
from envs.skirmish.units import TYPE_ID, UNIT_TYPES
from marl.core.types import Obs

STOP, NORTH, SOUTH, EAST, WEST, FIRST_TARGET = 1, 2, 3, 4, 5, 6


def view(owner: str, kind: str, x: float, y: float, **values: float) -> UnitView:
    """Return a unit in full health unless ``values`` say otherwise."""
    stock = UNIT_TYPES[TYPE_ID[kind]]
    return UnitView(owner, kind, x, y, **{"health": stock.health, "shield": stock.shield, **values})


def ally(kind: str, x: float, y: float, **values: float) -> UnitView:
    return view("ally", kind, x, y, **values)


def enemy(kind: str, x: float, y: float, **values: float) -> UnitView:
    return view("enemy", kind, x, y, **values)


def pacify(env: Skirmish) -> None:
    """Keep the enemy from moving and shooting."""
    env._lanes.units["scripted"] = 0
    env._lanes.units["order"] = 0


def point_east(env: Skirmish) -> None:
    """Turn all bodies east."""
    env._lanes.units["heading_x"], env._lanes.units["heading_y"] = 1.0, 0.0


def swept(first: int, second: int) -> list[float]:
    """Return the health of two zerglings at the ends of a Colossus's line, on either side of a zealot, after it was
    given these two orders; it is ready to fire in the fourth loop of the first."""
    env = Skirmish("2c_vs_64zg", 1)
    row = [enemy("zergling", 20, 16 + 1.7 * k) for k in (1, -1)]
    obs = env.place([ally("colossus", 15, 16, cooldown=3), enemy("zealot", 20, 16), *row])
    pacify(env)
    obs = env.step(act(env, obs, [first, STOP])).next
    env.step(act(env, obs, [second, STOP]))
    return [unit.health for unit in env.units(0)[3:5]]


def act(env: Skirmish, obs: Obs, wanted: Sequence[int], lane: int = 0) -> Tensor:
    """Return long [B, n]: the ``wanted`` actions in ``lane``, no-op for its dead; any available action elsewhere."""
    actions = obs.avail.int().argmax(2)
    alive = obs.avail[lane, :, 1:].any(1)
    actions[lane] = torch.where(alive, torch.tensor(wanted), 0)
    return actions


def attack_nearest(env: Skirmish, obs: Obs) -> Tensor:
    """Return long [B, n]: attack the nearest enemy within reach, else take a step east."""
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
    """Draw available actions, long [B, n]; ``counter`` uint64 [1] is the random state."""
    actions = np.zeros((env.n_envs, env.spec.n_agents), np.int64)
    random_actions(env._out.avail, counter, actions)
    return torch.from_numpy(actions)


def win_rate(env: Skirmish, script: Callable[[Skirmish, Obs], Tensor] | None = None) -> float:
    """Play one episode per lane under ``script`` (None: random actions) and return the share of lanes won."""
    obs, counter = env.reset(), np.zeros(1, np.uint64)
    won = torch.zeros(env.n_envs, dtype=torch.bool)
    for _ in range(env.spec.episode_limit):
        step = env.step(script(env, obs) if script else uniform_actions(env, counter))
        obs, won = step.next, won | step.info["won"]
    return won.float().mean().item()


def focus(env: Skirmish, obs: Obs) -> Tensor:
    """Return long [B, n]: all agents attack the first living enemy, walking east until it is in reach."""
    reach = obs.avail[:, :, FIRST_TARGET:]
    first = torch.from_numpy(env._lanes.units["health"][:, env.spec.n_agents :] > 0).int().argmax(1)[:, None, None]
    chosen = reach.gather(2, first.expand(-1, reach.shape[1], 1)).squeeze(2)
    return torch.where(chosen, first.squeeze(2) + FIRST_TARGET, attack_nearest(env, obs))


def spread(env: Skirmish, obs: Obs) -> Tensor:
    """Return long [B, n]: agent i attacks the i-th living enemy (cyclically) as soon as it is in reach."""
    n = env.spec.n_agents
    alive = env._lanes.units["health"][:, n:] > 0
    living = np.argsort(~alive, axis=1, kind="stable")  # the living first
    turn = np.arange(n) % np.maximum(alive.sum(1, keepdims=True), 1)  # [B, n]
    own = torch.from_numpy(np.take_along_axis(living, turn, 1)) + FIRST_TARGET
    chosen = obs.avail.gather(2, own[..., None]).squeeze(2)
    return torch.where(chosen, own, attack_nearest(env, obs))


def kite(env: Skirmish, obs: Obs, ready: float = 2.5, cooling: float = 7.5) -> Tensor:
    """Return long [B, n]: flee from enemies nearer than ``ready``, or than ``cooling`` while the weapon cools down."""
    units, n = env._lanes.units, env.spec.n_agents
    x, y = units["x"], units["y"]
    alive = units["health"][:, None, n:] > 0
    flee = np.full((env.n_envs, n, 4), -1e9)
    for k, (dx, dy) in enumerate(((0, 1), (0, -1), (1, 0), (-1, 0))):
        at_x, at_y = x[:, :n] + 1.5 * dx, y[:, :n] + 1.5 * dy  # a stalker's step
        gap = np.hypot(at_x[:, :, None] - x[:, None, n:], at_y[:, :, None] - y[:, None, n:])
        from_centre = np.hypot(at_x - 16, at_y - 16)  # the corners are traps
        flee[:, :, k] = -np.where(alive, 1 / gap**2, 0).sum(2) - 0.01 * np.maximum(from_centre - 8, 0) ** 2
    flee = np.where(obs.avail[:, :, 2:6].numpy(), flee, -1e9).argmax(2) + NORTH
    gap = np.hypot(x[:, :n, None] - x[:, None, n:], y[:, :n, None] - y[:, None, n:])
    limit = np.where(units["cooldown"][:, :n] > 2, cooling, ready)
    away = torch.from_numpy((np.where(alive, gap, 1e9).min(2) < limit) & (units["health"][:, :n] > 0))
    return torch.where(away, torch.from_numpy(flee), attack_nearest(env, obs))


def stand(env: Skirmish, obs: Obs) -> Tensor:
    """Return long [B, n]: attack the nearest enemy in reach and never move."""
    actions = attack_nearest(env, obs)
    return torch.where((actions >= FIRST_TARGET) | (actions == 0), actions, STOP)
