"""Policies that coordination methods train and play with: lineups around an ego, partners with blocked sets, noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from algos.sbc.roles import EGO, append_blocked_set
from marl.core.protocols import Policy
from marl.core.rolling import Acting, Seats, changed, declared
from marl.core.types import Carry, EpisodeBatch, Obs
from marl.learn.acting import told
from marl.learn.actor import Actor
from marl.learn.learner import ValueLearner, best_available
from marl.learn.lineup import Lineup
from marl.learn.policy import EpsilonGreedy, mix_random


class EgoLineup(Lineup):
    """A lineup of the ego (policy 0) and its partners. In exploring episodes they play the seats that ``assign`` gives
    them; in all others the ego plays every seat."""

    compiled = Lineup.compiled

    def seated(self, carry: Carry, explore: bool) -> Tensor:
        return carry["assign"] if explore else torch.full_like(carry["assign"], EGO)


class ActorEgoLineup(EgoLineup):
    """An ``EgoLineup`` that shows attacks the scores of its ego."""

    compiled = Lineup.compiled

    def __init__(
        self, ego: Actor | EpsilonGreedy, partners: Sequence[Policy], assign: Callable[[int, Generator], Tensor]
    ) -> None:
        super().__init__([ego, *partners], assign)
        self.ego, self.last_action = ego, ego.last_action

    def q_values(self, obs: Tensor, carry: Carry) -> Tensor:
        return self.ego.q_values(obs, self.egos(carry))

    def advance(self, obs: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        return self.ego.advance(obs, self.egos(carry))

    def unroll(self, batch: EpisodeBatch) -> tuple[Tensor, Carry]:
        return self.ego.unroll(batch)

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        if "assign" in carry:
            return super().after(carry, intended, executed)
        return self.ego.after(carry, intended, executed)  # the ego's own carry, as ``advance`` returns it

    def egos(self, carry: Carry) -> Carry:
        """Return the ego's part of a whole team's carry; the ego's own carry is returned as it is."""
        return carry if "h" in carry else self.of(carry, EGO)


class ValueEgoLineup(ActorEgoLineup):
    """An ``EgoLineup`` whose ego is a value network: attacks see the value of joint actions too."""

    compiled = Lineup.compiled
    ego: EpsilonGreedy

    def __init__(
        self, ego: EpsilonGreedy, partners: Sequence[Policy], assign: Callable[[int, Generator], Tensor]
    ) -> None:
        super().__init__(ego, partners, assign)
        self.mixer = ego.mixer

    def q_total(self, q: Tensor, state: Tensor, **kwargs: Tensor) -> Tensor:
        """Map q [*, n] and state [*, S] to team values [*, m], as if the ego played every seat."""
        return self.ego.q_total(q, torch.cat([state, torch.ones_like(q)], -1), **kwargs)

    def params(self) -> dict[str, Tensor]:
        return self.ego.params()

    def q_with(self, params: dict[str, Tensor], obs: Tensor, carry: Carry) -> Tensor:
        return self.ego.q_with(params, obs, self.egos(carry))


class PartnerPolicy(EpsilonGreedy):
    """A policy of the partner's networks with blocked sets that ``draw`` samples for each episode, bool [B, n, C], kept
    in the field ``blocked``. Exploring, each episode has its own epsilon: one of ``floors``, at least ``epsilon``."""

    def __init__(
        self, learner: ValueLearner, draw: Callable[[int, Generator], Tensor], epsilon: float, floors: Sequence[float]
    ) -> None:
        super().__init__(learner.agent, learner.mixer, epsilon, learner.last_action)
        self.draw, self.floors = draw, floors

    def compiled(self, explore: bool) -> Acting | None:
        form = reading(self.form())
        return changed(form, lambda seats, carry: seats.noisier(carry["noise"].double())) if explore else form

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        noise = draw_epsilon(n_envs, self.floors, gen).clamp(min=self.epsilon)
        return super().begin(n_envs, gen) | {"blocked": self.draw(n_envs, gen), "noise": noise}

    @torch.no_grad()
    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        x = self.agent.inputs(append_blocked_set(obs.obs, carry["blocked"]), carry["last"])
        q, h = self.agent.step(x, carry["h"])
        actions = best_available(q, obs.avail)
        if explore:
            actions = mix_random(actions, obs.avail, carry["noise"], gen)
        return actions, {**carry, "h": h}, {"blocked": carry["blocked"]}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        return {**carry, **super().after(carry, intended, executed)}


class ReadingPolicy:
    """A wrapped policy that observes blocked sets: ``draw`` samples them for each episode, bool [B, n, C]; the field
    ``blocked`` keeps them."""

    def __init__(self, policy: Policy, draw: Callable[[int, Generator], Tensor]) -> None:
        self.policy, self.draw = policy, draw

    def compiled(self, explore: bool) -> Acting | None:
        return reading(declared(self.policy, "compiled", explore))

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        return self.policy.begin(n_envs, gen) | {"blocked": self.draw(n_envs, gen)}

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        blocked = carry["blocked"]
        told = replace(obs, obs=append_blocked_set(obs.obs, blocked))
        actions, inner, fields = self.policy.act(told, without(carry, "blocked"), explore=explore, gen=gen)
        return actions, inner | {"blocked": blocked}, fields | {"blocked": blocked}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        inner = self.policy.after(without(carry, "blocked"), intended, executed)
        return inner | {"blocked": carry["blocked"]}


class NoisyPolicy:
    """A wrapped policy that never explores; instead each agent takes a random available action with a probability
    sampled from ``epsilon`` for each episode."""

    def __init__(self, policy: Policy, epsilon: Sequence[float]) -> None:
        self.policy, self.epsilon = policy, list(epsilon)

    def compiled(self, explore: bool) -> Acting | None:
        form = declared(self.policy, "compiled", False)
        return changed(form, lambda seats, carry: seats.noisier(carry["noise"].double())._replace(fields={}))

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        return self.policy.begin(n_envs, gen) | {"noise": draw_epsilon(n_envs, self.epsilon, gen)}

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        actions, inner, _ = self.policy.act(obs, without(carry, "noise"), explore=False, gen=gen)
        actions = mix_random(actions, obs.avail, carry["noise"], gen)
        return actions, inner | {"noise": carry["noise"]}, {}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        return self.policy.after(without(carry, "noise"), intended, executed) | {"noise": carry["noise"]}


def reading(form: Acting | None) -> Acting | None:
    """Return the form of a policy whose networks also see the flags ``blocked`` of its carry, which it stores."""

    def told_blocked(seats: Seats, carry: Carry) -> Seats:
        assert form is not None
        return told(form.network, seats, carry["blocked"])._replace(
            fields={**seats.fields, "blocked": carry["blocked"]}
        )

    return changed(form, told_blocked)


def without(carry: Carry, name: str) -> Carry:
    """Return a carry without one of its entries: the wrapped policy's carry."""
    return {key: value for key, value in carry.items() if key != name}


def draw_epsilon(n_envs: int, epsilon: Sequence[float], gen: Generator) -> Tensor:
    """Sample one of ``epsilon`` for each lane, uniformly, [B, 1]."""
    values = torch.tensor(list(epsilon), device=gen.device)
    return values[torch.randint(len(values), (n_envs, 1), generator=gen, device=gen.device)]
