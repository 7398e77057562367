"""Roles of a team that learn separately: what coordination methods need of both value learners and actors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from algos.sbc.actors import RoleActorLearner
from algos.sbc.policies import ActorEgoLineup, EgoLineup, PartnerPolicy, ReadingPolicy, ValueEgoLineup
from algos.sbc.roles import EGO, RoleLearner, with_blocked_set, with_roles
from marl.core.protocols import LearnerHook, Policy, Replay
from marl.core.types import Clock, ConfigError, EnvSpec, EpisodeBatch, Field, Metrics
from marl.learn.actor import Actor, Critic
from marl.learn.algorithm import Factories, Hooked, ValueAlgorithm
from marl.learn.mixers import Mixer
from marl.learn.policy import EpsilonGreedy
from marl.learn.ppo import PPO, ActorFactories

Draw = Callable[[int, Generator], Tensor]


class Seats(Hooked, ABC):
    """An algorithm whose roles learn from the seats that they play, by the field ``assign`` long [n]; policy 0 is
    ``learner``. Methods are built on this; ``ValueSeats`` and ``ActorSeats`` define what a role is."""

    n_agents: int
    device: torch.device
    kind: type[Any]  # the type of learner that a role needs
    roles: Sequence[Any] = ()  # the learners of all roles made so far
    fit: Any  # (role, batch, clock) -> Metrics, trains a role on a batch

    def fields(self) -> dict[str, Field]:
        return super().fields() | {"assign": Field((self.n_agents,), torch.int64, "episode")}

    def make_learner(self, spec: EnvSpec, make: Any) -> Any:
        return self.role(spec, make, self.hooks)

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        metrics = self.learnt(replay, fresh, clock, lambda batch: self.learn(batch, clock))
        return metrics | self.schedules(clock) if metrics else {}

    def learn(self, batch: EpisodeBatch, clock: Clock) -> Metrics:
        """Train every role that learns on ``batch``; here ``learner`` alone."""
        return self.fit(self.learner, batch, clock)

    def role(self, spec: EnvSpec, make: Any, hooks: Sequence[LearnerHook], plays: int = EGO, blockable: int = 0) -> Any:
        """Make the learner of policy ``plays``; with ``blockable`` > 0 it also observes that many flags, the blocked
        set (field ``blocked``). Raise ConfigError if ``learner._target_`` is not a learner of roles."""
        seen = with_blocked_set(spec, blockable) if blockable else spec
        made = make.learner(seen, make.agent(seen), self.judge(seen, make), hooks, device=self.device)
        if not isinstance(made, self.kind):
            needed = f"{self.kind.__module__}.{self.kind.__qualname__}"
            raise ConfigError(f"algo.learner is {type(made).__name__}; it must be {needed}")
        made.take(plays, sees_blocked_set=blockable > 0)
        self.roles = [*self.roles, made]
        return made

    @abstractmethod
    def judge(self, spec: EnvSpec, make: Any) -> Any:
        """Make the network that complements a role's agent: a mixer or a critic."""

    @abstractmethod
    def play(self, role: Any, clock: Clock) -> Any:
        """Return the policy of a role as it is at ``clock``."""

    @abstractmethod
    def play_blocked(self, role: Any, clock: Clock, draw: Draw, *, alone: bool = False) -> Policy:
        """Return the policy of a role that observes the sets ``draw`` samples for each episode, bool [B, n, C];
        ``alone``: as it plays outside training."""

    @abstractmethod
    def as_partner(self, ego: Any) -> Policy:
        """Return the ego as it plays as its own partner, when not asked to explore."""

    @abstractmethod
    def beside(self, ego: Any, partners: Sequence[Policy], assign: Draw) -> EgoLineup:
        """Return the lineup of the ego and its partners, whose white-box view for attacks is the ego's."""

    @abstractmethod
    def learnt(
        self, replay: Replay, fresh: EpisodeBatch, clock: Clock, learn: Callable[[EpisodeBatch], Metrics]
    ) -> Metrics:
        """Call ``learn`` with every batch that is due; return the last metrics."""

    @abstractmethod
    def schedules(self, clock: Clock) -> Metrics:
        """Return the values of exploration schedules at ``clock``."""


class ValueSeats(Seats, ValueAlgorithm):
    """Roles that are value learners."""

    kind = RoleLearner
    published = None  # PPO's rhythm is not for value learners
    partner_epsilon: Sequence[float] = (0.0,)  # each episode's partners act at random with one of these probabilities

    def judge(self, spec: EnvSpec, make: Factories) -> Mixer:
        return make.mixer(with_roles(spec))

    def play(self, role: RoleLearner, clock: Clock) -> EpsilonGreedy:
        return EpsilonGreedy(role.agent, role.mixer, self.epsilon(clock.env_steps), role.last_action)

    def play_blocked(self, role: RoleLearner, clock: Clock, draw: Draw, *, alone: bool = False) -> Policy:
        epsilon = 0.0 if alone else self.epsilon(clock.env_steps)
        return PartnerPolicy(role, draw, epsilon, [0.0] if alone else self.partner_epsilon)

    def as_partner(self, ego: EpsilonGreedy) -> Policy:
        return ego

    def beside(self, ego: EpsilonGreedy, partners: Sequence[Policy], assign: Draw) -> ValueEgoLineup:
        return ValueEgoLineup(ego, partners, assign)

    def learnt(
        self, replay: Replay, fresh: EpisodeBatch, clock: Clock, learn: Callable[[EpisodeBatch], Metrics]
    ) -> Metrics:
        return self.sampled_updates(replay, clock, learn)

    def fit(self, learner: RoleLearner, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        return learner.update(fresh)

    def schedules(self, clock: Clock) -> Metrics:
        return {"train/epsilon": torch.tensor(self.epsilon(clock.env_steps))}


class ActorSeats(Seats, PPO):
    """Roles that are actors, each with its own critic. Partners sample from their policies."""

    kind = RoleActorLearner

    def judge(self, spec: EnvSpec, make: ActorFactories) -> Critic:
        return make.critic(spec)

    def play(self, role: RoleActorLearner, clock: Clock) -> Actor:
        return Actor(role.agent, self.how, role.last_action)

    def play_blocked(self, role: RoleActorLearner, clock: Clock, draw: Draw, *, alone: bool = False) -> Policy:
        return ReadingPolicy(self.play(role, clock), draw)

    def as_partner(self, ego: Actor) -> Policy:
        return Actor(ego.agent, "sample", ego.last_action)

    def beside(self, ego: Actor, partners: Sequence[Policy], assign: Draw) -> ActorEgoLineup:
        return ActorEgoLineup(ego, partners, assign)

    def learnt(
        self, replay: Replay, fresh: EpisodeBatch, clock: Clock, learn: Callable[[EpisodeBatch], Metrics]
    ) -> Metrics:
        before = sum(role.updates for role in self.roles)
        metrics = learn(fresh.to(self.device))
        clock.updates += sum(role.updates for role in self.roles) - before
        return metrics

    def schedules(self, clock: Clock) -> Metrics:
        return {}
