"""IBAL's score tensor: how informative each feature of each agent's next observation is about each other agent's
action, and which features are therefore hidden when the team is split.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marl.core.types import EnvSpec
from marl.run.files import save_figure, write_atomic
from marl.show.labels import plain

PANELS = 8  # observers in the picture; the table has them all


class Scores:
    """Running means of I(o^i_d; a^j | z) over minibatches, with forgetting ``rate``; [n, n, O], zero for i = j.

    A pair that does not occur in a minibatch keeps its value. ``weight`` [n, n] is the mean of ones under the same
    rule: dividing by it removes the bias from starting at zero.
    """

    def __init__(self, n_agents: int, obs_dim: int, rate: float, device: torch.device) -> None:
        self.rate = rate
        self.total = torch.zeros(n_agents, n_agents, obs_dim, device=device)
        self.weight = torch.zeros(n_agents, n_agents, device=device)

    def add(self, scores: Tensor, i: Tensor, j: Tensor) -> None:
        """Add scores [R, O] of observers long [R] and actors long [R]; negative means count as zero."""
        n = len(self.weight)
        pair = i * n + j
        count = torch.bincount(pair, minlength=n * n).view(n, n)
        mean = torch.zeros_like(self.total.flatten(0, 1)).index_add_(0, pair, scores).view_as(self.total)
        mean = (mean / count.clamp(min=1)[..., None]).clamp(min=0.0)
        step = self.rate * (count > 0)
        self.total += step[..., None] * (mean - self.total)
        self.weight += step * (1.0 - self.weight)

    def value(self) -> Tensor:
        """Return the means [n, n, O] in nats; 0 for pairs never seen."""
        return torch.where(self.weight[..., None] > 0, self.total / self.weight[..., None], 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.weight = state["total"].to(self.total.device), state["weight"].to(self.weight.device)


def above_floor(scores: Tensor, maskable: Tensor) -> Tensor:
    """Return scores [n, n, O] minus each pair's median over the features that may be hidden (maskable bool [n, O])."""
    shown = scores.masked_fill(~maskable[:, None], torch.nan)
    return scores - shown.nanmedian(-1, keepdim=True).values.nan_to_num()


def across(scores: Tensor, group: Tensor, symmetric: bool) -> Tensor:
    """Return S [B, n, O]: each agent's scores [n, n, O] summed over the agents on the other side of its group bool [B,
    n].

    Not ``symmetric``: zero for agents outside the group.
    """
    return torch.einsum("bij,ijd->bid", apart(group, symmetric).to(scores.dtype), scores)


def apart(group: Tensor, symmetric: bool) -> Tensor:
    """Return who is on the other side of whom, bool [B, n, n], of a team split into group bool [B, n] and rest. Not
    ``symmetric``: for agents outside the group nobody is."""
    other = group[:, :, None] != group[:, None, :]
    return other if symmetric else other & group[:, :, None]


def describes_other_side(group: Tensor, about: Tensor, symmetric: bool) -> Tensor:
    """Mark the features, bool [B, n, O], that describe (about bool [n, n, O]) an agent on the other side of a team
    split into group bool [B, n] and rest."""
    return torch.einsum("bij,ijd->bid", apart(group, symmetric).float(), about.float()) > 0


def largest(scores: Tensor, count: Tensor, maskable: Tensor) -> Tensor:
    """Mark the ``count`` long [B, n] largest positive scores [B, n, O] among maskable bool [n, O]; bool [B, n, O]."""
    return first(scores, count, maskable) & (scores > 0)


def first(scores: Tensor, count: Tensor, maskable: Tensor) -> Tensor:
    """Mark the same with scores of any sign; maskable bool [n, O] or [B, n, O]."""
    scores = torch.where(maskable, scores, -torch.inf)
    rank = scores.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    return (rank < count[..., None]) & maskable


