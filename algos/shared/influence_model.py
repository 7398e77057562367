"""A forward model of the state, and every agent's counterfactual influence on its predictions.

After Liu et al. 2023, "Lazy Agents: A New Perspective on Solving Sparse Reward Problem in Multi-agent Reinforcement
Learning" (LAIES). Axis letters: ``X`` inputs of the model, ``C`` chosen state features.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marl.learn.gru import gru

ROWS = 2048  # alternatives evaluated at once: their layers of 128 units fit into the processor's cache
Kind = Literal["mlp", "gru"]


class ForwardModel(nn.Module):
    """A network that predicts [N, S] numbers about the next state from ``x`` [N, X] and the joint action long [N, n].

    ``kind``: mlp (two hidden layers) or gru (one hidden layer, then a GRU). The joint action enters the first layer as
    a sum of one column of weights per agent, so an alternative action swaps a column instead of redoing the layer.
    """

    def __init__(self, inputs: int, n_agents: int, n_actions: int, outputs: int, kind: Kind, hidden_dim: int) -> None:
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
        """Return what each agent's action adds to the first layer, [n, A, H]."""
        return self.first.weight[:, self.inputs :].t().reshape(*self.shape, self.hidden_dim)

    def joined(self, x: Tensor, actions: Tensor) -> Tensor:
        """Return the first layer's inputs, [N, X + n A]: x and the joint action, one-hot."""
        return torch.cat([x, F.one_hot(actions, self.shape[1]).flatten(-2).to(x.dtype)], -1)

    def enter(self, x: Tensor, actions: Tensor) -> Tensor:
        """Return the first layer's outputs before the ReLU, [N, H]."""
        return self.first(self.joined(x, actions))

    def gate_weights(self, name: Literal["ih", "hh"]) -> tuple[Tensor, Tensor]:
        """Return the GRU's weights [3H, H] and biases [3H] for its input (ih) or its hidden state (hh)."""
        return self.gru.get_parameter(f"weight_{name}_l0"), self.gru.get_parameter(f"bias_{name}_l0")

    def hidden(self, entered: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the last hidden layer [N, H] given the first layer's outputs ``entered`` [N, H]. For a gru the rows
        are the concatenated steps of whole episodes, of ``lengths`` long [M]."""
        if self.kind == "mlp":
            return torch.relu(self.second(torch.relu(entered)))
        assert lengths is not None, "a gru reads whole episodes"
        if entered.device.type == "cpu":
            (w_x, b_x), (w_h, b_h), start = self.gate_weights("ih"), self.gate_weights("hh"), starts(lengths)
            return gru(torch.relu(entered)[:, None], w_x[None], w_h[None], b_x[None], b_h[None], start)[:, 0]
        there = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]  # [M, T]
        padded = entered.new_zeros(*there.shape, self.hidden_dim).index_put((there,), torch.relu(entered))
        return self.gru(padded)[0][there]

    def before(self, hidden: Tensor, lengths: Tensor | None) -> Tensor:
        """Return a gru's hidden states before each step, [N, H]; an mlp has none, and ``hidden`` is returned."""
        if lengths is None or self.kind == "mlp":
            return hidden
        return hidden.roll(1, 0).index_fill(0, starts(lengths)[:-1][lengths > 0], 0.0)

    def hidden_after(self, entered: Tensor, before: Tensor, gates: Tensor) -> Tensor:
        """Return the last hidden layer [R, H] of single steps and overwrite ``entered`` [R, H]. A gru also needs the
        hidden states ``before`` them [R, H] and what these contribute to its ``gates`` [R, 3H]."""
        if self.kind == "mlp":
            return self.second(entered.relu_()).relu_()
        reset, update, new = F.linear(entered.relu_(), *self.gate_weights("ih")).chunk(3, -1)
        reset_h, update_h, new_h = gates.chunk(3, -1)
        new = torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)
        return new + torch.sigmoid(update + update_h) * (before - new)

    def forward(self, x: Tensor, actions: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map x [N, X] and actions long [N, n] to predictions [N, S]; for a gru, rows are as in ``hidden``."""
        return self.head(self.hidden(self.enter(x, actions), lengths))

    def predict(self, read: Tensor, lengths: Tensor | None, dims: Tensor) -> Tensor:
        """Map the first layer's inputs [N, X + n A] to predictions of the features ``dims`` (long [C]) only, [N, C]."""
        return F.linear(self.hidden(self.first(read), lengths), self.head.weight[dims], self.head.bias[dims])

    @torch.no_grad()
    def contrast(
        self, x: Tensor, actions: Tensor, weight: Tensor, dims: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return f(a) - sum over a' of weight(i, a') f(a', a^-i) for each agent i, [N, n, C], and f(a) [N, C].

        ``weight`` [N, n, A] sums to 1 over each agent's alternatives, or is 0 everywhere (and then so is the contrast);
        ``dims`` long [C] selects features. Only alternatives with weight are evaluated. Rows are as in ``hidden``.
        """
        (n, A), W = self.shape, self.head.weight[dims]
        entered, columns = self.enter(x, actions), self.columns()  # [N, H], [n, A, H]
        hidden = self.hidden(entered, lengths)
        before = self.before(hidden, lengths)
        fact = F.linear(hidden, W)  # without the bias, which cancels in differences
        gates = before if self.kind == "mlp" else F.linear(before, *self.gate_weights("hh"))
        others = entered[:, None] - columns[torch.arange(n, device=x.device), actions]  # [N, n, H] without agent i
        others, columns, total = others.flatten(0, 1), columns.flatten(0, 1), fact.new_zeros(len(x) * n, len(dims))
        for part in weight.nonzero().split(ROWS):
            r, i, a = part.unbind(1)
            other = others.index_select(0, r * n + i).add_(columns.index_select(0, i * A + a))
            step = (before, gates) if self.kind == "mlp" else (before.index_select(0, r), gates.index_select(0, r))
            total.index_add_(0, r * n + i, weight[r, i, a, None] * F.linear(self.hidden_after(other, *step), W))
        return weight.sum(-1, keepdim=True) * fact[:, None] - total.view(-1, n, len(dims)), fact + self.head.bias[dims]


def starts(lengths: Tensor) -> Tensor:
    """Return where each of the concatenated sequences begins, and where the last one ends, long [M + 1]."""
    return F.pad(lengths.cumsum(0), (1, 0))


def alternatives(avail: Tensor, actions: Tensor, counted: Tensor, q: Tensor | None = None) -> Tensor:
    """Return weights [M, T, n, A] of the actions that each agent could have taken instead of its own (long [M, T, n]).

    They are equal among available actions, or the softmax of ``q`` [M, T, n, A]; 0 for agents that are not ``counted``
    (bool [M, T, n]) and for agents without an alternative.
    """
    other = avail & counted[..., None]
    other = other.scatter(-1, actions[..., None], False)
    if q is None:
        return other / other.sum(-1, keepdim=True).clamp(min=1)
    scores = torch.where(other, q, -torch.inf)
    return torch.where(other, scores.softmax(-1), 0.0)  # nan where there is no alternative
