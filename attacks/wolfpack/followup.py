"""Whom the pack hits next: the teammates whose policies a gradient step in response to the first hit would change most.

Lee, Hwang, Jo, Han 2025 (Wolfpack, arXiv 2502.02844), section on follow-up agents: fit the team value of the disturbed
joint action to that of the intended one by one Adam step on the agents' parameters, and compare policies before and
after. Axis letter ``R``: rows, each a moment in some lane at which an attack starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import vmap

from marl.core.optimizers import Adam
from marl.core.protocols import Victim
from marl.core.types import Carry
from marl.learn.learner import gather_actions

Followup = Literal["kl", "l2", "random"]
AttackAction = Literal["local", "exact"]
ADAM_EPS = 1e-8  # the default of torch.optim.Adam
ROWS_AT_ONCE = 32  # their parameters, gradients and stepped parameters fit in a cache of a few MiB


@dataclass
class Moment:
    """The situation in which an attack starts."""

    obs: Tensor  # [R, n, O] as the policy saw it
    state: Tensor  # [R, S]
    carry: Carry  # before ``obs`` was read
    intended: Tensor  # long [R, n]
    executed: Tensor  # long [R, n]: the first agent's action is replaced
    first: Tensor  # long [R]
    candidates: Tensor  # bool [R, n] whom the pack may hit; the first agent never is

    def rows(self, start: int, end: int) -> Moment:
        """Return rows ``start`` .. ``end`` - 1."""
        carry = {name: value[start:end] for name, value in self.carry.items()}
        others = (self.intended, self.executed, self.first, self.candidates)
        return Moment(self.obs[start:end], self.state[start:end], carry, *(x[start:end] for x in others))


def plain_value(victim: Victim, q: Tensor, state: Tensor, actions: Tensor) -> Tensor:
    """Return the team value [*] of the agents' values q [*, n] at ``actions`` long [*, n]; without a mixer, their sum.

    As published, for QPLEX only the part without advantages: there are none if every value counts as the best one.
    """
    return victim.q_total(q, state, actions=actions, q_max=q).sum(-1)


def worst_actions(
    victim: Victim, q: Tensor, state: Tensor, avail: Tensor, intended: Tensor, how: AttackAction
) -> Tensor:
    """Return the most harmful action of every agent while the others act as intended, long [R, n]: q [R, n, A], state
    [R, S], avail bool [R, n, A], intended long [R, n].

    ``local``: least own value, which is the same wherever the team value increases in it. ``exact``: least team value.
    """
    if how == "exact":
        q = _team_values(victim, q, state, avail, intended)
    return q.masked_fill(~avail, torch.inf).argmin(-1)


def _team_values(victim: Victim, q: Tensor, state: Tensor, avail: Tensor, intended: Tensor) -> Tensor:
    """Return [R, n, A]: the team value if this agent alone takes this action instead of the intended one."""
    n, A = q.shape[-2:]
    own = torch.eye(n, dtype=torch.bool, device=q.device)[:, None]  # [n, 1, n]
    each = torch.arange(A, device=q.device)[:, None]  # [A, 1]
    joint = torch.where(own, each, intended[:, None, None])  # [R, n, A, n]
    values = gather_actions(q[:, None, None].expand(*joint.shape, A), joint)
    best = q.masked_fill(~avail, -torch.inf).amax(-1)[:, None, None].expand_as(values)
    states = state[:, None, None].expand(*joint.shape[:-1], -1)
    return victim.q_total(values, states, actions=joint, q_max=best).sum(-1)


def soft_policy(q: Tensor) -> Tensor:
    """Return the log-softmax of standardised values [*, A]; all actions count, available or not."""
    spread = q.std(-1, keepdim=True).clamp(min=1e-8)  # agents without preferences stay uniform
    return ((q - q.mean(-1, keepdim=True)) / spread).log_softmax(-1)


def divergence(q: Tensor, moved: Tensor) -> Tensor:
    """Return the KL [*] of the policy of values ``q`` [*, A] from that of ``moved``."""
    before, after = soft_policy(q), soft_policy(moved)
    return (before.exp() * (before - after)).sum(-1)


@torch.no_grad()
def reactions(victim: Victim, m: Moment, lr: float) -> Tensor:
    """Return the KL [R, n] by which each agent's policy moves.

    Every row has its own fresh optimiser: Adam's first step is ``lr * g / (|g| + eps)`` in closed form.
    """
    rows = range(0, len(m.first), ROWS_AT_ONCE)
    return torch.cat([divergence(*_step(victim, m.rows(r, r + ROWS_AT_ONCE), lr)) for r in rows])


def _step(victim: Victim, m: Moment, lr: float) -> tuple[Tensor, Tensor]:
    """Return values [R, n, A] before and after each row's own step.

    The rows share nothing but where they start, so one backward pass through the sum of their losses gives every row
    its gradient: cheaper than ``vmap`` of ``grad``.
    """
    names, start = zip(*victim.params().items(), strict=True)
    values_with = vmap(victim.q_with)
    with torch.enable_grad():
        rows = [p.detach().expand(len(m.obs), *p.shape).requires_grad_() for p in start]
        q = values_with(dict(zip(names, rows, strict=True)), m.obs, m.carry)
        wanted = plain_value(victim, gather_actions(q.detach(), m.intended), m.state, m.intended).detach()
        loss = (plain_value(victim, gather_actions(q, m.executed), m.state, m.executed) - wanted).square().sum()
    gradients = torch.autograd.grad(loss, rows, allow_unused=True, materialize_grads=True)
    for p, g in zip(start, gradients, strict=True):  # in place: each is as large as the parameters times the rows
        g.div_(g.abs().add_(ADAM_EPS)).mul_(-lr).add_(p)
    return q.detach(), values_with(dict(zip(names, gradients, strict=True)), m.obs, m.carry)


def copy_and_step(victim: Victim, m: Moment, lr: float) -> Tensor:
    """Compute ``reactions`` as published: row by row, with a copy of the parameters, an optimiser and a step. The
    reference for tests and the benchmark."""
    rows = []
    for r in range(len(m.obs)):
        one = m.rows(r, r + 1)
        copy = {name: p.detach().clone().requires_grad_() for name, p in victim.params().items()}
        optimizer = Adam(copy.values(), lr=lr, eps=ADAM_EPS)
        with torch.no_grad():
            q = victim.q_values(one.obs, one.carry)
            y = plain_value(victim, gather_actions(q, one.intended), one.state, one.intended)
        taken = gather_actions(victim.q_with(copy, one.obs, one.carry), one.executed)
        loss = (plain_value(victim, taken, one.state, one.executed) - y).square().sum()
        gradients = torch.autograd.grad(loss, list(copy.values()), allow_unused=True)
        for p, g in zip(copy.values(), gradients, strict=True):
            p.grad = g
        optimizer.step()
        with torch.no_grad():
            rows.append(divergence(q, victim.q_with(copy, one.obs, one.carry)))
    return torch.cat(rows)


def nearness(m: Moment) -> Tensor:
    """Return [R, n]: minus the squared distance of each agent's observation from the first agent's."""
    first = m.obs[torch.arange(len(m.first), device=m.first.device), m.first]  # [R, O]
    return -(m.obs - first.unsqueeze(-2)).square().sum(-1)


def pack(victim: Victim, m: Moment, size: int, how: Followup, lr: float, u: Tensor) -> Tensor:
    """Choose the agents to hit next, bool [R, n]: at most ``size`` candidates. ``u`` [R, n] are uniform numbers
    for ``random``."""
    scores = reactions(victim, m, lr) if how == "kl" else nearness(m) if how == "l2" else u
    allowed = m.candidates.scatter(-1, m.first.unsqueeze(-1), False)
    rank = scores.masked_fill(~allowed, -torch.inf).argsort(dim=-1, descending=True, stable=True).argsort(-1)
    return (rank < size) & allowed
