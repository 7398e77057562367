"""The group's joint action least informative about the others': enumerated if feasible, else by coordinate descent.

Axis letters: ``R`` lanes that are hit, ``K`` candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

TIE = 1e-4  # costs closer than this count as ties, which are broken at random


class Cost(Protocol):
    """The cost [r, K] of candidate joint actions long [r, K, n] for the rows long [r]."""

    def __call__(self, rows: Tensor, candidates: Tensor) -> Tensor: ...


def joint_choices(avail: Tensor, target: Tensor) -> Tensor:
    """Count the joint actions of the targets, long [R]: avail bool [R, n, A], target bool [R, n]."""
    return torch.where(target, avail.sum(-1), 1).prod(-1)


def enumerate_joint(avail: Tensor, target: Tensor, intended: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the first ``count`` joint actions long [R, count, n] of the targets (others do as intended), and which of
    them exist, bool [R, count]."""
    radix = torch.where(target, avail.sum(-1), 1)  # [R, n]
    stride = radix.cumprod(-1) // radix
    number = torch.arange(count, device=avail.device)
    digit = (number[None, :, None] // stride[:, None]) % radix[:, None]  # [R, count, n]
    in_order = avail.byte().argsort(dim=-1, descending=True, stable=True)  # available ones first
    action = in_order.gather(2, digit.transpose(1, 2)).transpose(1, 2)
    return torch.where(target[:, None], action, intended[:, None]), number < radix.prod(-1, keepdim=True)


def pick_least(cost: Tensor, allowed: Tensor, noise: Tensor) -> Tensor:
    """Return the index long [R] of the smallest allowed cost [R, K]; noise [R, K] in [0, 1) breaks ties."""
    return (cost + TIE * noise).masked_fill(~allowed, torch.inf).argmin(1)


def descend(
    cost: Callable[[Tensor], Tensor],
    avail: Tensor,
    target: Tensor,
    start: Tensor,
    order: Tensor,
    noise: Tensor,
) -> Tensor:
    """Change one target's action at a time to the cheapest, never to a costlier one; long [R, n].

    ``order`` long [R, steps]: whose turn it is; ``noise`` [R, steps, A]; ``start`` long [R, n].
    """
    rows, actions = torch.arange(len(start), device=start.device), torch.arange(avail.shape[2], device=start.device)
    now = start
    for k in range(order.shape[1]):
        agent = order[:, k]
        tried = now[:, None].repeat(1, len(actions), 1)  # [R, A, n]
        tried.scatter_(2, agent[:, None, None].expand(-1, len(actions), 1), actions.expand(len(start), -1)[..., None])
        found = cost(tried)
        had = now[rows, agent]
        better = avail[rows, agent] & (found <= found.gather(1, had[:, None]))
        change = pick_least(found, better, noise[:, k])
        now = now.index_put((rows, agent), torch.where(target[rows, agent], change, had))
    return now


class Search:
    """A search that tries all joint actions if there are at most ``limit``; otherwise every target has its turn
    ``sweeps`` times, in random order. ``most``: size of the largest group."""

    def __init__(self, n_agents: int, n_actions: int, most: int, limit: int, sweeps: int) -> None:
        self.limit, self.turns, self.most = limit, sweeps * most, most
        self.tried = min(limit, n_actions**most)
        self.descends = n_actions**most > limit
        self.shape = (n_agents, n_actions)

    @property
    def draws(self) -> int:
        """Return how many uniform numbers a row needs."""
        n, A = self.shape
        return self.tried + (n + self.turns * A if self.descends else 0)

    def __call__(self, cost: Cost, avail: Tensor, target: Tensor, intended: Tensor, u: Tensor) -> Tensor:
        """Return the joint actions found, long [R, n]: avail bool [R, n, A], target bool [R, n], intended long [R, n],
        u [R, draws]."""
        few = joint_choices(avail, target) <= self.limit
        forced = intended.clone()
        rows = few.nonzero().flatten()
        candidates, exist = enumerate_joint(avail[rows], target[rows], intended[rows], self.tried)
        best = pick_least(cost(rows, candidates), exist, u[rows, : self.tried])
        forced[rows] = candidates[torch.arange(len(rows), device=rows.device), best]
        if self.descends:
            forced[~few] = self._descend(cost, (~few).nonzero().flatten(), avail, target, intended, u)
        return forced

    def _descend(self, cost: Cost, rows: Tensor, avail: Tensor, target: Tensor, intended: Tensor, u: Tensor) -> Tensor:
        n, A = self.shape
        lots, noise = u[rows, self.tried :].split([n, self.turns * A], 1)
        turn = lots.masked_fill(~target[rows], 2.0).argsort(-1)[:, : self.most]
        order = turn.repeat(1, self.turns // self.most)
        return descend(
            lambda tried: cost(rows, tried), avail[rows], target[rows], intended[rows], order,
            noise.reshape(len(rows), self.turns, A),
        )  # fmt: skip
