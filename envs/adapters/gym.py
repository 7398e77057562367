"""Any multi-agent Gymnasium environment as lanes of the process pool: one action and one observation per agent.

Actions are ``Tuple(Discrete, ...)`` or ``MultiDiscrete``; observations a ``Tuple`` or a ``Box`` whose first axis is
the agents. Rewards may be one number or one per agent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import Env, make, spaces

from envs.adapters.returned import find_mask, flag, number, shown, unpack
from envs.adapters.spaces import Pooling, TeamSpaces, find_won, load_factory, pool_rewards
from envs.adapters.worker import GameSpec, Outcome, View

PARTS = ("observations", "reward", "terminated", "truncated", "info")

if TYPE_CHECKING:
    from envs.adapters.pool import Pool


def Gym(
    env: str | Callable[..., Any],
    kwargs: dict[str, Any],
    reward: Pooling,
    episode_limit: int,
    noop_action: int | None,
    rebuild: bool,
    workers: int | None,
    timeout: float | None = 300.0,
    *,
    n_envs: int,
    seed: int = 0,
) -> Pool:
    """Make ``n_envs`` lanes of the Gymnasium environment that ``env`` builds with ``kwargs``.

    ``env`` is a registered name such as "package:Name-v3" (the package is imported first), "package.module:function",
    or a picklable callable. ``reward`` pools per-agent rewards. Gymnasium's ``truncated`` is kept; episodes are also
    truncated at ``episode_limit``. If a game reports time-outs as terminations, give it a later limit of its own (in
    its class: for a registered name, ``max_episode_steps`` goes to Gymnasium's wrapper). The state is the padded
    observations concatenated. ``info["action_mask"]``, one row per agent, masks actions; ``info["won"]`` (or
    "battle_won", "is_success"), one flag for the team, says that the episode is won. ``noop_action`` is what
    finished lanes play, and the idle action of living agents if all of them may play it at the start of an episode.
    ``rebuild`` rebuilds the game for every episode, for games whose ``reset(seed)`` keeps traces of the previous one. A
    worker process that is silent for ``timeout`` seconds counts as dead; None waits for ever. Raises ConfigError for a
    missing package or a game that does not fit.
    """
    from envs.adapters.pool import (  # not above: workers import this module and must not pay for torch
        Pool,
        require_gymnasium,
        require_package,
    )
    from marl.core.checks import require_at_least

    require_at_least("", 1, episode_limit=episode_limit)
    if isinstance(env, str) and ":" in env:
        require_gymnasium(env)
        require_package(env.split(":")[0])
    call = _MakeGym(env, dict(kwargs), reward, episode_limit, noop_action)
    return Pool(call, n_envs=n_envs, seed=seed, workers=workers, rebuild=rebuild, timeout=timeout)


@dataclass
class _MakeGym:
    """Picklable constructor call of ``GymGame``."""

    env: str | Callable[..., Any]
    kwargs: dict[str, Any]
    reward: Pooling
    episode_limit: int
    noop_action: int | None
    idle: bool | None = None  # from the first game, so that later ones need no extra reset, which may leave traces

    def __call__(self) -> GymGame:
        if not isinstance(self.env, str):
            env = self.env(**self.kwargs)
        elif re.search(r"-v\d+$", self.env):
            # The checker would complain about one reward per agent at every step.
            env = make(self.env, disable_env_checker=True, **self.kwargs)
        else:
            env = load_factory(self.env, "make")(**self.kwargs)
        game = GymGame(env, self.reward, self.episode_limit, self.noop_action, self.idle)
        self.idle = game.idle
        return game


def per_agent(space: spaces.Space[Any]) -> list[spaces.Space[Any]]:
    """Split a joint space into one space per agent; raise ValueError if it is not joint."""
    if isinstance(space, spaces.Tuple):
        return list(space.spaces)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        starts = np.broadcast_to(space.start, space.nvec.shape)
        return [spaces.Discrete(int(n), start=int(start)) for n, start in zip(space.nvec, starts, strict=True)]
    if isinstance(space, spaces.Box) and len(space.shape) > 1:
        return [spaces.Box(low, high, dtype=np.float32) for low, high in zip(space.low, space.high, strict=True)]
    raise ValueError(f"expected one space per agent (Tuple, MultiDiscrete, Box [agents, ...]), got {space}")


class GymGame:
    """One lane; implements ``envs.adapters.worker.Game``. ``idle``: whether all agents may play ``noop_action``; None
    resets the game to find out."""

    def __init__(
        self, env: Env[Any, Any], reward: Pooling, episode_limit: int, noop_action: int | None, idle: bool | None = None
    ) -> None:
        pool_rewards([0.0], reward, 1)  # fail on an unknown name before the first step
        self.env, self.reward = env, reward
        self.team = team = TeamSpaces(per_agent(env.action_space), per_agent(env.observation_space))
        team.require_noop(noop_action)
        self.idle = self._may_idle(noop_action) if idle is None else idle
        self.spec = GameSpec(
            team.n_agents, team.n_actions, team.obs_dim, team.n_agents * team.obs_dim, episode_limit,
            team.low, team.high, noop_action, idle_action=noop_action if self.idle else None,
        )  # fmt: skip

    def _may_idle(self, noop: int | None) -> bool:
        """Return whether all agents have ``noop`` and may play it at the start of an episode."""
        if noop is None:
            return False
        n, width, actions = self.team.n_agents, self.team.obs_dim, self.team.n_actions
        view = View(np.zeros((n, width), np.float32), np.zeros(n * width, np.float32), np.zeros((n, actions), bool),
                    np.zeros(n, bool))  # fmt: skip
        self.reset(0, view)
        return bool(view.avail[:, noop].all())

    def reset(self, seed: int, view: View) -> None:
        observations, info = unpack(self.env.reset(seed=seed), ("observations", "info"), "reset")
        self._write(view, observations, info)

    def step(self, actions: np.ndarray, view: View) -> Outcome:
        joint = [self.team.native(i, action) for i, action in enumerate(actions)]
        whole = tuple(joint) if isinstance(self.env.action_space, spaces.Tuple) else np.array(joint)
        observations, reward, terminated, truncated, info = unpack(self.env.step(whole), PARTS, "step")
        self._write(view, observations, info)
        over, late = flag(terminated, "terminated"), flag(truncated, "truncated")
        return Outcome(self._team_reward(reward), over, late, find_won(info))

    def _team_reward(self, reward: Any) -> float:
        """Pool one number, or one for each agent. Raise ValueError for anything else."""
        if np.ndim(reward) == 0:
            return number(reward, "the reward")
        if len(reward) != self.team.n_agents:
            raise ValueError(f"rewards must be one number, or {self.team.n_agents}, got {shown(reward)}")
        values = [number(value, f"the reward of agent {i}") for i, value in enumerate(reward)]
        return pool_rewards(values, self.reward, self.team.n_agents)

    def render(self) -> np.ndarray | None:
        picture = self.env.render() if self.env.render_mode == "rgb_array" else None
        return picture if isinstance(picture, np.ndarray) else None

    def close(self) -> None:
        self.env.close()

    def _write(self, view: View, observations: Sequence[Any], info: dict[str, Any]) -> None:
        if not isinstance(info, dict):
            raise ValueError(f"info must be a mapping, got {shown(info)}")
        n = self.team.n_agents
        if not isinstance(observations, tuple | list | np.ndarray) or len(observations) != n:
            raise ValueError(f"observations must be {n}, one for each agent, got {shown(observations)}")
        masks = find_mask(info)
        rows = isinstance(masks, tuple | list) or np.ndim(masks) > 0  # neither a mapping nor a number has any
        if masks is not None and (not rows or len(masks) != n):
            raise ValueError(f"the action mask must have {n} rows, one for each agent, got {shown(masks)}")
        for i in range(self.team.n_agents):
            mask = self.team.write(i, observations[i], view.obs[i])
            self.team.allow(i, mask if masks is None else masks[i], view.avail[i])
        view.alive[:] = True
        view.state[:] = view.obs.ravel()
