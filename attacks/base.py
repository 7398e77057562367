"""What attacks are made of: budgets, draws, and the frame of every attack that replaces actions.

LPA-Dec-POMDP (Yuan et al. 2023, ROMANCE, arXiv 2305.05909; Lee, Hwang, Jo, Han 2025, Wolfpack, arXiv 2502.02844): an
attacker with units left sees the state and the intended joint action and has some agents do something else; with none
left it does nothing.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Generator, Tensor

from marl.protocols import Attack, NoAttack, Policy, Victim, View
from marl.types import ConfigError, EnvSpec, Field

__all__ = ["ActionAttack", "Attack", "Budget", "NoAttack", "View", "as_victim", "pick"]
UNITS = ("step", "agent_action")


class Budget:
    """What each lane may spend in an episode: attacked steps, or replaced agent actions. ``limit`` null: no end."""

    def __init__(self, limit: int | None, unit: Literal["step", "agent_action"]) -> None:
        if limit is not None and limit < 0:
            raise ConfigError(f"attack.budget={limit} must be at least 0, or null")
        if unit not in UNITS:
            raise ConfigError(f"attack.budget_unit={unit} is not known; choose one of {', '.join(UNITS)}")
        self.limit = torch.iinfo(torch.long).max if limit is None else limit
        self.unit = unit
        self.spent = torch.zeros(0, dtype=torch.long)

    def begin(self, n_envs: int, device: torch.device) -> None:
        self.spent = torch.zeros(n_envs, dtype=torch.long, device=device)

    @property
    def left(self) -> Tensor:
        """long [B]"""
        return self.limit - self.spent

    def affordable(self, hit: Tensor) -> Tensor:
        """The part of ``hit`` bool [B, n] that can be paid; of agents too many, those with the highest numbers go."""
        left = self.left[:, None]
        return hit & (left > 0 if self.unit == "step" else hit.cumsum(-1) <= left)

    def spend(self, hit: Tensor) -> None:
        """Pay for ``hit`` bool [B, n]."""
        self.spent = self.spent + (hit.any(-1).long() if self.unit == "step" else hit.sum(-1))


class ActionAttack(NoAttack):
    """Replaces actions within a budget. Subclasses say whose and by what, in ``choose``, for all lanes at once.

    Lanes that are not attacked, dead agents and unaffordable hits are taken care of here. A hit that changes nothing
    costs nothing. All randomness comes from ``uniform``, one row per lane, so that B lanes play as B single ones do.
    """

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device | str,
        *,
        budget: int | None,
        budget_unit: Literal["step", "agent_action"],
    ) -> None:
        super().__init__(spec, device)
        self.budget = Budget(budget, budget_unit)

    def fields(self) -> dict[str, Field]:
        """``hit`` bool [n]: this agent's action or observation was changed in this step."""
        return {"hit": Field((self.spec.n_agents,), torch.bool)}

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        self.gen, self.n_envs = gen, n_envs
        self.budget.begin(n_envs, self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform draws [B, *shape], a row for every lane, also for those that are not attacked."""
        return torch.rand(self.n_envs, *shape, generator=self.gen, device=self.device)

    def choose(self, view: View, intended: Tensor) -> tuple[Tensor, Tensor]:
        """Whom to hit, bool [B, n], and the actions to put in place of theirs, long [B, n], available ones."""
        raise NotImplementedError

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        wanted, forced = self.choose(view, intended)
        hit = wanted & view.active[:, None] & view.obs.alive & (forced != intended)
        hit = self.budget.affordable(hit)
        self.budget.spend(hit)
        return torch.where(hit, forced, intended), {"hit": hit}

    def state_dict(self) -> dict[str, Any]:
        return {}


def as_victim(policy: Policy, attack: str) -> Victim:
    """The policy's white-box view; ConfigError where it has none."""
    if not isinstance(policy, Victim):
        raise ConfigError(f"attack={attack} reads the values of its victim; {type(policy).__name__} shows none")
    return policy


def pick(u: Tensor, allowed: Tensor) -> Tensor:
    """Uniform choice by inverse distribution function: u [*] in [0, 1), allowed bool [*, k] -> long [*]; 0 where
    nothing is allowed."""
    count = allowed.sum(-1, keepdim=True)
    place = ((u.unsqueeze(-1) * count).floor() + 1).minimum(count)  # the how-manieth allowed one; rounding may reach 1
    return ((allowed.cumsum(-1) >= place) & allowed).byte().argmax(-1)
