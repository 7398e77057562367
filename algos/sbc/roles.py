"""Learning from some of the seats of a team: the value learner with a mask of the agents whose values it fits.

Values of agents that play another role, under another reward, are never mixed in (docs/sbc.md).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from marl.core.distributed import global_count, total
from marl.core.rows import Rows
from marl.core.types import EnvSpec, EpisodeBatch, Forward, Metrics
from marl.learn.learner import ValueLearner, best_available, gather_actions
from marl.learn.mixers import Mixer

EGO, PARTNER = 0, 1  # numbers of policies in the field ``assign``


def with_roles(spec: EnvSpec) -> EnvSpec:
    """Return the spec for mixers, which read the state and a mask of the agents that play the role."""
    return replace(spec, state_dim=spec.state_dim + spec.n_agents, state_names=())


def draw_partners(n_envs: int, n_agents: int, p_self: float, gen: Generator, least: int = 1) -> Tensor:
    """Sample the seats of partners, bool [B, n]: none with probability ``p_self``, else ``least``..n-1 of them, all
    numbers and all seats equally likely."""
    count = torch.randint(least, n_agents, (n_envs, 1), generator=gen, device=gen.device)
    count[torch.rand(n_envs, generator=gen, device=gen.device) < p_self] = 0
    order = torch.rand(n_envs, n_agents, generator=gen, device=gen.device).argsort(1).argsort(1)
    return order < count


class RoleLearner(ValueLearner):
    """A value learner for the agents that policy ``plays`` played, by the field ``assign`` long [M, n]; for these m_i
    is 1: VDN ``sum_i m_i Q_i``, QMIX ``mix({m_i Q_i}, [s, m])``, without a mixer the TD errors of these agents alone.
    Episodes without such an agent are left out; a batch of only such episodes changes nothing.

    ``sees_blocked_set``: the episode's blocked sets (field ``blocked`` bool [M, n, C]) are appended to observations.
    The mixer is made for ``with_roles(spec)``.
    """

    plays = EGO
    sees_blocked_set = False

    def take(self, plays: int, *, sees_blocked_set: bool) -> None:
        """Take the role of policy ``plays`` of the lineup."""
        self.plays, self.sees_blocked_set = plays, sees_blocked_set

    def mask(self, batch: EpisodeBatch) -> Tensor:
        """Return m, which agents play the role, bool [M, n]."""
        return batch.assign == self.plays

    def observed(self, batch: EpisodeBatch, last: Tensor) -> Tensor:
        obs = super().observed(batch, last)
        if not self.sees_blocked_set:
            return obs
        return append_blocked_set(obs, batch.blocked[:, None].expand(-1, batch.horizon + 1, -1, -1))

    def row_mask(self, rows: Rows) -> Tensor:
        """Return m for each row, bool [N, n]."""
        return rows.of((rows.data["assign"] == self.plays)[:, None].expand(-1, rows.shape[1], -1))

    def mixed(self, mixer: Mixer, rows: Rows, q: Tensor, greedy: Tensor, actions: Tensor) -> Tensor:
        """Return the role's team value [N, m] from q [N, n, A] and greedy and taken actions long [N, n]."""
        m = self.row_mask(rows).to(q.dtype)
        taken, best = gather_actions(q, actions), gather_actions(q, greedy)
        return mixer(taken * m, torch.cat([rows["state"], m], -1), actions=actions, q_max=best * m)

    def bootstrap(self, rows: Rows, x: Tensor, greedy: Tensor) -> Tensor:
        target_q, _ = self.target_agent.along(x, rows)
        best = best_available(target_q, rows["avail"])
        return self.mixed(self.target_mixer, rows, target_q, best, greedy if self.double_q else best)

    def losses(self, batch: EpisodeBatch, fwd: Forward, target: Tensor) -> tuple[dict[str, Tensor], Metrics]:
        rows, target = fwd.rows, fwd.rows.of(target)
        chosen = self.mixed(self.mixer, rows, fwd.row_q, fwd.row_greedy, self.taken(rows))  # [N, m]
        mask = self.row_mask(rows)
        counted = rows["filled"][:, None] & (mask if self.mixer.outputs > 1 else mask.any(1, keepdim=True))
        error = torch.where(counted, chosen - target, 0.0)
        with torch.no_grad():
            mean = 1.0 / counted.sum().clamp(min=1)
            metrics = {
                "q/taken": torch.where(counted, chosen, 0.0).sum() * mean,
                "q/target": torch.where(counted, target, 0.0).sum() * mean,
                "q/td_abs": error.abs().sum() * mean,
            }
        return {"td": error.square().sum() / global_count(counted.sum())}, metrics

    def update(self, batch: EpisodeBatch) -> Metrics:
        rows = self.mask(batch).any(1)
        if total(int(rows.sum())) == 0:
            return {}
        return super().update(batch.lanes(rows) if bool(rows.any()) else batch)  # torchrun: every rank takes part


def append_blocked_set(obs: Tensor, blocked: Tensor) -> Tensor:
    """Append blocked sets bool [*, n, C] to observations [*, n, O], as partners read them -> [*, n, O + C]."""
    return torch.cat([obs, blocked.to(obs.dtype)], -1)


def with_blocked_set(spec: EnvSpec, features: int) -> EnvSpec:
    """Return the spec for a partner's networks, whose observations end in a blocked set of ``features`` flags."""
    low, high = (torch.cat([bound, bound.new_full((features,), end)]) for bound, end in
                 ((spec.obs_low, 0.0), (spec.obs_high, 1.0)))  # fmt: skip
    return replace(
        spec, obs_dim=spec.obs_dim + features, obs_low=low, obs_high=high, about=None, obs_names=(), blockable={}
    )
