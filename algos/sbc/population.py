"""Best responses to a population of partners who no longer learn. The population defines the method:

FCP (Strouse et al. 2021): several checkpoints of self-play runs. HSP (Yu et al. 2023): runs that were trained for
hidden rewards of events (``algos.sbc.rewards.HiddenReward``). MEP (Zhao et al. 2023): the members of a run of
``algos.sbc.mep.Diverse``, with hard partners prioritised (``priority``). With a single partner it is the best response
that BR-Prox needs (docs/crossplay.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Generator, Tensor

from algos.sbc.ego import Ego, require_shares
from algos.sbc.policies import NoisyPolicy
from algos.sbc.roles import EGO, PARTNER, draw_partners
from algos.sbc.seats import ActorSeats, ValueSeats
from marl.core.checks import require_at_least, require_choice, require_share
from marl.core.protocols import MultiPolicy, Policy, Replay
from marl.core.types import Clock, ConfigError, EnvSpec, EpisodeBatch, Metrics
from marl.learn.actor import Act
from marl.learn.scripted import RandomPlay
from marl.run.build import call
from marl.run.folders import nearest_steps, trained_runs
from marl.run.teams import load_team


def load_members(
    folder: Path, step: int, members: Sequence[str | int] | None, spec: EnvSpec, device: torch.device, gen: Generator,
    act: Act | None = None,
) -> list[Policy]:  # fmt: skip
    """Return the team of a run at ``step``, or the policies of its algorithm that ``members`` names; actors play as
    ``act`` says (None: as they are tested)."""
    team, clock = load_team(folder, "algo.runs", spec, device, gen, step, act)
    if members is None:
        return [team.policy(clock)]
    if not isinstance(team, MultiPolicy):
        raise ConfigError(f"algo.members={list(members)}: {type(team).__name__} of {folder} has one team only")
    return [team.member(str(name)) for name in members]  # a 0 on the command line is a number


def stages(folder: Path, shares: Sequence[float]) -> list[int]:
    """Return the steps of the checkpoints nearest to ``shares`` of a run's training. Raise ConfigError if a share of 0,
    which means an untrained team, would give a trained one."""
    steps = nearest_steps(folder, shares, "algo.runs")
    if 0 in shares and steps[0] != 0:
        raise ConfigError(
            f"algo.runs: {folder} has no checkpoint of step 0, only from {steps[0]:,} on; train it with "
            f"checkpoint.at_start=true, or ask for a share of {steps[0] / steps[-1]:.2g} instead of 0"
        )
    return steps


class Population(Ego):
    """An ego that learns to play with the teams of other runs and with ``policies`` (factories by name), none of which
    learn. They play greedily, actors as ``partners_act`` says (None: as their runs test them), except for random
    actions with a probability sampled from ``partner_epsilon`` for each episode. All partners of an episode belong to
    one team.

    ``runs``: patterns of run folders. ``checkpoints``: fractions of their training at which to take teams. ``members``:
    policies of their algorithm (None: its team). ``alone``: next to partners, the ego plays only one seat.
    ``priority``: team k is sampled with probability ~ rank_k ** priority, where rank 1 is the team with which the ego
    has recently earned most, as in MEP; 0 samples uniformly. ``memory``: the weight of the old value in the running
    mean return with a team. ``random_partner``: adds a team that always acts at random.
    """

    def __init__(
        self, spec: EnvSpec, device: torch.device | str, gen: Generator, *, runs: Sequence[str],
        checkpoints: Sequence[float], members: Sequence[str | int] | None,
        policies: Mapping[str, Callable[..., Policy]], random_partner: bool, alone: bool,
        partner_epsilon: Sequence[float], priority: float, memory: float, partners_act: Act | None = None,
        **base: Any,
    ) -> None:  # fmt: skip
        require_choice("algo", get_args(Act), or_null=True, partners_act=partners_act)
        require_shares("algo", partner_epsilon=partner_epsilon, checkpoints=checkpoints)
        require_share("algo", memory=memory)
        require_at_least("algo", 0, priority=priority)
        super().__init__(spec, device, gen, **base)
        self.priority, self.memory, self.alone = priority, memory, alone
        patterns = [runs] if isinstance(runs, str) else list(runs)
        folders = dict.fromkeys(folder for pattern in patterns for folder in trained_runs(pattern, "algo.runs"))
        teams = [
            team
            for folder in folders
            for step in stages(folder, checkpoints)
            for team in load_members(folder, step, members, spec, self.device, gen, partners_act)
        ]
        teams += [RandomPlay(spec, self.device)] if random_partner else []
        teams += [call(make, f"algo.policies.{name}", spec, self.device) for name, make in policies.items()]
        if not teams:
            raise ConfigError("algo.runs and algo.policies are both empty; name at least one partner")
        self.population: list[Policy] = [NoisyPolicy(team, partner_epsilon) for team in teams]
        self.returns = torch.full(
            (len(teams),), -torch.inf
        )  # recent mean with each team; -inf: never met, hence the hardest

    def partners(self, clock: Clock, ego: Any) -> list[Policy]:
        return self.population

    def weights(self) -> Tensor:
        """Return the probability of each team, [P]."""
        rank = self.returns.argsort(descending=True, stable=True).argsort() + 1
        weight = rank.float() ** self.priority
        return weight / weight.sum()

    def assign(self, n_envs: int, gen: Generator) -> Tensor:
        team = torch.multinomial(self.weights().to(gen.device), n_envs, replacement=True, generator=gen)
        least = self.n_agents - 1 if self.alone else 1
        return draw_partners(n_envs, self.n_agents, self.p_self, gen, least) * (PARTNER + team)[:, None]

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        self.observe(fresh)
        met = self.returns.isfinite()
        worst = {"population/worst": self.returns[met].min()} if bool(met.any()) else {}
        return super().update(replay, fresh, clock) | worst | {"population/met": met.sum()}

    def observe(self, fresh: EpisodeBatch) -> None:
        """Move the running mean return with each team that played towards its mean in the fresh episodes."""
        team, earned = fresh.assign.amax(1).cpu(), fresh.reward.sum(1).cpu()  # [B]
        mine = team != EGO
        count = torch.zeros_like(self.returns).index_add(0, team[mine] - PARTNER, torch.ones_like(earned[mine]))
        total = torch.zeros_like(self.returns).index_add(0, team[mine] - PARTNER, earned[mine])
        mean = total / count.clamp(min=1.0)
        kept = torch.where(self.returns.isfinite(), self.memory * self.returns + (1.0 - self.memory) * mean, mean)
        self.returns = torch.where(count > 0, kept, self.returns)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"returns": self.returns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.returns = state["returns"].cpu()


class BestResponse(Population, ValueSeats):
    """A best response that is a value learner."""


class ActorBestResponse(Population, ActorSeats):
    """A best response that is an actor, as published for all three methods."""
