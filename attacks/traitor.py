"""A permanent traitor: some seats of the team are played by somebody else for the whole episode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor

from attacks.base import ActionAttack, DrawnAgents, View, as_scoring, pick, require_agents
from marl.core.checks import require_choice
from marl.core.protocols import Policy
from marl.core.types import ConfigError, EnvSpec, Step
from marl.learn.learner import best_available

Plays = Literal["random", "worst", "policy"]


class Traitor(ActionAttack):
    """An attack in which traitors play ``agents`` seats, drawn for each episode. ``plays``: random, any available
    action; worst, the one that the team itself values least; policy, what ``policy`` (a factory called with the spec
    and the device) would do, such as the team of another run, or one that has learnt to harm this one.

    The policy sees and remembers what all agents see, as if it played all seats. A traitor's action that was intended
    anyway does not count as a hit.
    """

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device | str,
        *,
        agents: int,
        plays: Plays,
        policy: Callable[[EnvSpec, torch.device | str], Policy] | None,
        **budget: Any,
    ) -> None:
        super().__init__(spec, device, **budget)
        require_agents(agents, spec)
        require_choice("attack", get_args(Plays), plays=plays)
        if (plays == "policy") != (policy is not None):
            need = "needs one: +policy@attack.policy=NAME" if plays == "policy" else "has none: set it to null"
            raise ConfigError(f"attack.policy: a traitor with plays={plays} {need}")
        self.drawn, self.plays = DrawnAgents(agents), plays
        self.policy = None if policy is None else policy(spec, device)

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        self.drawn.begin(self.uniform(self.spec.n_agents))
        if self.plays == "worst":
            as_scoring(victim, "traitor")
        self.carry = {} if self.policy is None else self.policy.begin(n_envs, gen)

    @torch.no_grad()
    def choose(self, view: View, intended: Tensor) -> tuple[Tensor, Tensor]:
        seats = self.drawn.among(view.obs.alive)
        if self.plays == "random":
            return seats, pick(self.uniform(self.spec.n_agents), view.obs.avail)
        if self.policy is None:
            scores = as_scoring(view.victim, "traitor").q_values(view.obs.obs, view.carry)
            return seats, best_available(-scores, view.obs.avail)
        self.chosen, self.carry, _ = self.policy.act(view.obs, self.carry, explore=False, gen=self.gen)
        return seats, self.chosen

    def after_step(self, view: View, executed: Tensor, step: Step) -> None:
        if self.policy is not None:
            self.carry = self.policy.after(self.carry, self.chosen, executed)
