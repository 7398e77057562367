"""Partners for Multi-Destination Spread that follow a convention: every agent walks straight to a cell of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from envs.grid.mds import DX, DY, MOVES
from marl.core.types import Carry, ConfigError, EnvSpec, Obs
from marl.learn.scripted import Memoryless

# The action that moves by (dx, dy), at [dy + 1, dx + 1].
TOWARDS = torch.tensor([[list(zip(DX, DY, strict=True)).index((dx, dy)) for dx in (-1, 0, 1)] for dy in (-1, 0, 1)])


class Walkers(Memoryless):
    """Agent i walks to ``goals[i]`` = [x, y], diagonally first, and stays there; an agent that is sent back tries
    again.

    Raises ConfigError unless there is one goal on the grid for every agent, and for other games.
    """

    def __init__(self, spec: EnvSpec, device: torch.device | str, *, goals: Sequence[Sequence[int]]) -> None:
        super().__init__(spec, device)
        if spec.action_names != MOVES:
            raise ConfigError("walkers play Multi-Destination Spread only")
        self.size = math.isqrt(spec.state_dim // spec.n_agents)
        if len(goals) != spec.n_agents or not all(len(g) == 2 and 0 <= min(g) and max(g) < self.size for g in goals):
            given = [list(goal) for goal in goals]
            raise ConfigError(f"goals must be {spec.n_agents} cells [x, y] in 0..{self.size - 1}, got {given}")
        self.goals = torch.tensor([list(goal) for goal in goals], device=self.device)  # [n, 2]
        self.towards = TOWARDS.to(self.device)

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        cell = obs.state.unflatten(1, (self.spec.n_agents, -1)).argmax(-1)  # [B, n]
        way = (self.goals - torch.stack([cell % self.size, cell // self.size], -1)).sign() + 1  # [B, n, 2]
        return self.towards[way[..., 1], way[..., 0]], carry, {}
