"""Gradient attacks on observations: FGSM (Goodfellow et al. 2015, arXiv 1412.6572) and PGD (Madry et al. 2018,
arXiv 1706.06083), on the values of a team as in Lin et al. 2020 (arXiv 2003.03722).

Every agent's cross-entropy between softmax(Q) over its available actions and its greedy action is pushed up (``slope``,
which other attacks on observations use too).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from attacks.base import ObservationAttack, View, as_victim
from marl.learner import best_available
from marl.protocols import Policy
from marl.types import ConfigError, EnvSpec, require_positive

NAME = "fgsm or pgd"


def greedy_actions(view: View, attack: str) -> Tensor:
    """What the victim would do, long [B, n], if it were shown what is there."""
    with torch.no_grad():
        return best_available(as_victim(view.victim, attack).q_values(view.obs.obs, view.carry), view.obs.avail)


def slope(seen: Tensor, greedy: Tensor, view: View, attack: str) -> Tensor:
    """Gradient [B, n, O], at ``seen``, of the summed cross-entropy between softmax(Q) over available actions and the
    actions ``greedy`` long [B, n]; the victim's own gradients stay untouched. ConfigError where it has none."""
    victim = as_victim(view.victim, attack)
    with torch.enable_grad():
        x = seen.detach().requires_grad_()
        q = victim.q_values(x, view.carry).masked_fill(~view.obs.avail, -torch.inf)  # [B, n, A]
        loss = F.cross_entropy(q.flatten(0, 1), greedy.flatten(), reduction="sum")
        if not loss.requires_grad:
            name = type(victim).__name__
            raise ConfigError(f"attack={attack}: the values of {name} have no gradient in what it observes")
        (found,) = torch.autograd.grad(loss, x)
    return found


class GradientAttack(ObservationAttack):
    """``steps`` signed gradient steps of ``step_size`` within ``epsilon`` of every feature; one step as large as
    ``epsilon`` is FGSM. ``random_start``: from a uniformly drawn point of the ball instead of its centre."""

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
        require_positive("attack", steps=steps)
        for name, value in {"epsilon": epsilon, "step_size": step_size}.items():
            if value <= 0.0:
                raise ConfigError(f"attack.{name}={value} must be above 0")
        self.epsilon, self.steps, self.step_size, self.random_start = epsilon, steps, step_size, random_start

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        as_victim(victim, NAME)  # refused before anything is played

    def disturb(self, view: View) -> Tensor:
        clean, greedy = view.obs.obs, greedy_actions(view, NAME)
        seen = clean.clone()
        if self.random_start:
            seen += self.epsilon * (2 * self.uniform(*clean.shape[1:]) - 1)
        for _ in range(self.steps):
            step = self.step_size * slope(seen, greedy, view, NAME).sign()
            seen = clean + (seen + step - clean).clamp(-self.epsilon, self.epsilon)
            seen = seen.clamp(self.low, self.high)
        return seen
