"""SBC, "Shaping Zero-Shot Coordination via State Blocking" (Kang, Lee, Jo, Han 2026): an ego learns to play with
partners who each avoid some states. What is published and what is ours: docs/sbc.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor, nn

from algos.sbc.ego import Ego, require_shares
from algos.sbc.policies import EgoLineup
from algos.sbc.roles import PARTNER
from algos.sbc.seats import ActorSeats, ValueSeats
from algos.sbc.sets import BlockedSets
from marl.core.checks import require_at_least, require_choice
from marl.core.protocols import NoHook, Policy, Replay
from marl.core.types import Clock, ConfigError, EnvSpec, EpisodeBatch, Field, Forward, Metrics

Penalised = Literal["partner", "team"]


class Penalty(NoHook):
    """A hook that lowers a learner's reward by ``weight`` times the share of partners on their blocked features."""

    def __init__(self, sets: BlockedSets, weight: float) -> None:
        self.sets, self.weight = sets, weight

    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor:
        return -self.weight * self.sets.penalty(batch)[:, :-1, None]


class Blocking(Ego):
    """An ego and one partner network, which reads the features its seat must avoid and so plays as many partners as
    there are sets (``sets``, a factory of ``BlockedSets``). The partner learns from the reward minus ``penalty`` times
    the share of partners that are on a feature of their set. The ego learns from the true reward, or with ``penalise``
    team from the partners'. Both learn from the same episodes at the same time.

    ``partner_steps``: for this many steps only partners play, in every seat, and learn; then they are frozen and only
    the ego learns.
    """

    def __init__(
        self, spec: EnvSpec, *args: Any, sets: Callable[[EnvSpec], BlockedSets], penalty: float, penalise: Penalised,
        partner_steps: int | None, **base: Any,
    ) -> None:  # fmt: skip
        require_at_least("algo", 0, penalty=penalty)
        require_choice("algo", get_args(Penalised), penalise=penalise)
        require_at_least("algo", 1, partner_steps=partner_steps, or_null=True)
        self.sets, self.penalty, self.penalise = sets(spec), penalty, penalise
        self.partner_steps = partner_steps
        super().__init__(spec, *args, **base)

    def make_learner(self, spec: EnvSpec, make: Any) -> Any:
        ego = self.role(spec, make, self.hooks)
        penalty = Penalty(self.sets, self.penalty)
        self.partner = self.role(spec, make, [*self.hooks, penalty], PARTNER, self.sets.mask.shape[1])
        if self.penalise == "team":
            ego.hooks.append(penalty)
        return ego

    def fields(self) -> dict[str, Field]:
        return super().fields() | self.sets.fields()

    def first_stage(self, clock: Clock) -> bool:
        """Return whether only partners play and learn."""
        return self.partner_steps is not None and clock.env_steps < self.partner_steps

    def second_stage(self, clock: Clock) -> Clock:
        """Return the ego's clock, whose steps count from the start of its own training."""
        return replace(clock, env_steps=max(0, clock.env_steps - (self.partner_steps or 0)))

    def policy(self, clock: Clock) -> EgoLineup:
        ego = self.play(self.learner, self.second_stage(clock))
        assign = self.all_partners if self.first_stage(clock) else self.assign
        return self.beside(ego, self.partners(clock, ego), assign)

    def all_partners(self, n_envs: int, gen: Generator) -> Tensor:
        """Assign every seat to partners, long [B, n]."""
        return torch.full((n_envs, self.n_agents), PARTNER, device=gen.device)

    def partners(self, clock: Clock, ego: Any) -> list[Policy]:
        return [self.play_blocked(self.partner, clock, self.sets.draw)]

    def member(self, name: str) -> Policy:
        """Return the partner that avoids the features of ``name`` in every seat: comma-separated numbers, or "none"."""
        n, C = self.sets.mask.shape
        parts = [] if name == "none" else name.split(",")
        if not all(part.strip().isdecimal() and int(part) < C for part in parts):
            raise ConfigError(f"member '{name}' is not known; give none, or numbers in 0..{C - 1} with commas")
        features = torch.tensor([int(part) for part in parts], dtype=torch.long)
        blocked = torch.isin(torch.arange(C), features).to(self.device)

        def given(n_envs: int, gen: Generator) -> Tensor:
            return blocked.expand(n_envs, n, C).clone()

        return self.play_blocked(self.partner, Clock(), given, alone=True)

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        self.sets.observe(fresh)
        metrics = self.sets.metrics(fresh)
        first, later = self.first_stage(clock), self.second_stage(clock)

        def learn(batch: EpisodeBatch) -> Metrics:
            if not first:
                metrics.update(self.fit(self.learner, batch, later))
            if first or self.partner_steps is None:
                fitted = self.fit(self.partner, batch, clock)
                metrics.update({f"partner/{name}": value for name, value in fitted.items()})
            return metrics

        learnt = self.learnt(replay, fresh, clock, learn)
        return learnt | self.schedules(later) if learnt else metrics

    def networks(self) -> dict[str, nn.Module]:
        return super().networks() | {f"partner_{name}": net for name, net in self.partner.networks().items()}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"partner": self.partner.state_dict(), "sets": self.sets.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.partner.load_state_dict(state["partner"])
        self.sets.load_state_dict(state["sets"])


class SBC(Blocking, ValueSeats):
    """SBC with value learners. ``partner_epsilon``: each episode's partners act at random with one of these
    probabilities."""

    def __init__(self, spec: EnvSpec, *args: Any, partner_epsilon: Sequence[float], **base: Any) -> None:
        require_shares("algo", partner_epsilon=partner_epsilon)
        self.partner_epsilon = list(partner_epsilon)
        super().__init__(spec, *args, **base)
        self.cleared = False  # the replay of the first stage, in which the ego has no seat

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        if self.partner_steps is not None and not self.first_stage(clock) and not self.cleared:
            replay.clear()
            self.cleared = True
        return super().update(replay, fresh, clock)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"cleared": self.cleared}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.cleared = bool(state.get("cleared", True))


class ActorSBC(Blocking, ActorSeats):
    """SBC with actors, whose partners are as random as they have learnt to be."""
