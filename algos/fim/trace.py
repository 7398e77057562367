"""Eligibility traces over the influenced state features, and the reward that they shape (docs/fim.md)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from marl.core.types import Metrics
from marl.learn.returns import BLOCK

Trace = Literal["off", "shared", "per_agent"]
Form = Literal["gain", "share", "product"]


def traces(influence: Tensor, eta: float) -> Tensor:
    """Return the traces before each step, e[0] = 0, e[t+1] = eta e[t] + influence[t], of influence [M, T, *].

    Within a block of steps the recursion is one product with a (strictly lower) triangular matrix, eta ** (t - 1 - k);
    the trace at the block's first step is added to it, decayed.
    """
    x = influence.flatten(2)
    steps = torch.arange(min(x.shape[1], BLOCK), device=x.device, dtype=x.dtype)
    age = steps[:, None] - steps[None, :] - 1  # [BLOCK, BLOCK]
    decay = torch.where(age >= 0, eta ** age.clamp(min=0), 0.0)
    if x.shape[1] <= BLOCK:
        return (decay @ x).view_as(influence)
    before: list[Tensor] = []  # the traces of the blocks
    first = torch.zeros_like(x[:, :1])  # of the next block
    for block in x.split(BLOCK, 1):
        size = block.shape[1]
        before.append(decay[:size, :size] @ block + eta ** steps[:size, None] * first)
        first = eta * before[-1][:, -1:] + block[:, -1:]
    return torch.cat(before, 1).view_as(influence)


def focus(influence: Tensor, trace: Trace, form: Form, eta: float, kappa: float) -> tuple[Tensor, Tensor]:
    """Weigh influence [M, T, n, C]; return it times its weight [M, T, n, C], and the traces [M, T, n or 1, C].

    gain: w = 1 + kappa e. share: that divided by its mean over the features. product: w is the trace after the step,
    eta e plus this step's influence. Without a trace w = 1.
    """
    felt = influence if trace == "per_agent" else influence.mean(2, keepdim=True)
    e = traces(felt, eta)
    if trace == "off":
        return influence, torch.zeros_like(e)
    if form == "product":
        return (eta * e + felt) * influence, e
    w = 1.0 + kappa * e
    if form == "share":
        w = w / w.mean(-1, keepdim=True)
    return w * influence, e


def team_reward(weighted: Tensor, r_clip: float) -> Tensor:
    """Return the mean over agents of the sum over features, at most ``r_clip``: [M, T, n, C] -> [M, T, 1]."""
    return weighted.sum(-1).mean(-1, keepdim=True).clamp(max=r_clip)


def trace_metrics(e: Tensor, filled: Tensor) -> Metrics:
    """Measure how focused the team is, from traces e [M, T, n or 1, C] and filled bool [M, T].

    ``focus_entropy``: entropy of e over the features, averaged where there is a trace; ``switches``: how often per
    episode the feature with the largest trace changed.
    """
    e = e.mean(2)  # [M, T, C]
    total = e.sum(-1)
    live = filled & (total > 0)
    p = e / total.clamp(min=1e-12)[..., None]
    entropy = -torch.xlogy(p, p).sum(-1)
    top = e.argmax(-1)
    moved = (top[:, 1:] != top[:, :-1]) & live[:, 1:] & live[:, :-1]
    return {
        "fim/trace_max": torch.where(filled[..., None], e, 0.0).amax(),
        "fim/focus_entropy": torch.where(live, entropy, 0.0).sum() / live.sum().clamp(min=1),
        "fim/switches": moved.sum() / len(e),
    }
