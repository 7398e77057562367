"""The control for Wolfpack: the same bursts and the same budget, but one agent per attacked step.

Whatever Wolfpack achieves beyond this is due to the pack. The timing is Wolfpack's random start (Lee et al. 2025,
arXiv 2502.02844): an idle lane starts with a fixed probability, and a fixed number of steps follows an effective start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from attacks.base import ActionAttack, View, as_scoring, pick
from marl.core.checks import require_at_least, require_share
from marl.core.protocols import Policy
from marl.core.rolling import SINGLE, Harm
from marl.core.types import EnvSpec
from marl.learn.learner import best_available


class SingleAgent(ActionAttack):
    """An attack that in every attacked step makes one random living agent take the available action it values least.

    An idle lane starts with probability ``start_p``; if the hit changes the action, ``duration`` more steps follow.
    """

    in_hand = ("budget.spent", "left")

    def __init__(
        self, spec: EnvSpec, device: torch.device | str, *, start_p: float, duration: int, **budget: Any
    ) -> None:
        super().__init__(spec, device, **budget)
        require_share("attack", start_p=start_p)
        require_at_least("attack", 0, duration=duration)
        self.start_p, self.duration = start_p, duration

    def compiled(self) -> Harm:
        return Harm(SINGLE, p=float(self.start_p), number=self.duration, **self.budget.compiled())

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        self.values = as_scoring(victim, "single").q_values
        self.left = torch.zeros(n_envs, dtype=torch.long, device=self.device)  # [B] remaining steps of the burst

    @torch.no_grad()
    def choose(self, view: View, intended: Tensor) -> tuple[Tensor, Tensor]:
        starts, who = self.uniform() < self.start_p, pick(self.uniform(), view.obs.alive)  # [B]
        worst = best_available(-self.values(view.obs.obs, view.carry), view.obs.avail)  # [B, n]
        goes_on = self.left > 0
        one = torch.arange(self.spec.n_agents, device=self.device) == who[:, None]  # [B, n]
        began = starts & ~goes_on & view.active & (one & (worst != intended)).any(-1)
        self.left = torch.where(began, self.duration, (self.left - 1).clamp(min=0))
        return one & (starts | goes_on)[:, None], worst
