"""Weighted QMIX fits a monotonic team value mostly to good joint actions, with targets from an unrestricted value.

Rashid et al. 2020, "Weighted QMIX: Expanding Monotonic Value Function Factorisation". CW-QMIX gives full
weight to joint actions that are the greedy one or look better than it, OW-QMIX to underestimated ones.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import Tensor

from algos.shared.central import CentralForward, CentralLearner, is_joint, wqmix_weight
from marl.core.checks import require_choice, require_share
from marl.core.types import EpisodeBatch, Forward, Metrics
from marl.learn.learner import masked_mean, td_metrics, team_value

Rule = Literal["cw", "ow"]


class WQMixLearner(CentralLearner):
    """A ``CentralLearner`` that weighs the errors of the team value. ``rule``: cw (centrally weighted) or ow
    (optimistically weighted); ``w``: the weight of the other joint actions (alpha in the paper)."""

    def __init__(self, *args: Any, rule: Rule, w: float, **base: Any) -> None:
        require_choice("learner", get_args(Rule), rule=rule)
        require_share("learner", w=w)
        self.rule, self.w = rule, w
        super().__init__(*args, **base)

    def losses(self, batch: EpisodeBatch, fwd: Forward, target: Tensor) -> tuple[dict[str, Tensor], Metrics]:
        assert isinstance(fwd, CentralForward)
        rows = fwd.rows
        filled, actions, target = rows["filled"][:, None], self.taken(rows), rows.of(target)
        q_total = team_value(self.mixer, fwd.row_q, fwd.row_greedy, actions, rows["state"])
        q_star = self.central_taken(fwd)
        delta, is_greedy = q_total - target, is_joint(actions, fwd.row_greedy)
        weight = wqmix_weight(self.rule, self.w, delta.detach(), target, fwd.central_v, is_greedy)
        terms = {
            "td": masked_mean(weight * delta.square(), filled),
            "central": masked_mean((q_star - target).square(), filled),
        }
        metrics = td_metrics(q_total, target, filled)
        metrics["wqmix/full_weight_frac"] = masked_mean((weight == 1.0).float(), filled)
        return terms, metrics
