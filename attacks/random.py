"""Random actions: the RANDOM attack of Yuan et al. 2023 (ROMANCE, arXiv 2305.05909), also called Rand-Act."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attacks.base import ActionAttack, View, pick
from marl.core.checks import require_share
from marl.core.rolling import RANDOM, Harm
from marl.core.types import EnvSpec


class RandomActions(ActionAttack):
    """An attack in which every agent, independently and with probability ``p`` per step, plays a uniformly random
    available action."""

    in_hand = ("budget.spent",)

    def __init__(self, spec: EnvSpec, device: torch.device | str, *, p: float, **budget: Any) -> None:
        super().__init__(spec, device, **budget)
        require_share("attack", p=p)
        self.p = p

    def compiled(self) -> Harm:
        return Harm(RANDOM, p=float(self.p), **self.budget.compiled())

    def choose(self, view: View, intended: Tensor) -> tuple[Tensor, Tensor]:
        n = self.spec.n_agents
        return self.uniform(n) < self.p, pick(self.uniform(n), view.obs.avail)
