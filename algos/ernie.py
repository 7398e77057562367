"""ERNIE trains a team whose values change little under the observation noise that changes them most.

Bukharin et al. 2023, "Robust Multi-Agent Reinforcement Learning via Adversarial Regularization", arXiv 2310.10810. No
attacker plays: the perturbation exists only in the loss. Equations as implemented: docs/romance.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from marl.core.checks import require_at_least
from marl.core.distributed import global_count
from marl.core.seeding import derive, restore
from marl.core.types import EpisodeBatch, Forward, Metrics
from marl.learn.learner import ValueLearner, previous_actions


class ErnieLearner(ValueLearner):
    """The value learner plus ``weight`` times the mean of |q(o) - q(o')| over living agents and steps.

    o' is o with noise of standard deviation ``noise``, moved ``steps`` times by ``eta`` |o| times the gradient of that
    norm, clipped to +-``clip``. Only observations are perturbed, not the last action or the agent's id. Each step is
    perturbed on its own, from the hidden state that unperturbed observations led to. ``stackelberg``: gradients also
    pass through the dependence of o' on the network. Weight 0 is the base learner, bit for bit.
    """

    def __init__(
        self,
        *args: Any,
        weight: float,
        eta: float,
        steps: int,
        noise: float,
        clip: float,
        stackelberg: bool,
        **base: Any,
    ) -> None:
        require_at_least("learner", 0, weight=weight, eta=eta, steps=steps, noise=noise, clip=clip)
        super().__init__(*args, **base)
        self.weight, self.eta, self.steps, self.noise, self.clip = weight, eta, steps, noise, clip
        self.stackelberg = stackelberg
        self.gen = Generator(self.device).manual_seed(derive(torch.initial_seed(), "ernie"))

    def losses(self, batch: EpisodeBatch, fwd: Forward, target: Tensor) -> tuple[dict[str, Tensor], Metrics]:
        terms, metrics = super().losses(batch, fwd, target)
        if self.weight == 0:
            return terms, metrics
        change = self.weight * self.smoothness(batch, fwd)
        return terms | {"ernie": change}, metrics

    def smoothness(self, batch: EpisodeBatch, fwd: Forward) -> Tensor:
        """Return the mean change of an agent's values under the perturbation, 0-d."""
        filled = batch.filled  # N slots with a step
        obs = batch.policy_obs[filled]  # [N, n, O]
        last = previous_actions(batch.acted(self.last_action))[filled]
        before = torch.cat([torch.zeros_like(fwd.h[:, :1]), fwd.h[:, :-1]], 1)[filled]  # [N, n, H]
        q, alive = fwd.q[filled], batch.alive[filled]

        def change(seen: Tensor, values: Tensor) -> Tensor:
            """Return |q(o) - q(seen)| of every agent, [N, n]."""
            moved = self.agent.step(self.agent.inputs(seen, last), before)[0]
            return ((values - moved).square().sum(-1) + 1e-12).sqrt()  # the root has no gradient at 0

        noise = torch.randn(obs.shape, generator=self.gen, device=obs.device)
        seen = obs + self.noise * noise
        for _ in range(self.steps):
            seen = (seen if self.stackelberg else seen.detach()).requires_grad_()
            values = q if self.stackelberg else q.detach()
            (slope,) = torch.autograd.grad(change(seen, values).sum(), seen, create_graph=self.stackelberg)
            seen = seen + self.eta * obs.abs() * slope.clamp(-self.clip, self.clip)
        seen = seen if self.stackelberg else seen.detach()
        total = torch.where(alive, change(seen, q), 0.0).sum()
        return total / global_count(alive.sum())

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"ernie": self.gen.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        restore(self.gen, state["ernie"], "ernie")
