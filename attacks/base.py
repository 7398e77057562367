"""Parts that attacks share: budgets, random numbers, base classes for attacks that replace actions or disturb
observations, and the gradient of a victim's choice of action with respect to its observation.

LPA-Dec-POMDP (Yuan et al. 2023, ROMANCE, arXiv 2305.05909; Lee, Hwang, Jo, Han 2025, Wolfpack, arXiv 2502.02844): an
attacker with budget left sees the state and the intended joint action and makes some agents act differently; with none
left it does nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from marl.core.checks import require_at_least, require_choice, require_share, require_within
from marl.core.protocols import Attack, NoAttack, Policy, Victim, View
from marl.core.types import Carry, ConfigError, EnvSpec, Field
from marl.learn.learner import best_available

__all__ = [
    "ActionAttack", "Attack", "Budget", "DrawnAgents", "LaneAttack", "LaneDraws", "NoAttack", "ObservationAttack",
    "View", "as_scoring", "as_victim", "choose_k", "greedy_actions", "input_gradient", "pick", "require_agents",
]  # fmt: skip
Unit = Literal["step", "agent_action"]
Redraw = Literal["step", "episode"]


@runtime_checkable
class Scoring(Policy, Protocol):
    """A policy that exposes how it scores actions, as values or logits, for attacks that read them or
    follow their gradient."""

    def q_values(self, obs: Tensor, carry: Carry) -> Tensor: ...  # [B, n, O] -> [B, n, A], differentiable in obs


class Budget:
    """The budget of each lane per episode, in attacked steps or attacked agent actions. ``limit`` null: unlimited."""

    def __init__(self, limit: int | None, unit: Unit) -> None:
        require_at_least("attack", 0, budget=limit, or_null=True)
        require_choice("attack", get_args(Unit), budget_unit=unit)
        self.limit = torch.iinfo(torch.long).max if limit is None else limit
        self.unit = unit
        self.spent = torch.zeros(0, dtype=torch.long)

    def compiled(self) -> dict[str, Any]:
        """Return the budget as keyword arguments of ``Harm``."""
        return {"limit": self.limit, "by_step": self.unit == "step"}

    def begin(self, n_envs: int, device: torch.device) -> None:
        self.spent = torch.zeros(n_envs, dtype=torch.long, device=device)

    @property
    def left(self) -> Tensor:
        """Return what is left of each lane's budget, long [B]."""
        return self.limit - self.spent

    def affordable(self, hit: Tensor) -> Tensor:
        """Return the part of ``hit`` bool [B, n] that the budget covers; agents with the highest indices are dropped
        first."""
        left = self.left[:, None]
        return hit & (left > 0 if self.unit == "step" else hit.cumsum(-1) <= left)

    def spend(self, hit: Tensor) -> None:
        """Pay for ``hit`` bool [B, n]."""
        self.spent = self.spent + (hit.any(-1).long() if self.unit == "step" else hit.sum(-1))


