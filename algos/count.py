"""Count bonus: a team is paid scale / sqrt(N(s')) for reaching states that it has rarely visited.

Strehl & Littman 2008 (MBIE-EB), with states identified by a hash as in Tang et al. 2017, "#Exploration".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from algos.shared.features import matching
from marl.core.checks import require_at_least, require_positive
from marl.core.protocols import NoHook
from marl.core.seeding import derive
from marl.core.types import EnvSpec, EpisodeBatch, Field, Forward, Metrics

TABLE = 1 << 20  # cells; when states fill a tenth of them, one in twenty shares its cell


class CountBonus(NoHook):
    """A hook that pays for rare states. The features ``features`` (patterns: ``algos.shared.features.matching``) are
    rounded to ``1 / resolution``; states that are equal after rounding are one state. Visits are counted once, at
    collection; the bonus is computed when a batch is sampled, so it is never stale. Under torchrun each rank counts its
    own episodes.
    """

    def __init__(self, spec: EnvSpec, *, scale: float, resolution: float, features: list[str]) -> None:
        require_at_least("count", 0, scale=scale)
        require_positive("count", resolution=resolution)
        self.scale, self.resolution = scale, resolution
        self.dims = matching(spec, features, "count.features").nonzero().flatten()
        gen = torch.Generator().manual_seed(derive(torch.initial_seed(), "count"))
        self.factors = torch.randint(1 << 62, (len(self.dims),), generator=gen) * 2 + 1
        self.counts = torch.zeros(TABLE, dtype=torch.long)

    def fields(self) -> dict[str, Field]:
        return {"count_cell": Field((), torch.int32)}

    def cells(self, state: Tensor) -> Tensor:
        """Return the table cell of every state: [*, S] -> long [*]."""
        rounded = (state[..., self.dims] * self.resolution).round().long()
        mixed = (rounded * self.factors).sum(-1)  # int64 wraps around, as multiplicative hashing needs
        return (mixed >> 32) & (TABLE - 1)

    def annotate(self, fresh: EpisodeBatch) -> None:
        """Store the cell of every state and count the states that a step led to."""
        cells = self.cells(fresh.state.cpu())  # [B, T+1]
        fresh.data["count_cell"] = cells.to(fresh.state.device, torch.int32)
        visited = cells[:, 1:][fresh.filled[:, :-1].cpu()].to(self.counts.device)
        self.counts += torch.bincount(visited, minlength=TABLE)

    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor | float:
        """Return the bonus [M, T, 1] of the states that steps led to."""
        self.counts = self.counts.to(batch.state.device)
        visits = self.counts[batch.count_cell[:, 1:].long()].clamp(min=1)
        bonus = self.scale / visits.float().sqrt()
        self.bonus = torch.where(batch.filled[:, :-1], bonus, 0.0)  # [M, T]
        return self.bonus[..., None]

    def update(self, batch: EpisodeBatch, fwd: Forward) -> Metrics:
        return {"count/bonus": self.bonus.sum() / len(batch), "count/cells": (self.counts > 0).sum().float()}

    def state_dict(self) -> dict[str, Any]:
        return {"counts": self.counts, "factors": self.factors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counts, self.factors = state["counts"], state["factors"].cpu()
