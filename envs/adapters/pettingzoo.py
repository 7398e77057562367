"""Any PettingZoo ``ParallelEnv`` with discrete actions as lanes of the process pool.

Agents that leave are dead: they observe zeros and have one available action, which is not passed on. An episode ends
``truncated`` only if the clock cut somebody off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from envs.adapters.returned import by_agent, find_mask, flag, number, shown, unpack
from envs.adapters.spaces import Pooling, TeamSpaces, find_won, load_factory, pool_rewards
from envs.adapters.worker import GameSpec, Outcome, View

PARTS = ("observations", "rewards", "terminations", "truncations", "infos")
Known = tuple[int, int | None]  # the size of the state, and the idle action

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
    timeout: float | None = 300.0,
    *,
    n_envs: int,
    seed: int = 0,
) -> Pool:
    """Make ``n_envs`` lanes of the ParallelEnv that ``env`` builds with ``kwargs``.

    ``env`` is a picklable callable, or "package.module" holding ``parallel_env``, or "package.module:function".
    ``reward`` pools the agents' rewards (``mean`` over the full team). ``state`` is the game's own ``state()`` or the
    padded observations concatenated. Episodes are truncated at ``episode_limit``; give the game a later limit of its
    own if it reports time-outs as terminations. ``noop_action`` is the game's action for doing nothing, if it has one.
    An episode is won if any agent's info says so, in one flag ("won", "battle_won" or "is_success").
    ``rebuild`` rebuilds the game for every episode, for games whose ``reset(seed)`` keeps traces of the previous one.
    A worker process that is silent for ``timeout`` seconds counts as dead; None waits for ever. Raises ConfigError for
    a missing package or a game that does not fit.
    """
    from envs.adapters.pool import (  # not above: workers import this module and must not pay for torch
        Pool,
        require_package,
    )
    from marl.core.checks import require_at_least

    require_at_least("", 1, episode_limit=episode_limit)
    if isinstance(env, str):
        require_package(env.partition(":")[0])
    make = _MakeParallel(env, dict(kwargs), reward, state, episode_limit, noop_action)
    return Pool(make, n_envs=n_envs, seed=seed, workers=workers, rebuild=rebuild, timeout=timeout)


@dataclass
class _MakeParallel:
    """Picklable constructor call of ``ParallelGame``."""

    env: str | Callable[..., Any]
    kwargs: dict[str, Any]
    reward: Pooling
    state: str
    episode_limit: int
    noop_action: int | None
    known: Known | None = None  # from the first game, so that later ones need no extra reset, which may leave traces

    def __call__(self) -> ParallelGame:
        factory = load_factory(self.env, "parallel_env") if isinstance(self.env, str) else self.env
        env = factory(**self.kwargs)
        game = ParallelGame(env, self.reward, self.state, self.episode_limit, self.noop_action, self.known)
        self.known = game.known
        return game


class ParallelGame:
    """One lane; implements ``envs.adapters.worker.Game``. ``known``: the size of the state and the idle action; None
    resets the game to find out."""

    def __init__(
        self, env: Any, reward: Pooling, state: str, episode_limit: int, noop_action: int | None,
        known: Known | None = None,
    ) -> None:  # fmt: skip
        if state not in ("env", "concat"):
            raise ValueError(f"state must be 'env' or 'concat', got '{state}'")
        pool_rewards([0.0], reward, 1)  # fail on an unknown name before the first step
        self.env, self.reward, self.own_state = env, reward, state == "env"
        if not hasattr(env, "possible_agents") or hasattr(env, "agent_iter"):
            kind = "an AECEnv, whose agents act in turns" if hasattr(env, "agent_iter") else f"a {type(env).__name__}"
            raise ValueError(f"this is {kind}; give a ParallelEnv (pettingzoo.utils.aec_to_parallel makes one)")
        self.names = list(env.possible_agents)
        self.team = TeamSpaces(
            [env.action_space(name) for name in self.names], [env.observation_space(name) for name in self.names]
        )
        team = self.team
        team.require_noop(noop_action)
        self.idle = noop_action or 0  # the one available action of an absent agent
        self.known = self._look(noop_action) if known is None else known
        self.state_dim, idle_action = self.known
        self.spec = GameSpec(
            team.n_agents, team.n_actions, team.obs_dim, self.state_dim, episode_limit, team.low, team.high,
            noop_action, idle_action=idle_action,
        )  # fmt: skip

    def _look(self, noop: int | None) -> Known:
        """Reset the game; return the size of its state, and ``noop`` if living agents may play it."""
        observations, infos = self._reset(0)
        size = int(np.size(self.env.state())) if self.own_state else self.team.n_agents * self.team.obs_dim
        if size == 0:
            raise ValueError("the state has no features; choose env.state=concat")
        return size, noop if self._may_idle(observations, infos, noop) else None

    def _may_idle(self, observations: dict[str, Any], infos: dict[str, Any], noop: int | None) -> bool:
        """Return whether living agents may play ``noop`` at the start of an episode; in games like SMAC only dead ones
        may."""
        obs = np.zeros(self.team.obs_dim, np.float32)
        avail = np.zeros(self.team.n_actions, bool)
        for i, name in enumerate(self.names):
            if noop is not None and name in self.env.agents:
                self._write_agent(i, observations, infos, obs, avail)
                if not avail[noop]:
                    return False
        return noop is not None

    def _reset(self, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        observations, infos = unpack(self.env.reset(seed=seed), ("observations", "infos"), "reset")
        present = list(self.env.agents)
        return by_agent(observations, "observations", present), by_agent(infos, "infos", present, whole=False)

    def reset(self, seed: int, view: View) -> None:
        observations, infos = self._reset(seed)
        self._write(view, observations, infos, set(self.env.agents))

    def step(self, actions: np.ndarray, view: View) -> Outcome:
        present = list(self.env.agents)
        joint = {name: self.team.native(i, actions[i]) for i, name in enumerate(self.names) if name in present}
        observations, rewards, terminations, truncations, infos = unpack(self.env.step(joint), PARTS, "step")
        rewards = by_agent(rewards, "rewards", present)
        by_agent(infos, "infos", present, whole=False)
        over, late = (
            {name for name in present if flag(by_agent(flags, part, present)[name], f"{part} of {name}")}
            for part, flags in (("terminations", terminations), ("truncations", truncations))
        )
        alive = set(self.env.agents) - over - late  # some games keep listing agents whose flags say that they are done
        ended, cut = not alive, late - over
        # Agents that the clock cut off at the very end are still present in the observation to bootstrap from.
        self._write(view, by_agent(observations, "observations", sorted(cut if ended else alive)), infos,
                    cut if ended else alive)  # fmt: skip
        earned = [number(rewards[name], f"the reward of {name}") for name in present]
        reward = pool_rewards(earned, self.reward, self.team.n_agents)
        won = any([find_won(info, f"the info of {name}") for name, info in infos.items() if isinstance(info, dict)])
        return Outcome(reward, ended and not cut, ended and bool(cut), won)

    def render(self) -> np.ndarray | None:
        return self.env.render() if getattr(self.env, "render_mode", None) == "rgb_array" else None

    def close(self) -> None:
        self.env.close()

    def _write(self, view: View, observations: dict[str, Any], infos: dict[str, Any], alive: set[str]) -> None:
        for i, name in enumerate(self.names):
            view.alive[i] = name in alive
            if name in alive:
                self._write_agent(i, observations, infos, view.obs[i], view.avail[i])
            else:
                view.obs[i], view.avail[i] = 0.0, False
                view.avail[i, self.idle] = True
        view.state[:] = self._own_state() if self.own_state else view.obs.ravel()

    def _write_agent(
        self, i: int, observations: dict[str, Any], infos: dict[str, Any], obs: np.ndarray, avail: np.ndarray
    ) -> None:
        """Write the observation, f32 [O], and the available actions, bool [A], of agent ``i``."""
        name = self.names[i]
        inside = self.team.write(i, observations[name], obs)
        info = {} if infos.get(name) is None else infos[name]
        if not isinstance(info, dict):
            raise ValueError(f"the info of {name} must be a mapping, got {shown(info)}")
        beside = find_mask(info)
        self.team.allow(i, inside if beside is None else beside, avail)

    def _own_state(self) -> np.ndarray:
        state = np.ravel(np.asarray(self.env.state(), np.float32))
        if state.size != self.state_dim or not np.isfinite(state).all():
            raise ValueError(f"state() must give {self.state_dim} finite numbers, got {shown(self.env.state())}")
        return state