def hidden_features(group: Tensor, n_masked: int | None, per_agent: bool, spec: EnvSpec) -> Tensor:
    """Count the features to hide from each agent, long [B, n]; 0 if the other side of group bool [B, n] is empty.

    ``n_masked``, with ``per_agent`` times the size of the other side; null: the mean number of features that describe
    one other agent, times half the size of the other side (rounded up), or a fifth of all features if the environment
    does not say what they describe.
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
    """Mark features that describe the observer, bool [n, O]; the caller rejects environments that do not say."""
    assert spec.about is not None
    agents = torch.arange(spec.n_agents)
    return spec.about[agents, agents]


def named(spec: EnvSpec) -> tuple[str, ...]:
    """Return the names of the observed features [O], numbered ones if the environment has none."""
    return spec.obs_names or tuple(f"feature {d}" for d in range(spec.obs_dim))


def described(spec: EnvSpec, observer: int, feature: int) -> list[int]:
    """Return the agents that a feature of an observer describes, none if the environment does not say."""
    return [] if spec.about is None else spec.about[observer, :, feature].nonzero().flatten().tolist()


def table(scores: Tensor, floored: Tensor, masked: Tensor, spec: EnvSpec) -> list[list[Any]]:
    """Return rows (observer, feature, described agent, actor, score, score above floor, hidden when the actor is the
    other side): all [n, n, O] by (observer, actor, feature)."""
    rows = []
    for i in range(spec.n_agents):
        for j in (j for j in range(spec.n_agents) if j != i):
            for d, name in enumerate(named(spec)):
                about = " ".join(map(str, described(spec, i, d)))
                value, above = f"{float(scores[i, j, d]):.6g}", f"{float(floored[i, j, d]):.6g}"
                rows.append([i, name, about, j, value, above, int(masked[i, j, d])])
    return rows


def write_table(rows: Sequence[Sequence[Any]], path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["observer", "feature", "describes", "actor", "nats", "above_floor", "hidden"])
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def row_names(spec: EnvSpec, observer: int) -> list[str]:
    """Return labels of an observer's features for the picture, with the other agents that they describe."""
    names = []
    for d, name in enumerate(named(spec)):
        others = [agent for agent in described(spec, observer, d) if agent != observer]
        names.append(f"{name} (agent {', '.join(map(str, others))})" if others else name)
    return names


def draw(scores: Tensor, masked: Tensor, spec: EnvSpec, path: Path) -> None:
    """Draw one heat map per observer (the first ``PANELS``): a row per feature, a column per actor, in nats, with
    numbers if the team is small. A frame: hidden while that actor alone is the other side. Both [n, n, O]."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    n, observers = spec.n_agents, range(min(spec.n_agents, PANELS))
    numbers = n <= 4
    size = (len(observers) * (1.9 + (0.55 if numbers else 0.25) * (n - 1)) + 0.8, 1.6 + 0.2 * spec.obs_dim)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(observers), squeeze=False)[0]
    top = max(float(scores.max()), 1e-9)
    for i, axes in zip(observers, panels, strict=True):
        actors = [j for j in range(n) if j != i]
        values = scores[i, actors].T.cpu().numpy()  # [O, n - 1]
        image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=0.0, vmax=top)
        for d, column in masked[i, actors].T.nonzero().tolist():
            axes.add_patch(Rectangle((column - 0.47, d - 0.45), 0.94, 0.9, fill=False, edgecolor="red", linewidth=1.8))
        for (d, column), value in np.ndenumerate(values) if numbers else ():
            colour = "white" if value < 0.6 * top else "black"
            axes.text(column, d, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(len(actors)), [f"agent {j}" for j in actors], fontsize=7, rotation=0 if numbers else 90)
        axes.set_yticks(range(spec.obs_dim), [*map(plain, row_names(spec, i))], fontsize=7)
        axes.set_title(f"agent {i} sees", fontsize=9)
    figure.colorbar(image, ax=panels, label="nats", fraction=0.04, pad=0.02)
    legend = "what each feature tells about whose action; framed: hidden while that agent alone is the other side"
    figure.supxlabel(legend, fontsize=8)
    save_figure(figure, path, 110)
