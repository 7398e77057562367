"""A forward model of the state, and every agent's counterfactual influence on what it predicts.

After Liu et al. 2023, "Lazy Agents: A New Perspective on Solving Sparse Reward Problem in Multi-agent Reinforcement
Learning" (LAIES). Axis letters: ``X`` numbers that the model reads, ``C`` chosen state features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 1 << 16  # alternatives evaluated at once: bounds memory at 32 MiB per hidden layer of 128


class ForwardModel(nn.Module):
    """Predicts [*, S] numbers about the next state from ``x`` [*, X] and the joint action long [*, n].

    ``kind``: mlp (two hidden layers) or gru (one, then a GRU). The joint action enters the first layer as the sum of
    one column of weights per agent, so that an alternative action exchanges a column and costs no first layer.
    """

    def __init__(self, inputs: int, n_agents: int, n_actions: int, outputs: int, kind: str, hidden_dim: int) -> None:
        super().__init__()
        self.kind, self.inputs, self.hidden_dim = kind, inputs, hidden_dim
        self.shape = (n_agents, n_actions)
        self.first = nn.Linear(inputs + n_agents * n_actions, hidden_dim)
        if kind == "gru":
            self.gru = nn.GRU(hidden_dim, hidden_dim, batch_first=True)
        else:
            self.second = nn.Linear(hidden_dim, hidden_dim)
        self.head = nn.Linear(hidden_dim, outputs)

    def columns(self) -> Tensor:
        """[n, A, H] what each agent's action adds to the first layer."""
        return self.first.weight[:, self.inputs :].t().reshape(*self.shape, self.hidden_dim)

    def enter(self, x: Tensor, actions: Tensor) -> Tensor:
        """First layer before its ReLU, [*, H]."""
        agents = torch.arange(self.shape[0], device=actions.device)
        taken = self.columns()[agents, actions].sum(-2)
        return F.linear(x, self.first.weight[:, : self.inputs], self.first.bias) + taken

    def hidden(self, entered: Tensor) -> tuple[Tensor, Tensor]:
        """Last hidden layer after the first one [*, H] (gru: [M, T, H]), and the states before each step."""
        if self.kind == "mlp":
            return torch.relu(self.second(torch.relu(entered))), entered
        h, _ = self.gru(torch.relu(entered))
        return h, torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)

    def hidden_after(self, entered: Tensor, before: Tensor) -> Tensor:
        """Last hidden layer of single steps [R, H] from the states ``before`` them."""
        if self.kind == "mlp":
            return torch.relu(self.second(torch.relu(entered)))
        g = self.gru
        return torch.gru_cell(torch.relu(entered), before, g.weight_ih_l0, g.weight_hh_l0, g.bias_ih_l0, g.bias_hh_l0)

    def forward(self, x: Tensor, actions: Tensor) -> Tensor:
        return self.head(self.hidden(self.enter(x, actions))[0])

    @torch.no_grad()
    def contrast(self, x: Tensor, actions: Tensor, weight: Tensor, dims: Tensor) -> tuple[Tensor, Tensor]:
        """f(a) - sum over a' of weight(i, a') f(a', a^-i), one per agent: [M, T, n, C], and f(a) [M, T, C].

        ``weight`` [M, T, n, A] sums to 1 over each agent's alternatives, or is 0 everywhere (then so is the contrast);
        ``dims`` long [C] are the features wanted. Only alternatives with weight are computed.
        """
        n, W, b = self.shape[0], self.head.weight[dims], self.head.bias[dims]
        entered = self.enter(x, actions)  # [M, T, H]
        hidden, before = self.hidden(entered)
        fact = F.linear(hidden, W, b)  # [M, T, C]
        rows = fact.flatten(0, 1)
        entered, before, taken, weight = (v.flatten(0, 1) for v in (entered, before, actions, weight))
        columns = self.columns()
        total = rows.new_zeros(len(rows) * n, len(dims))
        for part in weight.nonzero().split(ROWS):
            r, i, a = part.unbind(1)
            other = entered[r] - columns[i, taken[r, i]] + columns[i, a]
            found = F.linear(self.hidden_after(other, before[r]), W, b)
            total.index_add_(0, r * n + i, weight[r, i, a, None] * (rows[r] - found))
        return total.view(*fact.shape[:2], n, -1), fact


def alternatives(avail: Tensor, actions: Tensor, counted: Tensor, q: Tensor | None = None) -> Tensor:
    """Weights [M, T, n, A] of what each agent could have done instead: available, and not what it did (long [M, T, n]).

    Equal, or the softmax of ``q`` [M, T, n, A]; 0 for agents that are not ``counted`` (bool [M, T, n]) and for those
    without an alternative.
    """
    other = avail & counted[..., None]
    other = other.scatter(-1, actions[..., None], False)
    if q is None:
        return other / other.sum(-1, keepdim=True).clamp(min=1)
    scores = torch.where(other, q, -torch.inf)
    return torch.where(other, scores.softmax(-1), 0.0)  # no alternative: nan, left out
