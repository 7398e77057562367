"""IBAL's score tensor: how much each feature of each agent's next observation tells about each other agent's action,
and which features a split of the team therefore hides.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marl.types import EnvSpec


class Scores:
    """Running means of I(o^i_d; a^j | z) over minibatches, with forgetting ``rate``; [n, n, O], zero for i = j.

    A pair that a minibatch does not hold keeps its value. ``weight`` [n, n] is the mean of ones under the same rule:
    dividing by it removes what the start at zero takes away.
    """

    def __init__(self, n_agents: int, obs_dim: int, rate: float, device: torch.device) -> None:
        self.rate = rate
        self.total = torch.zeros(n_agents, n_agents, obs_dim, device=device)
        self.weight = torch.zeros(n_agents, n_agents, device=device)

    def add(self, scores: Tensor, i: Tensor, j: Tensor) -> None:
        """scores [R, O] of observers long [R] and actors long [R]; negative means count as zero."""
        n = len(self.weight)
        pair = i * n + j
        count = torch.bincount(pair, minlength=n * n).view(n, n)
        mean = torch.zeros_like(self.total.flatten(0, 1)).index_add_(0, pair, scores).view_as(self.total)
        mean = (mean / count.clamp(min=1)[..., None]).clamp(min=0.0)
        step = self.rate * (count > 0)
        self.total += step[..., None] * (mean - self.total)
        self.weight += step * (1.0 - self.weight)

    def value(self) -> Tensor:
        """[n, n, O] in nats; 0 for pairs never seen."""
        return torch.where(self.weight[..., None] > 0, self.total / self.weight[..., None], 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.weight = state["total"].to(self.total.device), state["weight"].to(self.weight.device)


def above_floor(scores: Tensor, maskable: Tensor) -> Tensor:
    """scores [n, n, O] less each pair's median over what may be hidden (maskable bool [n, O])."""
    shown = scores.masked_fill(~maskable[:, None], torch.nan)
    return scores - shown.nanmedian(-1, keepdim=True).values.nan_to_num()


def across(scores: Tensor, group: Tensor, symmetric: bool) -> Tensor:
    """S [B, n, O]: each agent's scores [n, n, O] summed over the agents on the other side of its group bool [B, n].

    Not ``symmetric``: zero for agents outside the group.
    """
    apart = group[:, :, None] != group[:, None, :]  # [B, n, n]
    if not symmetric:
        apart = apart & group[:, :, None]
    return torch.einsum("bij,ijd->bid", apart.to(scores.dtype), scores)


def largest(scores: Tensor, count: Tensor, maskable: Tensor) -> Tensor:
    """The ``count`` long [B, n] largest positive scores [B, n, O] among maskable bool [n, O]; bool [B, n, O]."""
    scores = torch.where(maskable, scores, -torch.inf)
    rank = scores.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    return (rank < count[..., None]) & (scores > 0)


def hidden_features(group: Tensor, n_masked: int | None, per_agent: bool, spec: EnvSpec) -> Tensor:
    """How many features to hide from each agent, long [B, n], 0 where nobody is on the other side of group bool [B, n].

    ``n_masked``, with ``per_agent`` times the size of the other side; null: what describes one other agent on average,
    times half the other side (rounded up), or a fifth of the features where nobody knows what they describe.
    """
    n = group.shape[1]
    inside = group.sum(1, keepdim=True)
    opposite = torch.where(group, n - inside, inside)
    if n_masked is not None:
        return opposite * n_masked if per_agent else (opposite > 0) * n_masked
    if spec.about is None:
        return (opposite > 0) * -(-spec.obs_dim // 5)
    others = ~torch.eye(n, dtype=torch.bool)
    describing = float(spec.about[others].sum(-1).float().mean())
    return ((opposite + 1) // 2 * describing).round().long()


def own_features(spec: EnvSpec) -> Tensor:
    """bool [n, O]: features that describe the observer itself; ConfigError is the caller's where nobody knows."""
    assert spec.about is not None
    agents = torch.arange(spec.n_agents)
    return spec.about[agents, agents]


def table(scores: Tensor, floored: Tensor, masked: Tensor, spec: EnvSpec) -> list[list[Any]]:
    """Rows (observer, feature, described agent, actor, score, score above floor, hidden when the actor is the other
    side): all [n, n, O] by (observer, actor, feature)."""
    names = spec.obs_names or tuple(f"feature {d}" for d in range(spec.obs_dim))
    rows = []
    for i in range(spec.n_agents):
        for j in (j for j in range(spec.n_agents) if j != i):
            for d, name in enumerate(names):
                about = [] if spec.about is None else spec.about[i, :, d].nonzero().flatten().tolist()
                described = " ".join(str(agent) for agent in about)
                value, above = f"{float(scores[i, j, d]):.6g}", f"{float(floored[i, j, d]):.6g}"
                rows.append([i, name, described, j, value, above, int(masked[i, j, d])])
    return rows


def write_table(rows: Sequence[Sequence[Any]], path: Path) -> None:
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["observer", "feature", "describes", "actor", "nats", "above_floor", "hidden"])
        writer.writerows(rows)


def draw(scores: Tensor, masked: Tensor, spec: EnvSpec, path: Path) -> None:
    """Heat map: one row per feature, one column per (observer, actor); crosses where the feature is hidden."""
    from matplotlib.figure import Figure

    n, names = spec.n_agents, spec.obs_names or tuple(f"feature {d}" for d in range(spec.obs_dim))
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    values = torch.stack([scores[i, j] for i, j in pairs], 1).cpu().numpy()  # [O, pairs]
    figure = Figure(figsize=(3.0 + 0.3 * len(pairs), 1.5 + 0.17 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=0.0)
    hidden = torch.stack([masked[i, j] for i, j in pairs], 1).nonzero()
    axes.plot(hidden[:, 1].tolist(), hidden[:, 0].tolist(), "x", color="red", markersize=5)
    axes.set_xticks(range(len(pairs)), [f"{i}<{j}" for i, j in pairs], rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("observer < actor; x: hidden when the actor alone is the other side")
    figure.colorbar(image, ax=axes, label="nats")
    figure.savefig(path, dpi=110)
