"""Any PettingZoo ``ParallelEnv`` with discrete actions as lanes of the process pool.

Agents that leave are dead: they observe zeros and have one available action, which is not passed on. An ending is
``truncated`` only if the clock cut somebody off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from envs.adapters.spaces import Pooling, TeamSpaces, find_won, load_factory, pool_rewards
from envs.adapters.worker import GameSpec, Outcome, View

if TYPE_CHECKING:
    from envs.adapters.pool import Pool


def PettingZoo(
    env: str | Callable[..., Any],
    kwargs: dict[str, Any],
    reward: Pooling,
    state: Literal["env", "concat"],
    episode_limit: int,
    noop_action: int | None,
    rebuild: bool,
    workers: int | None,
    *,
    n_envs: int,
    seed: int = 0,
) -> Pool:
    """``n_envs`` lanes of the ParallelEnv that ``env`` builds with ``kwargs``.

    ``env`` is a picklable callable, or "package.module" holding ``parallel_env``, or "package.module:function".
    ``reward`` pools the agents' rewards (``mean`` over the full team). ``state`` is the game's own ``state()`` or the
    padded observations side by side. Episodes are truncated at ``episode_limit``; give the game a later limit of its
    own if it reports time-outs as terminations. ``noop_action`` is the game's action for doing nothing, if it has one.
    ``rebuild`` builds the game anew for every episode, for games whose ``reset(seed)`` does not forget the one before.
    Raises ConfigError for a missing package or a game that does not fit.
    """
    from envs.adapters.pool import (  # not above: workers import this module and must not pay for torch
        Pool,
        require_package,
    )

    if isinstance(env, str):
        require_package(env)
    make = _MakeParallel(env, dict(kwargs), reward, state, episode_limit, noop_action)
    return Pool(make, n_envs=n_envs, seed=seed, workers=workers, rebuild=rebuild)


@dataclass
class _MakeParallel:
    """Picklable constructor call of ``ParallelGame``."""

    env: str | Callable[..., Any]
    kwargs: dict[str, Any]
    reward: Pooling
    state: str
    episode_limit: int
    noop_action: int | None

    def __call__(self) -> ParallelGame:
        factory = load_factory(self.env, "parallel_env") if isinstance(self.env, str) else self.env
        return ParallelGame(factory(**self.kwargs), self.reward, self.state, self.episode_limit, self.noop_action)


class ParallelGame:
    """One lane; implements ``envs.adapters.worker.Game``."""

    def __init__(self, env: Any, reward: Pooling, state: str, episode_limit: int, noop_action: int | None) -> None:
        if state not in ("env", "concat"):
            raise ValueError(f"state must be 'env' or 'concat', got '{state}'")
        pool_rewards([0.0], reward, 1)  # fail on an unknown name before the first step
        self.env, self.reward, self.own_state = env, reward, state == "env"
        self.names = list(env.possible_agents)
        self.team = TeamSpaces(
            [env.action_space(name) for name in self.names], [env.observation_space(name) for name in self.names]
        )
        team = self.team
        if self.own_state:
            env.reset(seed=0)
            state_dim = int(np.size(env.state()))
        else:
            state_dim = team.n_agents * team.obs_dim
        self.idle = noop_action or 0  # the one available action of an absent agent
        self.spec = GameSpec(
            team.n_agents, team.n_actions, team.obs_dim, state_dim, episode_limit, team.low, team.high, noop_action,
            idle_action=noop_action,
        )  # fmt: skip

    def reset(self, seed: int, view: View) -> None:
        observations, infos = self.env.reset(seed=seed)
        self._write(view, observations, infos, set(self.env.agents))

    def step(self, actions: np.ndarray, view: View) -> Outcome:
        present = list(self.env.agents)
        joint = {name: self.team.native(i, actions[i]) for i, name in enumerate(self.names) if name in present}
        observations, rewards, terminations, truncations, infos = self.env.step(joint)
        ended = not self.env.agents
        cut = {name for name in present if truncations.get(name) and not terminations.get(name)}
        # Agents that the clock cut off at the very end are still present in the observation to bootstrap from.
        self._write(view, observations, infos, cut if ended else set(self.env.agents))
        reward = pool_rewards([rewards[name] for name in present if name in rewards], self.reward, self.team.n_agents)
        won = any(find_won(info) for info in infos.values())
        return Outcome(reward, ended and not cut, ended and bool(cut), won)

    def render(self) -> np.ndarray | None:
        return self.env.render() if getattr(self.env, "render_mode", None) == "rgb_array" else None

    def close(self) -> None:
        self.env.close()

    def _write(self, view: View, observations: dict[str, Any], infos: dict[str, Any], alive: set[str]) -> None:
        for i, name in enumerate(self.names):
            view.alive[i] = name in alive
            if name in alive:
                mask = self.team.write(i, observations[name], view.obs[i])
                mask = infos.get(name, {}).get("action_mask", mask)
                self.team.allow(i, mask, view.avail[i])
            else:
                view.obs[i], view.avail[i] = 0.0, False
                view.avail[i, self.idle] = True
        view.state[:] = np.ravel(self.env.state()) if self.own_state else view.obs.ravel()
