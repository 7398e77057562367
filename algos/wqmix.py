"""Weighted QMIX: a monotonic team value fitted mostly to the good joint actions, on targets of an unrestricted value.

Rashid et al. 2020, "Weighted QMIX: Expanding Monotonic Value Function Factorisation". CW-QMIX weighs by whether a
joint action is, or looks better than, the greedy one; OW-QMIX by whether it is underestimated.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from algos.shared.central import (
    CentralForward,
    CentralLearner,
    is_joint,
    masked_mean,
    one_of,
    within_unit,
    wqmix_weight,
)
from marl.core.types import EpisodeBatch, Forward, Metrics
from marl.learn.learner import td_metrics, team_value


class WQMixLearner(CentralLearner):
    """``rule``: cw (centrally weighted) or ow (optimistically weighted); ``w``: weight of the other joint actions
    (alpha in the paper)."""

    def __init__(self, *args: Any, rule: Literal["cw", "ow"], w: float, **base: Any) -> None:
        one_of("learner.rule", rule, ("cw", "ow"))
        within_unit("learner.w", w)
        self.rule, self.w = rule, w
        super().__init__(*args, **base)

    def losses(self, batch: EpisodeBatch, fwd: Forward, target: Tensor) -> tuple[dict[str, Tensor], Metrics]:
        assert isinstance(fwd, CentralForward)
        filled, actions = batch.filled[:, :-1, None], self.acted(batch, self.act_on)[:, :-1]
        q_total = team_value(self.mixer, fwd.q, fwd.greedy, actions, batch.state)
        q_star = self.central_taken(batch, fwd)
        delta, is_greedy = q_total - target, is_joint(actions, fwd.greedy[:, :-1])
        weight = wqmix_weight(self.rule, self.w, delta.detach(), target, fwd.central_v[:, :-1], is_greedy)
        terms = {
            "td": masked_mean(weight * delta.square(), filled),
            "central": masked_mean((q_star - target).square(), filled),
        }
        metrics = td_metrics(q_total, target, filled)
        metrics["wqmix/full_weight_frac"] = masked_mean((weight == 1.0).float(), filled)
        return terms, metrics
