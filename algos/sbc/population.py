"""Best responses to a population of partners who no longer learn. Who is in the population makes the method:

FCP (Strouse et al. 2021): checkpoints at several times of self-play runs. HSP (Yu et al. 2023): runs that were trained
for hidden rewards of events (``algos.sbc.rewards.HiddenReward``). MEP (Zhao et al. 2023): the members of a run of
``algos.sbc.mep.Diverse``, and hard partners first (``priority``). With a single partner it is the best response that
BR-Prox asks for (docs/crossplay.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from algos.sbc.ego import EgoAlgorithm, Noisy, require_probabilities
from algos.sbc.roles import EGO, PARTNER, draw_partners
from marl.core.protocols import Policy, Replay
from marl.core.types import Clock, ConfigError, EnvSpec, EpisodeBatch, Metrics
from marl.learn.policy import EpsilonGreedy
from marl.run import checkpoint
from marl.run.build import call, factory
from marl.run.runs import pick_checkpoint, read_config


def run_folders(patterns: Sequence[str]) -> list[Path]:
    """Run folders that the patterns match, each once; ConfigError where a pattern matches none."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        matches = sorted(path.parent for path in map(Path, glob(f"{pattern}/config.json", recursive=True)))
        if not matches:
            raise ConfigError(f"algo.runs: {pattern} matches no run folder")
        found |= dict.fromkeys(matches)
    return list(found)


def steps_at(folder: Path, shares: Sequence[float]) -> list[int]:
    """Steps of the checkpoints nearest to these shares of the newest one's, each once."""
    pick_checkpoint(folder, None, "algo.runs")  # ConfigError where there is none
    kept = sorted(int(one.name.removeprefix("step_")) for one in checkpoint.folders(folder / "checkpoints"))
    return sorted({min(kept, key=lambda step: abs(step - share * kept[-1])) for share in shares})


def load_members(
    folder: Path, step: int, members: Sequence[str] | None, spec: EnvSpec, device: torch.device, gen: Generator
) -> list[Policy]:
    """The team of a run at ``step``, or those policies of its algorithm that ``members`` names."""
    state = checkpoint.load_state(pick_checkpoint(folder, step, "algo.runs"), device)
    team = call(factory(read_config(folder, "algo.runs").algo, "algo"), "algo", spec, device, gen)
    try:
        team.load_state_dict(state["algo"])
    except RuntimeError as error:  # torch's message lists every tensor
        reason = str(error).splitlines()[-1].strip()
        raise ConfigError(f"algo.runs: {folder} does not fit this environment: {reason}") from error
    clock = Clock()
    clock.load_state_dict(state["clock"])
    if members is None:
        return [team.policy(clock)]
    if not hasattr(team, "member"):
        raise ConfigError(f"algo.members={list(members)}: {type(team).__name__} of {folder} has one team only")
    return [team.member(name) for name in members]


class BestResponse(EgoAlgorithm):
    """The ego learns to play with the teams of other runs, and with ``policies``, factories by name, none of which
    learns; they play greedily, and at random with a probability that each episode draws from ``partner_epsilon``. All
    partners of an episode are one team.

    ``runs``: patterns of run folders. ``checkpoints``: at which shares of their training. ``members``: which policies
    of their algorithm (None: its team). ``alone``: beside partners the ego has one seat, never more. ``priority``: team
    k is drawn with probability ~ rank_k ** priority, rank 1 where the ego has earned most lately, as in MEP; 0:
    uniformly. ``memory``: how much of the mean return with a team is kept when a new one comes in.
    """

    def __init__(
        self, spec: EnvSpec, device: torch.device | str, gen: Generator, *, runs: Sequence[str],
        checkpoints: Sequence[float], members: Sequence[str] | None, policies: Mapping[str, Callable[..., Policy]],
        alone: bool, partner_epsilon: Sequence[float], priority: float, memory: float, **base: Any,
    ) -> None:  # fmt: skip
        require_probabilities("algo", partner_epsilon=partner_epsilon, checkpoints=checkpoints, memory=memory)
        if priority < 0:
            raise ConfigError(f"algo.priority is {priority}; it must be at least 0")
        super().__init__(spec, device, gen, **base)
        self.priority, self.memory, self.alone = priority, memory, alone
        folders = run_folders([runs] if isinstance(runs, str) else list(runs))
        teams = [
            team
            for folder in folders
            for step in steps_at(folder, checkpoints)
            for team in load_members(folder, step, members, spec, self.device, gen)
        ]
        teams += [call(make, f"algo.policies.{name}", spec, self.device) for name, make in policies.items()]
        if not teams:
            raise ConfigError("algo.runs and algo.policies are both empty; name at least one partner")
        self.population: list[Policy] = [Noisy(team, partner_epsilon) for team in teams]
        self.returns = torch.full((len(teams),), -torch.inf)  # lately with each; never met: the hardest

    def partners(self, clock: Clock, ego: EpsilonGreedy) -> list[Policy]:
        return self.population

    def weights(self) -> Tensor:
        """[P]: the probability of each team."""
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
        """Mean return with each team that was met, into the running mean."""
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
