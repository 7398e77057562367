"""Delayed actions: what a team chose some steps ago is executed now. One of the disturbances of Robust-Gymnasium."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from attacks.base import ActionAttack, DrawnAgents, View, require_agents
from marl.core.checks import require_at_least
from marl.core.protocols import Policy
from marl.core.types import EnvSpec

NOTHING = -1  # no action was chosen that long ago


class Delay(ActionAttack):
    """An attack that delays the actions of ``agents`` agents, drawn for each episode (null: all), by ``steps`` steps.

    Until the first delayed action arrives, and where one is no longer available, the agent does nothing
    (``EnvSpec.idle_action``) or, in games without such an action, what it has just chosen. Once the budget is spent,
    its actions are on time.
    """

    in_hand = ("budget.spent", *(f"drawn.{name}" for name in DrawnAgents.in_hand), "queue")

    def __init__(
        self, spec: EnvSpec, device: torch.device | str, *, steps: int, agents: int | None, **budget: Any
    ) -> None:
        super().__init__(spec, device, **budget)
        require_at_least("attack", 1, steps=steps)
        require_agents(agents, spec)
        self.steps, self.drawn = steps, DrawnAgents(spec.n_agents if agents is None else agents)

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        self.drawn.begin(self.uniform(self.spec.n_agents))
        shape = (n_envs, self.steps, self.spec.n_agents)
        self.queue = torch.full(shape, NOTHING, device=self.device)  # oldest first

    def choose(self, view: View, intended: Tensor) -> tuple[Tensor, Tensor]:
        due = self.queue[:, 0]
        self.queue = torch.cat([self.queue[:, 1:], intended[:, None]], 1)
        idle = intended if self.spec.idle_action is None else torch.full_like(intended, self.spec.idle_action)
        idle = torch.where(self.available(view, idle), idle, intended)
        there = (due != NOTHING) & self.available(view, due.clamp(min=0))
        return self.drawn.among(view.obs.alive), torch.where(there, due, idle)

    @staticmethod
    def available(view: View, actions: Tensor) -> Tensor:
        """Return whether ``actions`` long [B, n] may be played now."""
        return view.obs.avail.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
