"""Rewards that coordination studies add to the team's: fading shaped rewards, and hidden preferences of partners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from algos.sbc.roles import PARTNER
from algos.shared.features import require_info
from marl.core.checks import require_at_least, require_choice
from marl.core.distributed import total
from marl.core.protocols import NoHook
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch, Field, Forward, Metrics

Paid = Literal["own", "all"]


class Fading(NoHook):
    """A hook that adds the agents' shaped rewards ``info`` [n] of the environment, times a factor that falls from 1 to
    0 over the first ``steps`` environment steps. Episodes keep the factor they were collected with. ``paid_for``: all
    pays everyone the sum over agents; own pays each agent its own, where every agent has a value (actors)."""

    def __init__(self, spec: EnvSpec, *, info: str, steps: int, paid_for: Paid = "all") -> None:
        require_info(spec, "hooks", info)
        require_at_least("hooks", 1, steps=steps)
        require_choice("hooks", get_args(Paid), paid_for=paid_for)
        self.info, self.steps, self.n_agents, self.seen = info, steps, spec.n_agents, 0
        self.paid_for = paid_for

    def fields(self) -> dict[str, Field]:
        return {self.info: Field((self.n_agents,))}

    def annotate(self, fresh: EpisodeBatch) -> None:
        fresh[self.info].mul_(self.share())
        self.seen += total(int(fresh.length.sum()))

    def share(self) -> float:
        return max(0.0, 1.0 - self.seen / self.steps)

    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor:
        bonus = batch[self.info][:, :-1]
        return bonus if self.paid_for == "own" else bonus.sum(2, keepdim=True)

    def update(self, batch: EpisodeBatch, fwd: Forward) -> Metrics:
        return {"reward/bonus_share": torch.tensor(self.share())}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = int(state["seen"])


class HiddenReward(NoHook):
    """HSP's hidden preferences (Yu et al. 2023): ``team_weight`` times the reward plus a weight for each event of an
    agent. ``info`` names the events in ``Step.info``: flags bool [n, ``size``], or with ``numbered`` a number long [n]
    in 0..``size``-1 (-1: none). ``wishes`` maps events to values, one of which is sampled as their weight when a run is
    made; other events have weight 0. ``paid_for``: own, the events of the seats that the wishing policy plays
    (``algos.sbc.wishing.Wishing``); all, the sum over every agent's events, paid to one team.
    """

    def __init__(
        self, spec: EnvSpec, *, info: str, size: int, numbered: bool, wishes: Mapping[int, Sequence[float]],
        team_weight: Sequence[float], paid_for: Paid,
    ) -> None:  # fmt: skip
        require_info(spec, "hooks", info)
        for index, values in wishes.items():
            if not 0 <= int(index) < size or len(values) == 0:
                raise ConfigError(f"hooks: wishes.{index} must be an index in 0..{size - 1} with at least one value")
        require_choice("hooks", get_args(Paid), paid_for=paid_for)
        if len(team_weight) == 0:
            raise ConfigError("hooks: team_weight must have at least one value")
        self.info, self.size, self.numbered, self.n_agents = info, size, numbered, spec.n_agents
        self.paid_for = paid_for
        self.weight = torch.zeros(size)
        for index, values in wishes.items():
            self.weight[int(index)] = draw_one(values)
        self.team_weight = draw_one(team_weight)

    def fields(self) -> dict[str, Field]:
        shape = (self.n_agents,) if self.numbered else (self.n_agents, self.size)
        return {self.info: Field(shape, torch.int64 if self.numbered else torch.bool)}

    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor:
        done = batch[self.info][:, :-1]
        weight = self.weight.to(done.device)
        if self.numbered:
            wished = torch.where(done >= 0, weight[done.clamp(min=0)], 0.0)  # [M, T, n]
        else:
            wished = done.float() @ weight
        if self.paid_for == "own":
            wished = wished * (batch.assign == PARTNER)[:, None]
        # hooks add to the reward, so the part that is not paid is subtracted
        return wished.sum(2, keepdim=True) + (self.team_weight - 1.0) * batch.reward[:, :-1, None]

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight, "team_weight": self.team_weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight, self.team_weight = state["weight"].cpu(), float(state["team_weight"])


class Against(NoHook):
    """A hook that negates the reward, so that a best response to a team learns to harm it."""

    def __init__(self, spec: EnvSpec) -> None:
        pass

    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor:
        return -2.0 * batch.reward[:, :-1, None]  # hooks add to the reward


class Unblocked(NoHook):
    """A hook that logs the game's own return where blocked states lower the reward (``envs.wrappers.StateBlock``), as
    ``reward/unblocked_return``, the mean over the newest episodes. Training is unchanged."""

    def __init__(self, spec: EnvSpec) -> None:
        require_info(spec, "hooks", "unblocked_reward")
        self.newest = torch.zeros(())

    def fields(self) -> dict[str, Field]:
        return {"unblocked_reward": Field(())}

    def annotate(self, fresh: EpisodeBatch) -> None:
        self.newest = (fresh.unblocked_reward * fresh.filled).sum(1).mean()

    def update(self, batch: EpisodeBatch, fwd: Forward) -> Metrics:
        return {"reward/unblocked_return": self.newest}


def draw_one(values: Sequence[float]) -> float:
    """Sample one of the values with torch's global generator, which also initialises networks."""
    return float(values[int(torch.randint(len(values), ()))])
