"""SBC, "Shaping Zero-Shot Coordination via State Blocking" (Kang, Lee, Jo, Han 2026): an ego learns to play with
partners each of whom avoids some states. What is published and what is ours: docs/sbc.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from algos.sbc.ego import EgoAlgorithm, require_shares, role_learner
from algos.sbc.policies import PartnerPolicy, ValueEgoLineup
from algos.sbc.roles import PARTNER, with_blocked_set, with_roles
from algos.sbc.sets import BlockedSets
from marl.core.checks import require_at_least, require_choice
from marl.core.protocols import NoHook, Policy, Replay
from marl.core.types import Clock, ConfigError, EnvSpec, EpisodeBatch, Field, Forward, Metrics
from marl.learn.algorithm import Factories
from marl.learn.learner import ValueLearner
from marl.learn.policy import EpsilonGreedy

Penalised = Literal["partner", "team"]


class Penalty(NoHook):
    """Lowers a learner's reward by ``weight`` times the share of the partners on blocked features."""

    def __init__(self, sets: BlockedSets, weight: float) -> None:
        self.sets, self.weight = sets, weight

    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor:
        return -self.weight * self.sets.penalty(batch)[:, :-1, None]


class SBC(EgoAlgorithm):
    """One partner network reads which features its seat must avoid, and so acts as many partners as there are sets
    (``sets``, a factory of ``BlockedSets``). It learns from the reward less ``penalty`` times the share of the partners
    that are on a feature of their set. The ego learns from the true reward, or from the partners' with ``penalise``
    team. Both learn from the same episodes at the same time.

    ``partner_steps``: for so many steps only partners play, in every seat, and learn; then they are frozen and only the
    ego learns. ``partner_epsilon``: each episode's partners act at random with one of these probabilities.
    """

    def __init__(
        self, spec: EnvSpec, *args: Any, sets: Callable[[EnvSpec], BlockedSets], penalty: float, penalise: Penalised,
        partner_epsilon: Sequence[float], partner_steps: int | None, **base: Any,
    ) -> None:  # fmt: skip
        require_at_least("algo", 0, penalty=penalty)
        require_choice("algo", get_args(Penalised), penalise=penalise)
        require_at_least("algo", 1, partner_steps=partner_steps, or_null=True)
        require_shares("algo", partner_epsilon=partner_epsilon)
        self.sets, self.penalty, self.penalise = sets(spec), penalty, penalise
        self.partner_epsilon, self.partner_steps = list(partner_epsilon), partner_steps
        super().__init__(spec, *args, **base)

    def make_learner(self, spec: EnvSpec, make: Factories) -> ValueLearner:
        ego = super().make_learner(spec, make)
        penalty, seen = Penalty(self.sets, self.penalty), with_blocked_set(spec, self.sets.mask.shape[1])
        hooks = [*self.hooks, penalty]
        self.partner = role_learner(
            make.learner, seen, make.agent(seen), make.mixer(with_roles(seen)), hooks, self.device
        )
        self.partner.plays, self.partner.sees_blocked_set = PARTNER, True
        if self.penalise == "team":
            ego.hooks.append(penalty)
        return ego

    def fields(self) -> dict[str, Field]:
        return super().fields() | self.sets.fields()

    def first_stage(self, clock: Clock) -> bool:
        """Return whether only partners play and learn."""
        return self.partner_steps is not None and clock.env_steps < self.partner_steps

    def policy(self, clock: Clock) -> ValueEgoLineup:  # type: ignore[override]
        policy = super().policy(clock)
        policy.ego.epsilon = self.ego_epsilon(clock)
        if self.first_stage(clock):
            policy.assign = lambda n_envs, gen: torch.full((n_envs, self.n_agents), PARTNER, device=gen.device)
        return policy

    def ego_epsilon(self, clock: Clock) -> float:
        return self.epsilon(max(0, clock.env_steps - (self.partner_steps or 0)))

    def partners(self, clock: Clock, ego: EpsilonGreedy) -> list[Policy]:
        return [PartnerPolicy(self.partner, self.sets.draw, self.epsilon(clock.env_steps), self.partner_epsilon)]

    def member(self, name: str) -> Policy:
        """Return the partner that avoids the features of ``name`` in every seat: numbers with commas, or "none"."""
        n, C = self.sets.mask.shape
        parts = [] if name == "none" else name.split(",")
        if not all(part.strip().isdecimal() and int(part) < C for part in parts):
            raise ConfigError(f"member '{name}' is not known; give none, or numbers in 0..{C - 1} with commas")
        features = torch.tensor([int(part) for part in parts], dtype=torch.long)
        blocked = torch.isin(torch.arange(C), features).to(self.device)
        return PartnerPolicy(self.partner, lambda n_envs, gen: blocked.expand(n_envs, n, C).clone(), 0.0, [0.0])

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        self.sets.observe(fresh)
        metrics = self.sets.metrics(fresh)
        first = self.first_stage(clock)

        def learn(batch: EpisodeBatch) -> Metrics:
            if not first:
                metrics.update(self.learner.update(batch))
            if first or self.partner_steps is None:
                metrics.update({f"partner/{name}": value for name, value in self.partner.update(batch).items()})
            return metrics

        learnt = self.sampled_updates(replay, clock, learn)
        return learnt | {"train/epsilon": torch.tensor(self.ego_epsilon(clock))} if learnt else metrics

    def networks(self) -> dict[str, nn.Module]:
        return super().networks() | {f"partner_{name}": net for name, net in self.partner.networks().items()}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"partner": self.partner.state_dict(), "sets": self.sets.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.partner.load_state_dict(state["partner"])
        self.sets.load_state_dict(state["sets"])
