"""The distribution of blocked sets, the state features that partners must avoid: p(B) in docs/sbc.md."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from algos.sbc.roles import PARTNER
from marl.core.checks import require_at_least, require_share
from marl.core.distributed import summed, total
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch, Field, Metrics

TRIES = 100  # attempts to sample a pool
RARE = 1e-3  # added to visit frequencies, so that features nobody has met yet are sampled occasionally


class BlockedSets:
    """The distribution of blocked sets, one for every agent and episode: empty with probability ``p_empty``, else
    ``m_min``..``m_max`` features of ``family`` (all sizes equally likely), sampled without replacement with probability
    ~ (visit frequency of partners with an empty set + 0.001) ** ``kappa``.

    ``pool`` limits the family to that many features, chosen at random once (a control that blocks what does not
    matter); None keeps all. Every ``refresh_steps`` steps frequencies are counted afresh, and features whose blocking
    left the team less than ``feasible`` of its return with empty sets get ``doubt`` times their weight. Raises
    ConfigError.
    """

    def __init__(
        self, spec: EnvSpec, *, family: str, m_max: int, p_empty: float, kappa: float, pool: int | None,
        feasible: float, doubt: float, refresh_steps: int, m_min: int = 1,
    ) -> None:  # fmt: skip
        blockable = spec.family(family)
        self.info, self.mask = blockable.info, blockable.mask.clone()  # bool [n, C]
        if not bool(self.mask.any(1).all()):
            raise ConfigError(f"sets.family={family}: there is an agent that meets none of them")
        require_at_least("sets", 1, m_min=m_min, refresh_steps=refresh_steps)
        require_at_least("sets", m_min, m_max=m_max)
        require_at_least("sets", 1, pool=pool, or_null=True)
        require_share("sets", p_empty=p_empty, kappa=kappa, feasible=feasible, doubt=doubt)
        if pool is not None:
            self.mask &= pooled(self.mask, pool)
        self.m_min, self.m_max, self.p_empty, self.kappa = m_min, m_max, p_empty, kappa
        self.feasible, self.doubt, self.refresh_steps = feasible, doubt, refresh_steps
        n, C = self.mask.shape
        self.weight = self.mask.float()  # [n, C]
        self.visits = torch.zeros(n, C, dtype=torch.double)  # steps of partners whose set is empty
        self.earned = torch.zeros(2, n, C, dtype=torch.double)  # sum and number of returns with a feature blocked
        self.free = torch.zeros(2, dtype=torch.double)  # sum and number of returns with nothing blocked
        self.steps = 0

    def fields(self) -> dict[str, Field]:
        n, C = self.mask.shape
        return {self.info: Field((n,), torch.int64), "blocked": Field((n, C), torch.bool, "episode")}

    def draw(self, n_envs: int, gen: Generator) -> Tensor:
        """Sample a blocked set for every agent, bool [B, n, C]."""
        n, C = self.mask.shape
        device = gen.device
        size = torch.randint(self.m_min, self.m_max + 1, (n_envs, n, 1), generator=gen, device=device)
        size[torch.rand(n_envs, n, generator=gen, device=device) < self.p_empty] = 0
        # the largest log-weights with Gumbel noise are a sample without replacement
        noise = -torch.log(torch.empty(n_envs, n, C, device=device).exponential_(generator=gen))
        order = (self.weight.to(device).log() + noise).argsort(2, descending=True).argsort(2)
        return (order < size) & self.mask.to(device)

    def met(self, batch: EpisodeBatch) -> Tensor:
        """Return whether agent i was on a feature of its own blocked set after step t, bool [M, T+1, n]."""
        feature = batch[self.info].transpose(1, 2)  # [M, n, T+1]
        return (batch.blocked.gather(2, feature.clamp(min=0)) & (feature >= 0)).transpose(1, 2)

    def penalty(self, batch: EpisodeBatch) -> Tensor:
        """Return the share of the partners that are on their blocked features, [M, T+1]; 0 without partners."""
        partner = batch.assign == PARTNER
        hits = (self.met(batch) & partner[:, None]).sum(2)
        return hits / partner.sum(1, keepdim=True).clamp(min=1)

    def observe(self, fresh: EpisodeBatch) -> None:
        """Record which features partners met and teams' returns; every ``refresh_steps`` steps refresh the weights."""
        fresh = EpisodeBatch(
            {k: fresh[k].cpu() for k in (self.info, "blocked", "assign", "filled", "reward", "length")}, fresh.fields
        )
        partner = fresh.assign == PARTNER  # [B, n]
        lone = partner & ~fresh.blocked.any(2)
        feature = fresh[self.info]
        counts = (fresh.filled[..., None] & lone[:, None] & (feature >= 0)).double()  # [B, T+1, n]
        self.visits.scatter_add_(1, feature.clamp(min=0).flatten(0, 1).T, counts.flatten(0, 1).T)
        returns = fresh.reward.sum(1).double()  # [B]
        blocked = (fresh.blocked & partner[..., None]).double()  # [B, n, C]
        self.earned += torch.stack([(blocked * returns[:, None, None]).sum(0), blocked.sum(0)])
        nothing = (partner.any(1) & ~blocked.flatten(1).any(1)).double()
        self.free += torch.stack([(nothing * returns).sum(), nothing.sum()])
        self.steps += total(int(fresh.length.sum()))
        if self.steps >= self.refresh_steps:
            self.refresh()

    def refresh(self) -> None:
        """Compute new weights from the counts since the last refresh, and reset the counts."""
        visits, earned, free = (summed(counted) for counted in (self.visits, self.earned, self.free))
        frequency = visits / visits.sum(1, keepdim=True).clamp(min=1.0)
        usual = free[0] / free[1].clamp(min=1.0)
        mean = earned[0] / earned[1].clamp(min=1.0)
        hopeless = (earned[1] > 0) & (mean < self.feasible * usual) & (usual > 0)
        weight = (frequency + RARE) ** self.kappa * torch.where(hopeless, self.doubt, 1.0)
        self.weight = torch.where(self.mask, weight, 0.0).float()
        for counted in (self.visits, self.earned, self.free):
            counted.zero_()
        self.steps = 0

    def metrics(self, fresh: EpisodeBatch) -> Metrics:
        """Return means over the fresh episodes; ``sbc/entropy`` is that of the feature sampled first, in nats."""
        partner = fresh.assign == PARTNER
        hit = self.met(fresh) & fresh.filled[..., None] & (partner & fresh.blocked.any(2))[:, None]
        steps = fresh.filled[..., None] & (partner & fresh.blocked.any(2))[:, None]
        p = (self.weight / self.weight.sum(1, keepdim=True)).clamp(min=1e-12)
        found: Metrics = {"sbc/entropy": -(p * p.log()).sum(1).mean()}
        groups = {
            "self": ~partner.any(1),
            "free": partner.any(1) & ~(fresh.blocked & partner[..., None]).flatten(1).any(1),
            "blocked": (fresh.blocked & partner[..., None]).flatten(1).any(1),
        }
        for name, rows in groups.items():
            if bool(rows.any()):
                found[f"sbc/return_{name}"] = fresh.reward[rows].sum(1).mean()
        if bool(steps.any()):
            found["sbc/pen_rate"] = hit.sum() / steps.sum()
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            "mask": self.mask, "weight": self.weight, "visits": self.visits, "earned": self.earned, "free": self.free,
            "steps": self.steps,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("mask", "weight", "visits", "earned", "free"):
            setattr(self, name, state[name].cpu())
        self.steps = int(state["steps"])


def pooled(mask: Tensor, count: int) -> Tensor:
    """Sample ``count`` of the features, bool [C], until every agent can meet one of them (``mask`` bool [n, C]). Raise
    ConfigError if no such pool is found."""
    for _ in range(TRIES):
        pool = random_features(mask.any(0), count)
        if bool((mask & pool).any(1).all()):
            return pool
    raise ConfigError(f"sets.pool={count}: {TRIES} draws all left an agent nothing that it meets; give more, or null")


def random_features(mask: Tensor, count: int) -> Tensor:
    """Sample ``count`` of the features in ``mask`` bool [C], as bool [C]."""
    there = mask.nonzero().flatten()
    if count > len(there):
        raise ConfigError(f"sets.pool is {count}; the family has {len(there)} features")
    chosen = torch.zeros_like(mask)
    chosen[there[torch.randperm(len(there))[:count]]] = True
    return chosen