class LaneDraws(NoAttack):
    """An attack that takes all its randomness from ``uniform`` and ``normal``, one row per lane, so that B lanes behave
    like B single ones."""

    def fields(self) -> dict[str, Field]:
        """Declare ``hit`` bool [n]: this agent's action or observation was changed in this step."""
        return {"hit": Field((self.spec.n_agents,), torch.bool)}

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        self.gen, self.n_envs = gen, n_envs

    def uniform(self, *shape: int) -> Tensor:
        """Draw uniform numbers [B, *shape]: one row per lane, including lanes that are not attacked."""
        return torch.rand(self.n_envs, *shape, generator=self.gen, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers [B, *shape] in the same way."""
        return torch.randn(self.n_envs, *shape, generator=self.gen, device=self.device)


class LaneAttack(LaneDraws):
    """An attack that pays for its hits from a budget."""

    def __init__(self, spec: EnvSpec, device: torch.device | str, *, budget: int | None, budget_unit: Unit) -> None:
        super().__init__(spec, device)
        self.budget = Budget(budget, budget_unit)

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        self.budget.begin(n_envs, self.device)

    def pay(self, wanted: Tensor, view: View) -> Tensor:
        """Return the part of ``wanted`` bool [B, n] that takes place (attacked lanes, living agents, affordable), and
        pay for it."""
        hit = self.budget.affordable(wanted & view.active[:, None] & view.obs.alive)
        self.budget.spend(hit)
        return hit


class DrawnAgents:
    """``k`` agents per episode, or all if there are fewer, drawn from those on the map at its first step."""

    in_hand = ("lots", "fresh", "chosen")

    def __init__(self, k: int) -> None:
        self.k = k

    def begin(self, lots: Tensor) -> None:
        """Start new episodes, given uniform numbers ``lots`` [B, n]."""
        self.lots, self.chosen = lots, torch.zeros_like(lots, dtype=torch.bool)
        self.fresh = torch.ones_like(lots[:, :1], dtype=torch.bool)

    def among(self, alive: Tensor) -> Tensor:
        """Return which agents were drawn, bool [B, n]; ``alive`` bool [B, n] marks those on the map in this step."""
        self.chosen = torch.where(self.fresh, choose_k(self.lots, alive, self.k), self.chosen)
        self.fresh = torch.zeros_like(self.fresh)
        return self.chosen


class ActionAttack(LaneAttack, ABC):
    """Base of attacks that replace actions within a budget. Subclasses implement ``choose``, for all lanes at once.

    Lanes that are not attacked, dead agents and unaffordable hits are handled here. A hit that changes nothing costs
    nothing.
    """

    @abstractmethod
    def choose(self, view: View, intended: Tensor) -> tuple[Tensor, Tensor]:
        """Return whom to hit, bool [B, n], and the available actions that replace theirs, long [B, n]."""

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        wanted, forced = self.choose(view, intended)
        hit = self.pay(wanted & (forced != intended), view)
        return torch.where(hit, forced, intended), {"hit": hit}


class ObservationAttack(LaneAttack, ABC):
    """Base of attacks on observations within a budget. Subclasses implement ``disturb``, for all lanes at once.

    Each step is attacked with probability ``rate``. An attack then hits ``agents`` living agents (null: all), drawn in
    every step or once per episode (``redraw``); in the latter case an agent that dies is replaced by the next living
    one. What is shown stays within the legal range of observations. The state and the game itself are untouched.
    """

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device | str,
        *,
        rate: float,
        agents: int | None,
        redraw: Redraw,
        budget: int | None,
        budget_unit: Unit,
    ) -> None:
        super().__init__(spec, device, budget=budget, budget_unit=budget_unit)
        require_share("attack", rate=rate)
        require_agents(agents, spec)
        require_choice("attack", get_args(Redraw), redraw=redraw)
        self.rate, self.agents, self.redraw = rate, spec.n_agents if agents is None else agents, redraw
        self.low, self.high = spec.obs_low.to(self.device), spec.obs_high.to(self.device)

    def fields(self) -> dict[str, Field]:
        """Declare ``hit``, and ``obs_seen`` [n, O]: the observations that the policy was shown."""
        return super().fields() | {"obs_seen": Field((self.spec.n_agents, self.spec.obs_dim))}

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        self.lots = self.uniform(self.spec.n_agents)  # [B, n]

    @abstractmethod
    def disturb(self, view: View) -> Tensor:
        """Return disturbed observations of all agents [B, n, O], in range or not."""

    def perturb_obs(self, view: View) -> Tensor:
        if self.redraw == "step":
            self.lots = self.uniform(self.spec.n_agents)
        strikes = (self.uniform() < self.rate)[:, None]  # [B, 1]
        seen = self.disturb(view).clamp(self.low, self.high)
        wanted = strikes & choose_k(self.lots, view.obs.alive, self.agents)
        self.hit = self.pay(wanted & (seen != view.obs.obs).any(-1), view)
        return torch.where(self.hit[..., None], seen, view.obs.obs)

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return intended, {"hit": self.hit}


def as_victim(policy: Policy, attack: str) -> Victim:
    """Return the policy's white-box view; raise ConfigError if it has none."""
    scoring = as_scoring(policy, attack)
    if not isinstance(scoring, Victim):
        raise ConfigError(f"attack: {attack} reads the team's value of its victim; {type(policy).__name__} has none")
    return scoring


def as_scoring(policy: Policy, attack: str) -> Scoring:
    """Return the policy as one that scores actions; raise ConfigError if it does not expose its scores."""
    if not isinstance(policy, Scoring):
        raise ConfigError(f"attack: {attack} reads the values of its victim; {type(policy).__name__} shows none")
    return policy


def greedy_actions(view: View, attack: str) -> Tensor:
    """Return the victim's greedy actions, long [B, n], on undisturbed observations."""
    with torch.no_grad():
        return best_available(as_scoring(view.victim, attack).q_values(view.obs.obs, view.carry), view.obs.avail)


def input_gradient(seen: Tensor, greedy: Tensor, view: View, attack: str) -> Tensor:
    """Return the gradient [B, n, O], at ``seen``, of the summed cross-entropy between softmax(Q), or an actor's policy,
    over available actions and the actions ``greedy`` long [B, n]; the victim's own gradients stay untouched. Raise
    ConfigError if the scores have no gradient."""
    victim = as_scoring(view.victim, attack)
    with torch.enable_grad():
        x = seen.detach().requires_grad_()
        q = victim.q_values(x, view.carry).masked_fill(~view.obs.avail, -torch.inf)  # [B, n, A]
        loss = F.cross_entropy(q.flatten(0, 1), greedy.flatten(), reduction="sum")
        if not loss.requires_grad:
            name = type(victim).__name__
            raise ConfigError(f"attack: {attack}: the values of {name} have no gradient in what it observes")
        (found,) = torch.autograd.grad(loss, x)
    return found


def require_agents(agents: int | None, spec: EnvSpec) -> None:
    """Raise ConfigError if more agents are to be hit than the team has."""
    require_within("attack", 0, spec.n_agents, agents=agents, or_null=True, note="the team's size")


def pick(u: Tensor, allowed: Tensor) -> Tensor:
    """Choose uniformly by inverse transform sampling: u [*] in [0, 1), allowed bool [*, k] -> long [*]; 0 where
    nothing is allowed."""
    count = allowed.sum(-1, keepdim=True)
    place = ((u.unsqueeze(-1) * count).floor() + 1).minimum(count)  # rank of the choice; the product may round up
    return ((allowed.cumsum(-1) >= place) & allowed).byte().argmax(-1)


def choose_k(u: Tensor, allowed: Tensor, k: int) -> Tensor:
    """Choose ``k`` of the allowed ones, or all if fewer: u [*, n] in [0, 1), allowed bool [*, n] -> bool [*, n]."""
    rank = u.masked_fill(~allowed, 2.0).argsort(-1).argsort(-1)
    return (rank < k) & allowed
