"""The first stage of MEP, "Maximum Entropy Population-Based Training for Zero-Shot Human-AI Coordination" (Zhao et al.
2023): a population learns self-play with a bonus for actions that are rare in the population."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from algos.sbc.seats import ActorSeats, Seats, ValueSeats
from marl.core.checks import require_at_least, require_positive
from marl.core.protocols import NoHook, Policy
from marl.core.types import Clock, ConfigError, EnvSpec, EpisodeBatch, Field, Forward, Metrics
from marl.learn.actor import log_policy
from marl.learn.agents import FeedForwardAgent
from marl.learn.learner import gather_actions
from marl.learn.lineup import Lineup


class DiversityBonus(NoHook):
    """A hook that adds the ``bonus`` [M, T+1] that ``DiverseTeams.learn`` has put into the batch."""

    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor:
        return batch.bonus[:, :-1, None]


class DiverseTeams(Seats):
    """A population of ``members`` teams, each of which plays every seat of its own episodes. They learn from the reward
    plus ``alpha`` times the mean over agents of ``-log p(a)``, where p is the members' mean policy over available
    actions. Tests sample a member for every episode; ``member(k)`` is team k.
    """

    def __init__(self, *args: Any, members: int, alpha: float, **base: Any) -> None:
        require_at_least("algo", 2, members=members)
        require_at_least("algo", 0, alpha=alpha)
        self.members, self.alpha = members, alpha
        super().__init__(*args, **base)

    @abstractmethod
    def log_policies(self, batch: EpisodeBatch) -> Iterator[Tensor]:
        """Yield every team's log probabilities of actions [M, T+1, n, A], -inf where unavailable."""

    def make_learner(self, spec: EnvSpec, make: Any) -> Any:
        self.n_agents, hooks = spec.n_agents, [*self.hooks, DiversityBonus()]
        self.teams = [self.role(spec, make, hooks, k) for k in range(self.members)]
        return self.teams[0]

    def policy(self, clock: Clock) -> Lineup:
        return Lineup([self.play(team, clock) for team in self.teams], self.assign)

    def assign(self, n_envs: int, gen: Generator) -> Tensor:
        """Sample one member for all seats of each lane, long [B, n]."""
        member = torch.randint(self.members, (n_envs, 1), generator=gen, device=gen.device)
        return member.expand(-1, self.n_agents).clone()

    def member(self, name: str) -> Policy:
        """Return team ``name``, "0" to the last, as it plays without exploring."""
        if not name.isdecimal() or int(name) >= self.members:
            raise ConfigError(f"member '{name}' is not known; there are 0..{self.members - 1}")
        return self.play(self.teams[int(name)], Clock())

    @torch.no_grad()
    def bonus(self, batch: EpisodeBatch) -> Tensor:
        """Return [M, T+1]: ``alpha`` times the mean over agents of -log of the members' mean probability of an
        action."""
        actions = batch.intended.long()
        logs = [gather_actions(log_p, actions) for log_p in self.log_policies(batch)]
        mean = torch.stack(logs).logsumexp(0) - math.log(self.members)  # [M, T+1, n]
        return torch.where(batch.filled, -self.alpha * mean.mean(2), 0.0)

    def learn(self, batch: EpisodeBatch, clock: Clock) -> Metrics:
        """Update every team on its own episodes of ``batch``, with the bonus."""
        bonus = self.bonus(batch)
        batch = replace(batch, data=batch.data | {"bonus": bonus}, fields=batch.fields | {"bonus": Field(())})
        metrics: Metrics = {}
        for team in self.teams:
            metrics |= self.fit(team, batch, clock)
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


class Diverse(DiverseTeams, ValueSeats):
    """Teams of value learners, which have no stochastic policies: softmax(Q / ``temperature``) stands in for them.

    ``relative``: the temperature is in units of the gap between a member's best and worst available values, averaged
    over the batch; otherwise in units of return.
    """

    def __init__(self, *args: Any, temperature: float, relative: bool, **base: Any) -> None:
        require_positive("algo", temperature=temperature)
        self.temperature, self.relative = temperature, relative
        super().__init__(*args, **base)

    def log_policies(self, batch: EpisodeBatch) -> Iterator[Tensor]:
        rows = self.teams[0].rows(batch)
        x = self.teams[0].inputs(batch, rows)
        for team in self.teams:
            q = rows.spread(team.agent.along(x, rows)[0]).masked_fill(~batch.avail, -torch.inf)
            yield (q / (self.temperature * (spread(q, batch) if self.relative else 1.0))).log_softmax(-1)


class ActorDiverse(DiverseTeams, ActorSeats):
    """Teams of actors, whose own policies are compared, as published."""

    @property
    def whole_because(self) -> str | None:
        """Return why it cannot learn from parts of episodes, or None if it can: only the member that plays remembers
        what preceded a part."""
        agent = self.teams[0].agent
        if isinstance(agent, FeedForwardAgent) and not agent.last_action:
            return None
        return (
            "members that do not play remember nothing of an episode's beginning (those of agent@algo.agent=mlp with "
            "algo.agent.last_action=false need not)"
        )

    def log_policies(self, batch: EpisodeBatch) -> Iterator[Tensor]:
        rows = self.teams[0].rows(batch)
        for team in self.teams:
            logits, _ = team.agent.along(team.inputs(batch, rows), rows, team.start(batch, rows))
            yield log_policy(rows.spread(logits), batch.avail)


def spread(q: Tensor, batch: EpisodeBatch) -> Tensor:
    """Return the mean gap between the best and the worst available value, 0-d, over agents that have a choice at filled
    steps; q [M, T+1, n, A] is -inf where an action is not available."""
    gap = q.amax(-1) - q.masked_fill(~batch.avail, torch.inf).amin(-1)  # [M, T+1, n]
    counted = batch.filled[..., None] & (batch.avail.sum(-1) > 1)
    return (torch.where(counted, gap, 0.0).sum() / counted.sum().clamp(min=1)).clamp(min=1e-6)
