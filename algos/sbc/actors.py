"""Actors that learn from some of the seats of a team: PPO on the steps of the agents that play the role."""

from __future__ import annotations

from torch import Generator, Tensor

from algos.sbc.roles import EGO, append_blocked_set
from marl.core.distributed import total
from marl.core.rows import Rows
from marl.core.types import ConfigError, EpisodeBatch, Metrics
from marl.learn.ppo import PPOLearner


class RoleActorLearner(PPOLearner):
    """A PPO learner on the steps of the agents that policy ``plays`` played, by the field ``assign`` long [M, n]. Every
    agent has its own advantage and value, so seats of another role, with another reward, are not mixed in.

    Pieces without such an agent are left out; a batch of only such pieces changes nothing. ``sees_blocked_set``: the
    episode's blocked sets (field ``blocked`` bool [M, n, C]) are appended to observations, the critic's too.
    """

    plays = EGO
    sees_blocked_set = False
    begins = f"begin_{EGO}."

    def take(self, plays: int, *, sees_blocked_set: bool) -> None:
        """Take the role of policy ``plays`` of the lineup. Raise ConfigError if the critic would not see the set."""
        if sees_blocked_set and self.critic.sees == "state":
            raise ConfigError(
                "algo.critic.sees=state: a partner's values depend on its blocked set, which is told with what agents "
                "observe; choose obs or both"
            )
        self.plays, self.sees_blocked_set, self.begins = plays, sees_blocked_set, f"begin_{plays}."

    def known(self, rows: Rows, obs: Tensor) -> Tensor:
        if not self.sees_blocked_set:
            return obs
        return append_blocked_set(obs, rows.of(rows.data["blocked"][:, None].expand(-1, rows.shape[1], -1, -1)))

    def counted(self, rows: Rows) -> Tensor:
        seats = rows.data["assign"] == self.plays
        return super().counted(rows) & rows.of(seats[:, None].expand(-1, rows.shape[1], -1))

    def update(self, batch: EpisodeBatch, entropy_weight: float, lr_share: float, gen: Generator) -> Metrics:
        there = (batch.assign == self.plays).any(1)
        if total(int(there.sum())) == 0:
            return {}
        some = batch.lanes(there) if bool(there.any()) else batch  # torchrun: every rank takes part
        return super().update(some, entropy_weight, lr_share, gen)
