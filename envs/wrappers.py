"""``StateBlock``: the same game with a reward penalty where agents meet features that they should avoid.

A virtual environment of SBC (Kang, Lee, Jo, Han 2026): nothing but the reward differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marl.core.checks import require_at_least
from marl.core.protocols import VectorEnv
from marl.core.types import ConfigError, Obs, Step

INFO = ("unblocked_reward", "blocked")


class StateBlock:
    """``env`` with a reward penalty: each step costs ``penalty`` times the share of ``agents`` (indices; None:
    all) that met a blocked feature. Lane b plays in the virtual environment ``sets[b % len(sets)]``, a list of features
    of ``family``; an empty list is the game itself. A feature is blocked only for agents to which it applies.

    ``Step.info`` adds "unblocked_reward" f32 [B], the game's own reward, and "blocked" bool [B, n], which agents met a
    blocked feature. All other attributes are those of the game; if the game can be saved in the middle of episodes,
    so can this wrapper. Raises ConfigError.
    """

    def __init__(
        self, env: Callable[..., VectorEnv], family: str, sets: Sequence[Sequence[int]], agents: Sequence[int] | None,
        penalty: float, *, n_envs: int, seed: int = 0,
    ) -> None:  # fmt: skip
        self.env = env(n_envs=n_envs, seed=seed)
        self.n_envs, self.device, self.resumable = n_envs, self.env.device, self.env.resumable
        inner = self.env.spec
        self.info, mask = inner.family(family).info, inner.family(family).mask
        n, C = mask.shape
        require_at_least("", 0, penalty=penalty)
        who = list(range(n)) if agents is None else list(agents)
        if not who or len(set(who)) < len(who) or not set(who) <= set(range(n)):
            raise ConfigError(f"agents={who} must be different numbers within [0, {n - 1}], or null for all")
        if not sets:
            raise ConfigError("sets must hold at least one list of features (an empty list: nothing is blocked)")
        wrong = [c for one in sets for c in one if not 0 <= c < C or not bool(mask[who, c].any())]
        if wrong:
            there = ", ".join(map(str, mask[who].any(0).nonzero().flatten().tolist()))
            raise ConfigError(f"sets names feature {wrong[0]}; {family} that these agents meet are {there}")
        self.penalty, self.agents = penalty, torch.isin(torch.arange(n), torch.tensor(who))
        chosen = torch.stack([torch.isin(torch.arange(C), torch.tensor(list(one), dtype=torch.long)) for one in sets])
        blocked = chosen[:, None] & mask & self.agents[:, None]  # [sets, n, C]
        self.sets = blocked[torch.arange(n_envs) % len(sets)].to(self.device)  # [B, n, C]
        self.spec = replace(inner, info_names=(*inner.info_names, *INFO))
        self._running = torch.zeros(n_envs, dtype=torch.bool, device=self.device)
        # Methods that only some games have. From Python 3.12 on ``isinstance`` does not find them through __getattr__.
        if hasattr(self.env, "midway_state"):
            self.midway_state, self.load_midway_state = self._midway_state, self._load_midway_state
        if hasattr(self.env, "agent_places"):
            self.agent_places = self.env.agent_places
        if hasattr(self.env, "follow"):
            self.follow = self._follow

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        if mask is None:
            self._running[:] = True
        else:
            self._running |= mask
        return self.env.reset(seed, mask)

    def step(self, actions: Tensor) -> Step:
        step = self.env.step(actions)
        met = step.info[self.info]  # long [B, n]
        hit = self.sets.gather(2, met.clamp(min=0).unsqueeze(2)).squeeze(2) & (met >= 0) & self._running[:, None]
        reward = step.reward - self.penalty * hit[:, self.agents].float().mean(1)
        self._running &= ~(step.terminated | step.truncated)
        added = {"unblocked_reward": step.reward, "blocked": hit}
        return Step(step.next, reward, step.terminated, step.truncated, {**step.info, **added})

    def render(self, lane: int = 0) -> np.ndarray:
        return self.env.render(lane)

    def state_dict(self) -> dict[str, Any]:
        return self.env.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.env.load_state_dict(state)
        self._running[:] = False

    def _midway_state(self) -> dict[str, Any]:
        """Return the state of the unfinished games, and which lanes are still running."""
        game: Any = self.env
        return {"game": game.midway_state(), "running": self._running.clone()}

    def _load_midway_state(self, state: dict[str, Any]) -> Obs:
        """Restore saved games; return what their agents see."""
        game: Any = self.env
        now: Obs = game.load_midway_state(state["game"])
        self._running[:] = state["running"]
        return now

    def _follow(self, training: StateBlock) -> None:
        """Copy the progress of the game that ``training`` wraps."""
        game: Any = self.env
        game.follow(training.env)

    def close(self) -> None:
        self.env.close()

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # looked up before it is set
            raise AttributeError(name)
        return getattr(self.env, name)
