"""The first stage of MEP, "Maximum Entropy Population-Based Training for Zero-Shot Human-AI Coordination" (Zhao et al.
2023): a population learns self-play with a bonus for actions that are rare in the population. For value learners."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from algos.sbc.ego import role_learner
from algos.sbc.roles import RoleLearner, with_roles
from marl.core.checks import require_at_least, require_positive
from marl.core.protocols import NoHook, Policy, Replay
from marl.core.types import Clock, ConfigError, EnvSpec, EpisodeBatch, Field, Forward, Metrics
from marl.learn.algorithm import Factories, ValueAlgorithm
from marl.learn.learner import ValueLearner, gather_actions
from marl.learn.lineup import Lineup
from marl.learn.policy import EpsilonGreedy


class DiversityBonus(NoHook):
    """Adds the ``bonus`` [M, T+1] that ``Diverse.learn`` has put into the batch."""

    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor:
        return batch.bonus[:, :-1, None]


class Diverse(ValueAlgorithm):
    """Trains ``members`` teams, each in its own episodes and there in every seat. They are fitted to the reward plus
    ``alpha`` times the mean over agents of ``-log p(a)``, where p is the members' mean policy, softmax(Q /
    ``temperature``) over available actions. ``relative``: the temperature is in units of how far a member's best and
    worst available values lie apart, on the mean over the batch; otherwise in units of return. Tests draw a member for
    every episode; ``member(k)`` is team k.
    """

    def __init__(self, *args: Any, members: int, alpha: float, temperature: float, relative: bool, **base: Any) -> None:
        require_at_least("algo", 2, members=members)
        require_at_least("algo", 0, alpha=alpha)
        require_positive("algo", temperature=temperature)
        self.members, self.alpha, self.temperature, self.relative = members, alpha, temperature, relative
        super().__init__(*args, **base)

    def make_learner(self, spec: EnvSpec, make: Factories) -> ValueLearner:
        self.n_agents, hooks = spec.n_agents, [*self.hooks, DiversityBonus()]
        self.teams: list[RoleLearner] = []
        for k in range(self.members):
            team = role_learner(make.learner, spec, make.agent(spec), make.mixer(with_roles(spec)), hooks, self.device)
            team.plays = k
            self.teams.append(team)
        return self.teams[0]

    def fields(self) -> dict[str, Field]:
        return super().fields() | {"assign": Field((self.n_agents,), torch.int64, "episode")}

    def policy(self, clock: Clock) -> Lineup:  # type: ignore[override]
        epsilon = self.epsilon(clock.env_steps)
        return Lineup([EpsilonGreedy(t.agent, t.mixer, epsilon, t.last_action) for t in self.teams], self.assign)

    def assign(self, n_envs: int, gen: Generator) -> Tensor:
        """Draw one member for all seats of each lane, long [B, n]."""
        member = torch.randint(self.members, (n_envs, 1), generator=gen, device=gen.device)
        return member.expand(-1, self.n_agents).clone()

    def member(self, name: str) -> Policy:
        """Return team ``name``, "0" to the last, playing greedily."""
        if not name.isdecimal() or int(name) >= self.members:
            raise ConfigError(f"member '{name}' is not known; there are 0..{self.members - 1}")
        team = self.teams[int(name)]
        return EpsilonGreedy(team.agent, team.mixer, 0.0, team.last_action)

    @torch.no_grad()
    def bonus(self, batch: EpisodeBatch) -> Tensor:
        """Return [M, T+1]: ``alpha`` times the mean over agents of -log of the members' mean probability of an
        action."""
        rows = self.teams[0].rows(batch)
        x = self.teams[0].inputs(batch, rows)
        logs = []
        for team in self.teams:
            q = rows.spread(team.agent.along(x, rows)[0]).masked_fill(~batch.avail, -torch.inf)
            scale = self.temperature * (spread(q, batch) if self.relative else 1.0)
            logs.append(gather_actions((q / scale).log_softmax(-1), self.learner.acted(batch, "intended")))
        mean = torch.stack(logs).logsumexp(0) - math.log(self.members)  # [M, T+1, n]
        return torch.where(batch.filled, -self.alpha * mean.mean(2), 0.0)

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        metrics = self.sampled_updates(replay, clock, self.learn)
        return metrics | {"train/epsilon": torch.tensor(self.epsilon(clock.env_steps))} if metrics else {}

    def learn(self, batch: EpisodeBatch) -> Metrics:
        """Update every team on its own episodes of ``batch``, with the bonus."""
        bonus = self.bonus(batch)
        batch = replace(batch, data=batch.data | {"bonus": bonus}, fields=batch.fields | {"bonus": Field(())})
        metrics: Metrics = {}
        for team in self.teams:
            metrics |= team.update(batch)
        return metrics | {"mep/bonus": bonus.sum() / batch.filled.sum()}

    def networks(self) -> dict[str, nn.Module]:
        return {f"{name}_{k}": net for k, team in enumerate(self.teams) for name, net in team.networks().items()}

    def state_dict(self) -> dict[str, Any]:
        return {"teams": [team.state_dict() for team in self.teams]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        saved: Sequence[dict[str, Any]] = state["teams"]
        if len(saved) != len(self.teams):
            raise ConfigError(f"saved with {len(saved)} members; algo.members is {len(self.teams)}")
        for team, own in zip(self.teams, saved, strict=True):
            team.load_state_dict(own)


def spread(q: Tensor, batch: EpisodeBatch) -> Tensor:
    """Return the mean gap, over the living at steps that happened, between the best and the worst available value, 0-d;
    q [M, T+1, n, A] is -inf where an action is not available."""
    gap = q.amax(-1) - q.masked_fill(~batch.avail, torch.inf).amin(-1)  # [M, T+1, n]
    counted = batch.filled[..., None] & (batch.avail.sum(-1) > 1)
    return (torch.where(counted, gap, 0.0).sum() / counted.sum().clamp(min=1)).clamp(min=1e-6)
