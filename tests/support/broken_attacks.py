"""Deliberately broken attacks: every rule of ``attack_parts.RULES`` has at least one that must fail it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from attacks.base import LaneAttack, View, pick
from marl.core.protocols import Policy
from marl.core.types import EnvSpec, Field


class Sound(LaneAttack):
    """Blurs what some agents see and has them act at random; keeps every rule. ``p`` is a weight that it saves."""

    epsilon = 0.1

    def __init__(self, spec: EnvSpec, budget: int | None, unit: Any) -> None:
        super().__init__(spec, "cpu", budget=budget, budget_unit=unit)
        self.p = 0.4 + 0.2 * torch.rand(())

    def fields(self) -> dict[str, Field]:
        return super().fields() | {"obs_seen": Field((self.spec.n_agents, self.spec.obs_dim))}

    def whom(self, view: View) -> Tensor:
        return self.uniform(self.spec.n_agents) < self.p

    def noise(self, view: View) -> Tensor:
        return self.epsilon * (2 * self.uniform(self.spec.n_agents, self.spec.obs_dim) - 1)

    def perturb_obs(self, view: View) -> Tensor:
        self.hit = self.pay(self.whom(view), view)
        seen = (view.obs.obs + self.noise(view)).clamp(self.spec.obs_low, self.spec.obs_high)
        return torch.where(self.hit[..., None], seen, view.obs.obs)

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        forced = pick(self.uniform(self.spec.n_agents), view.obs.avail)
        return torch.where(self.hit, forced, intended), {"hit": self.hit}

    def state_dict(self) -> dict[str, Any]:
        return {"p": self.p.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.p = state["p"]


class HitsEveryLane(Sound):
    def pay(self, wanted: Tensor, view: View) -> Tensor:
        return wanted & view.obs.alive


class HitsTheFinished(Sound):
    """Hits corpses of lanes that are over; these hits would count as attacked steps."""

    def pay(self, wanted: Tensor, view: View) -> Tensor:
        return wanted & (view.active[:, None] | ~view.obs.alive)


class ClampsTheGame(Sound):
    """Writes into the game's own observations."""

    def perturb_obs(self, view: View) -> Tensor:
        seen = super().perturb_obs(view)
        view.obs.obs.mul_(0.5)
        return 0.5 * seen


class TakesAnything(Sound):
    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.where(self.hit, self.spec.n_actions - 1, intended), {"hit": self.hit}


class HitsTheDead(Sound):
    def pay(self, wanted: Tensor, view: View) -> Tensor:
        return wanted & view.active[:, None]


class HidesActions(Sound):
    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        executed, _ = super().perturb_actions(view, intended)
        return executed, {"hit": self.hit & (self.uniform(self.spec.n_agents) < 0.5)}


class HidesObservations(Sound):
    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        executed, _ = super().perturb_actions(view, intended)
        return executed, {"hit": executed != intended}


class StopsOnlyAtTheLimit(Sound):
    """Blocks the one hit that meets the limit and lets later ones pass."""

    def pay(self, wanted: Tensor, view: View) -> Tensor:
        hit = wanted & view.active[:, None] & view.obs.alive
        hit &= (self.budget.spent != self.budget.limit)[:, None]
        self.budget.spend(hit)
        self.budget.spent += hit.any(-1)
        return hit


class CountsStepsOnly(Sound):
    def pay(self, wanted: Tensor, view: View) -> Tensor:
        self.budget.unit = "step"
        return super().pay(wanted, view)


class OneBudgetForAllEpisodes(Sound):
    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        spent = self.budget.spent
        super().begin(n_envs, victim, gen)
        self.budget.spent = spent if len(spent) else self.budget.spent


class OutOfRange(Sound):
    def perturb_obs(self, view: View) -> Tensor:
        self.hit = self.pay(self.whom(view), view)
        return torch.where(self.hit[..., None], view.obs.obs + self.noise(view), view.obs.obs)


class OutsideTheBall(Sound):
    def noise(self, view: View) -> Tensor:
        return 2 * super().noise(view)


class OneDrawForAll(Sound):
    def whom(self, view: View) -> Tensor:
        return super().whom(view)[:1].expand(self.n_envs, -1)


class LooksAtOtherLanes(Sound):
    def whom(self, view: View) -> Tensor:
        return super().whom(view) & (view.obs.state[:, :1] >= view.obs.state[:, 0].mean())


class OwnDice(Sound):
    """Draws past ``uniform``: how many lanes there are moves the draws of all."""

    def whom(self, view: View) -> Tensor:
        return torch.rand(self.n_envs, self.spec.n_agents, generator=self.gen) < self.p


class LeavesGradients(Sound):
    def whom(self, view: View) -> Tensor:
        view.victim.q_values(view.obs.obs, view.carry).sum().backward()  # type: ignore[attr-defined]
        return super().whom(view)


class Freezes(Sound):
    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        victim.agent.requires_grad_(False)  # type: ignore[attr-defined]


class SetsTheMode(Sound):
    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        victim.mixer.eval()  # type: ignore[attr-defined]


class StepsInPlace(Sound):
    """One step of gradient descent on the victim itself instead of a copy."""

    @torch.no_grad()
    def whom(self, view: View) -> Tensor:
        next(iter(view.victim.params().values())).mul_(1.001)  # type: ignore[attr-defined]
        return super().whom(view)


class BlursForFree(Sound):
    """Rounds what everybody sees, budget or not."""

    def perturb_obs(self, view: View) -> Tensor:
        return super().perturb_obs(view).bfloat16().float()


class PaysLater(Sound):
    """The first hit of an episode is on credit."""

    def pay(self, wanted: Tensor, view: View) -> Tensor:
        hit = super().pay(wanted, view)
        return wanted & view.active[:, None] & view.obs.alive if view.t == 0 else hit


class SavesNothing(Sound):
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None


class SavesObjects(Sound):
    def state_dict(self) -> dict[str, Any]:
        return {"p": self.p, "spec": self.spec}


class Ambient(Sound):
    def whom(self, view: View) -> Tensor:
        return super().whom(view) & (torch.rand(self.spec.n_agents) < 0.9)


class GrowsTired(Sound):
    """What it did in one episode changes the next."""

    def whom(self, view: View) -> Tensor:
        self.p = 0.99 * self.p
        return super().whom(view)


BROKEN_ATTACKS: tuple[tuple[str, type[Sound]], ...] = (
    ("inactive", HitsEveryLane),
    ("inactive", HitsTheFinished),
    ("inactive", ClampsTheGame),
    ("honest", TakesAnything),
    ("honest", HitsTheDead),
    ("honest", HidesActions),
    ("honest", HidesObservations),
    ("budget", StopsOnlyAtTheLimit),
    ("budget", CountsStepsOnly),
    ("budget", OneBudgetForAllEpisodes),
    ("bounds", OutOfRange),
    ("bounds", OutsideTheBall),
    ("lanes", OneDrawForAll),
    ("lanes", LooksAtOtherLanes),
    ("lanes", OwnDice),
    ("victim", LeavesGradients),
    ("victim", Freezes),
    ("victim", SetsTheMode),
    ("victim", StepsInPlace),
    ("off", BlursForFree),
    ("off", PaysLater),
    ("state", SavesNothing),
    ("state", SavesObjects),
    ("repeats", Ambient),
    ("repeats", GrowsTired),
)
