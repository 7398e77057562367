"""Policies that need no training and are not written for a particular game; they serve as baseline partners."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from marl.core.rolling import AT_RANDOM, Acting
from marl.core.types import Carry, ConfigError, EnvSpec, Obs
from marl.learn.policy import random_available


class Memoryless:
    """The base of policies without memory."""

    def __init__(self, spec: EnvSpec, device: torch.device | str) -> None:
        self.spec, self.device = spec, torch.device(device)

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        return {}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        return carry


class RandomPlay(Memoryless):
    """Plays uniformly random available actions, in evaluation too."""

    def compiled(self, explore: bool) -> Acting:
        return AT_RANDOM

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        return random_available(obs.avail, gen), carry, {}


class Idle(Memoryless):
    """Does nothing whenever the game allows it. Raises ConfigError if the game has no such action."""

    def __init__(self, spec: EnvSpec, device: torch.device | str) -> None:
        if spec.idle_action is None:
            raise ConfigError("this game has no action that means doing nothing")
        super().__init__(spec, device)
        self.idle = spec.idle_action

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        others = obs.avail.long().argmax(-1)  # [B, n]; the dead can do one thing only
        return torch.where(obs.avail[..., self.idle], self.idle, others), carry, {}
