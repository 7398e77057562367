"""An attack that ends before the episode does, to see whether the team recovers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from attacks.shared.wrapper import Wrapper
from marl.core.checks import require_share
from marl.core.protocols import Policy, View
from marl.core.types import Step


class Recovery(Wrapper):
    """A wrapped attack that acts only in the first ``share`` of an episode's longest possible length."""

    def __init__(self, *args: Any, share: float, **wrapped: Any) -> None:
        super().__init__(*args, **wrapped)
        require_share("attack", share=share)
        self.last = math.ceil(share * self.spec.episode_limit)

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        self.age = torch.zeros(n_envs, dtype=torch.long, device=self.device)  # [B] steps of the episode so far
        super().begin(n_envs, victim, gen)

    def narrow(self, view: View) -> View:
        """Return the view in which lanes are active only while the attack lasts."""
        return replace(view, active=view.active & (self.age < self.last))

    def after_step(self, view: View, executed: Tensor, step: Step) -> None:
        super().after_step(view, executed, step)
        self.age = self.age + 1
