"""The value learner with FoX's penalty on the agents' own heads (docs/fox.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from algos.fox.nets import FoXHeads
from marl.core.checks import require_at_least
from marl.core.distributed import global_count
from marl.core.types import EpisodeBatch, Forward, Metrics
from marl.learn.learner import ValueLearner, best_available


@dataclass
class FoXForward(Forward):
    """A forward pass with the agents' own heads."""

    local: Tensor  # [N, n, A], with gradient


class FoXLearner(ValueLearner):
    """The value learner plus ``local_weight`` times the mean absolute value of the agents' own heads, so that agents
    share what they can (as in CDS; Li et al. 2021). With an agent without such heads it is the base learner."""

    def __init__(self, *args: Any, local_weight: float, **base: Any) -> None:
        require_at_least("learner", 0, local_weight=local_weight)
        self.local_weight = local_weight
        super().__init__(*args, **base)

    def forward(self, batch: EpisodeBatch) -> Forward:
        heads = self.agent.fc_out
        if not isinstance(heads, FoXHeads):
            return super().forward(batch)
        rows = self.rows(batch)
        x = self.inputs(batch, rows)
        q, h = self.agent.along(x, rows)
        with torch.no_grad():
            greedy = best_available(q.detach(), rows["avail"])
            target_v = self.bootstrap(rows, x, greedy)
        return FoXForward(rows, q, h.detach(), target_v, greedy, heads.local(h))

    def losses(self, batch: EpisodeBatch, fwd: Forward, target: Tensor) -> tuple[dict[str, Tensor], Metrics]:
        terms, metrics = super().losses(batch, fwd, target)
        if isinstance(fwd, FoXForward):
            filled = fwd.rows["filled"][:, None, None]
            size = torch.where(filled, fwd.local.abs(), 0.0).sum()
            terms["local"] = self.local_weight * size / global_count(filled.sum() * fwd.local[0].numel())
        return terms, metrics
