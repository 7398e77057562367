"""Rewards that coordination studies add to the team's: bonuses on the way that fade, and hidden wishes of partners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from marl.core.protocols import NoHook
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch, Field, Forward, Metrics


def require_told(spec: EnvSpec, section: str, name: str) -> None:
    if name not in spec.info_names:
        there = ", ".join(spec.info_names) or "nothing"
        raise ConfigError(f"{section}: '{name}' is not told by this environment; it tells {there}")


class Fading(NoHook):
    """Adds the agents' bonuses ``info`` [n] of the environment, summed, times a share that falls from 1 to 0 over the
    first ``steps`` environment steps. Episodes keep the share that they were collected under."""

    def __init__(self, spec: EnvSpec, *, info: str, steps: int) -> None:
        require_told(spec, "hooks", info)
        if steps < 1:
            raise ConfigError(f"hooks: steps is {steps}; it must be at least 1")
        self.info, self.steps, self.n_agents, self.seen = info, steps, spec.n_agents, 0

    def fields(self) -> dict[str, Field]:
        return {self.info: Field((self.n_agents,))}

    def annotate(self, fresh: EpisodeBatch) -> None:
        fresh[self.info].mul_(self.share())
        self.seen += int(fresh.length.sum())

    def share(self) -> float:
        return max(0.0, 1.0 - self.seen / self.steps)

    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor:
        return batch[self.info][:, :-1].sum(2, keepdim=True)

    def update(self, batch: EpisodeBatch, fwd: Forward) -> Metrics:
        return {"reward/bonus_share": torch.tensor(self.share())}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = int(state["seen"])


class HiddenReward(NoHook):
    """HSP's hidden wishes (Yu et al. 2023): the team is paid ``team_weight`` times the reward and, for everything that
    an agent does, a weight. ``info``: what the environment tells, flags bool [n, ``size``] or a number long [n] in
    0..``size``-1 (-1: none), as ``numbered`` says. ``wishes``: by index, values of which one is drawn when a run is
    made; what is not named weighs nothing.
    """

    def __init__(
        self, spec: EnvSpec, *, info: str, size: int, numbered: bool, wishes: Mapping[int, Sequence[float]],
        team_weight: Sequence[float],
    ) -> None:  # fmt: skip
        require_told(spec, "hooks", info)
        for index, values in wishes.items():
            if not 0 <= int(index) < size or len(values) == 0:
                raise ConfigError(f"hooks: wishes.{index} must be an index in 0..{size - 1} with at least one value")
        if len(team_weight) == 0:
            raise ConfigError("hooks: team_weight must have at least one value")
        self.info, self.size, self.numbered, self.n_agents = info, size, numbered, spec.n_agents
        self.weight = torch.zeros(size)
        for index, values in wishes.items():
            self.weight[int(index)] = draw(values)
        self.team_weight = draw(team_weight)

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
        # hooks add to the reward: all of it but team_weight is taken off again
        return wished.sum(2, keepdim=True) + (self.team_weight - 1.0) * batch.reward[:, :-1, None]

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight, "team_weight": self.team_weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight, self.team_weight = state["weight"].cpu(), float(state["team_weight"])


class Unblocked(NoHook):
    """Reports the game's own return where blocked states lower the reward (``envs.wrappers.StateBlock``); training
    stays as it is. Logged as ``reward/unblocked_return``: the mean over the newest episodes."""

    def __init__(self, spec: EnvSpec) -> None:
        require_told(spec, "hooks", "unblocked_reward")
        self.newest = torch.zeros(())

    def fields(self) -> dict[str, Field]:
        return {"unblocked_reward": Field(())}

    def annotate(self, fresh: EpisodeBatch) -> None:
        self.newest = (fresh.unblocked_reward * fresh.filled).sum(1).mean()

    def update(self, batch: EpisodeBatch, fwd: Forward) -> Metrics:
        return {"reward/unblocked_return": self.newest}


def draw(values: Sequence[float]) -> float:
    """One of them, by the generator of network initialisation."""
    return float(values[int(torch.randint(len(values), ()))])
