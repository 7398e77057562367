"""A one-step matrix game whose payoffs change during training: the optimum moves away from what was learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from envs.toys.games import MatrixGame, read_payoff
from marl.core.checks import require_at_least
from marl.core.types import ConfigError, Obs, Step


class ShiftingGame(MatrixGame):
    """Pays ``payoff`` for the first ``after`` joint actions that a lane plays and ``shifted`` from then on.

    Nothing in the observations tells the two phases apart. Each lane keeps its own count, which is part of the saved
    state; ``reset(seed=...)`` restarts it. A test environment takes over the training environment's count (``follow``),
    so that tests pay what training pays at that time. ``won``: the payoff was the largest one of the current phase.
    """

    in_hand: ClassVar[tuple[str, ...]] = (*MatrixGame.in_hand, "played")

    def __init__(
        self, payoff: str | Sequence[Any], shifted: str | Sequence[Any], after: int, *, n_envs: int, seed: int = 0
    ) -> None:
        super().__init__(payoff, n_envs=n_envs, seed=seed)
        before, later = read_payoff(payoff), read_payoff(shifted)
        if before.shape != later.shape:
            raise ConfigError(f"payoff has shape {list(before.shape)} but shifted has {list(later.shape)}")
        require_at_least("", 0, after=after)
        self.after = after
        self.phases = torch.stack([before.flatten(), later.flatten()])  # [2, A**n]
        self.played = torch.zeros(n_envs, dtype=torch.long)  # joint actions so far in each lane

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        if seed is not None:
            self.played[torch.ones(self.n_envs, dtype=torch.bool) if mask is None else mask] = 0
        return super().reset(seed, mask)

    def step(self, actions: Tensor) -> Step:
        playing, phase = self.running.clone(), (self.played >= self.after).long()
        step = super().step(actions)  # refuses unavailable actions, ends the episode
        joint = (actions * self.strides).sum(1).masked_fill(~playing, 0)
        reward = self.phases[phase, joint] * playing
        won = playing & (reward >= self.phases.amax(1)[phase] - 1e-6)
        self.returns.copy_(reward)
        self.played += playing
        return Step(step.next, reward, step.terminated, step.truncated, {"won": won})

    def follow(self, training: ShiftingGame) -> None:
        """Continue from the count of the training environment's first lane."""
        self.played[:] = training.played[0]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"played": self.played.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.played.copy_(state["played"])
