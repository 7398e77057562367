"""Gradient attacks on observations: FGSM (Goodfellow et al. 2015, arXiv 1412.6572) and PGD (Madry et al. 2018,
arXiv 1706.06083), on the values of a team as in Lin et al. 2020 (arXiv 2003.03722).

They increase every agent's cross-entropy between softmax(Q) over its available actions and its greedy action.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from attacks.base import ObservationAttack, View, as_scoring, greedy_actions, input_gradient
from marl.core.checks import require_at_least, require_positive
from marl.core.protocols import Policy
from marl.core.types import EnvSpec

NAME = "fgsm or pgd"


class GradientAttack(ObservationAttack):
    """An attack by ``steps`` signed gradient steps of ``step_size`` within ``epsilon`` of every feature; one of size
    ``epsilon`` is FGSM. ``random_start``: from a uniformly random point of the ball instead of its centre."""

    in_hand = ("budget.spent", "lots", "hit")

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device | str,
        *,
        epsilon: float,
        steps: int,
        step_size: float,
        random_start: bool,
        **when: Any,
    ) -> None:
        super().__init__(spec, device, **when)
        require_at_least("attack", 1, steps=steps)
        require_positive("attack", epsilon=epsilon, step_size=step_size)
        self.epsilon, self.steps, self.step_size, self.random_start = epsilon, steps, step_size, random_start

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        as_scoring(victim, NAME)  # raises before anything is played

    def disturb(self, view: View) -> Tensor:
        clean, greedy = view.obs.obs, greedy_actions(view, NAME)
        seen = clean.clone()
        if self.random_start:
            seen += self.epsilon * (2 * self.uniform(*clean.shape[1:]) - 1)
        for _ in range(self.steps):
            step = self.step_size * input_gradient(seen, greedy, view, NAME).sign()
            seen = clean + (seen + step - clean).clamp(-self.epsilon, self.epsilon)
            seen = seen.clamp(self.low, self.high)
        return seen
