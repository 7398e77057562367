"""Undirected disturbances of observations: masking random features (Rand-Obs) and uniform noise.

They are the baselines for attacks that choose which features to disturb, or in which direction.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor

from attacks.base import ObservationAttack, View, choose_k
from marl.core.checks import require_choice, require_positive, require_share
from marl.core.protocols import Policy
from marl.core.types import EnvSpec

Shape = Literal["uniform", "gaussian"]


class RandomMask(ObservationAttack):
    """An attack that sets a random ``share`` of an agent's features to 0 or the nearest legal value, drawn when the
    agents are."""

    in_hand = ("budget.spent", "lots", "hit", "marks")

    def __init__(self, spec: EnvSpec, device: torch.device | str, *, share: float, **when: Any) -> None:
        super().__init__(spec, device, **when)
        require_share("attack", share=share)
        self.masked = round(share * spec.obs_dim)

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        self.marks = self.draw()

    def draw(self) -> Tensor:
        """Draw the features to mask, bool [B, n, O]."""
        u = self.uniform(self.spec.n_agents, self.spec.obs_dim)
        return choose_k(u, torch.ones_like(u, dtype=torch.bool), self.masked)

    def disturb(self, view: View) -> Tensor:
        if self.redraw == "step":
            self.marks = self.draw()
        return view.obs.obs.masked_fill(self.marks, 0.0)


class Noise(ObservationAttack):
    """An attack that adds noise to every feature: uniform within ``epsilon``, the ball of FGSM without its direction,
    or ``gaussian`` with standard deviation ``epsilon``."""

    in_hand = ("budget.spent", "lots", "hit")

    def __init__(
        self, spec: EnvSpec, device: torch.device | str, *, epsilon: float, shape: Shape = "uniform", **when: Any
    ) -> None:
        super().__init__(spec, device, **when)
        require_positive("attack", epsilon=epsilon)
        require_choice("attack", get_args(Shape), shape=shape)
        self.size, self.shape = epsilon, shape
        self.epsilon = epsilon if shape == "uniform" else None  # radius of the ball, where there is one

    def disturb(self, view: View) -> Tensor:
        if self.shape == "gaussian":
            return view.obs.obs + self.size * self.normal(*view.obs.obs.shape[1:])
        return view.obs.obs + self.size * (2 * self.uniform(*view.obs.obs.shape[1:]) - 1)
