"""The agents' utility networks. The recurrent one is linear, GRU, linear, as in PyMARL's RNN agent (Rashid et al. 2018,
app. C); the feed-forward one is for games that need no memory.

Three code paths share one set of weights; tests keep them equal. ``unroll`` and ``along`` run whole sequences through
``nn.GRU`` on a GPU and through ``marl.learn.gru`` on the CPU. ``step`` writes the equations with matrix products,
because attacks need ``vmap`` and gradients with respect to observations, which ``nn.GRU`` does not offer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marl.core.checks import require_at_least
from marl.core.networks import StackedLinear, rectified
from marl.core.rows import Rows
from marl.core.types import EnvSpec
from marl.learn.gru import gru


class RecurrentAgent(nn.Module):
    """Q-values of every agent from its own observations.

    ``share_parameters``: all agents use one network (tell them apart with ``agent_id``), or each has its own.
    ``last_action`` and ``agent_id`` append one-hots to the observation, in this order (PyMARL's input layout).
    """

    def __init__(
        self, spec: EnvSpec, *, hidden_dim: int, share_parameters: bool, last_action: bool, agent_id: bool
    ) -> None:
        super().__init__()
        require_at_least("agent", 1, hidden_dim=hidden_dim)
        self.n_agents, self.n_actions, self.hidden_dim = spec.n_agents, spec.n_actions, hidden_dim
        self.last_action, self.agent_id, self.shared = last_action, agent_id, share_parameters
        self.input_dim = spec.obs_dim + last_action * spec.n_actions + agent_id * spec.n_agents
        self.fc_in: nn.Module
        self.fc_out: nn.Module
        if share_parameters:
            self.fc_in = nn.Linear(self.input_dim, hidden_dim)
            self.fc_out = nn.Linear(hidden_dim, spec.n_actions)
        else:
            self.fc_in = StackedLinear(spec.n_agents, self.input_dim, hidden_dim)
            self.fc_out = StackedLinear(spec.n_agents, hidden_dim, spec.n_actions)
        self.make_core(1 if share_parameters else spec.n_agents)

    def make_core(self, networks: int) -> None:
        """Build the layers between ``fc_in`` and ``fc_out`` for ``networks`` networks. Agents with other cores override
        this, ``step``, ``unroll`` and ``along``."""
        self.gru = nn.ModuleList(nn.GRU(self.hidden_dim, self.hidden_dim) for _ in range(networks))

    def initial(self, *lead: int) -> Tensor:
        """Return a zero hidden state [*lead, n, H] on the network's device."""
        return torch.zeros(*lead, self.n_agents, self.hidden_dim, device=next(self.parameters()).device)

    def inputs(self, obs: Tensor, last: Tensor) -> Tensor:
        """Build the network's inputs [*, n, I] from obs [*, n, O] and last actions long [*, n] (-1: none yet)."""
        parts = [obs]
        if self.last_action:
            parts.append((last.unsqueeze(-1) == torch.arange(self.n_actions, device=obs.device)).to(obs.dtype))
        if self.agent_id:
            ids = torch.eye(self.n_agents, device=obs.device)
            parts.append(ids.expand(*obs.shape[:-2], -1, -1))
        return torch.cat(parts, -1) if len(parts) > 1 else obs

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Make one time step: x [*, n, I], h [*, n, H] -> q [*, n, A], h [*, n, H]."""
        x = F.relu(self.fc_in(x))
        gates_x, gates_h = self._gates(x, 0), self._gates(h, 1)
        reset_x, update_x, new_x = gates_x.chunk(3, -1)
        reset_h, update_h, new_h = gates_h.chunk(3, -1)
        update = torch.sigmoid(update_x + update_h)
        new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
        h = new + update * (h - new)
        return self.fc_out(h), h

    def _gates(self, x: Tensor, recurrent: int) -> Tensor:
        names = ("weight_hh_l0", "bias_hh_l0") if recurrent else ("weight_ih_l0", "bias_ih_l0")
        if self.shared:
            return F.linear(x, getattr(self.gru[0], names[0]), getattr(self.gru[0], names[1]))
        weight = torch.stack([getattr(gru, names[0]) for gru in self.gru])  # [n, 3H, H]
        bias = torch.stack([getattr(gru, names[1]) for gru in self.gru])  # [n, 3H]
        return torch.einsum("...ni,noi->...no", x, weight) + bias

    def unroll(self, x: Tensor, lengths: Tensor | None = None, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run whole sequences from the states ``start`` [M, n, H] (None: zeros): x [M, T, n, I] -> q [M, T, n, A],
        h [M, T, n, H]. No gradient reaches the first state.

        ``lengths`` long [M], on the CPU, says how many slots of each sequence matter; the others may hold anything.
        """
        M, T, n, _ = x.shape
        if x.device.type == "cpu":
            rows = Rows(M, T, torch.full((M,), T) if lengths is None else lengths)
            q, h = self.along(rows.of(x), rows, None if start is None else start[rows.episodes])
            return rows.spread(q), rows.spread(h)
        z = F.relu(self.fc_in(x)).transpose(0, 1)  # [T, M, n, H]
        h_0 = self.initial(M) if start is None else start
        if self.shared:
            h, _ = self.gru[0](z.reshape(T, M * n, -1), h_0.reshape(1, M * n, -1))
            h = h.view(T, M, n, -1)
        else:  # one fused call per agent: no cuDNN kernel takes n different recurrent weights
            parts = [(z[:, :, i].contiguous(), h_0[None, :, i].contiguous()) for i in range(n)]
            h = torch.stack([gru(*part)[0] for gru, part in zip(self.gru, parts, strict=True)], 2)
        h = h.transpose(0, 1)  # [M, T, n, H]
        return self.fc_out(h), h

    def along(self, x: Tensor, rows: Rows, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run ``unroll`` on rows only: x [N, n, I] -> q [N, n, A], h [N, n, H]; ``start`` [M, n, H] is in the order of
        the rows (``rows.episodes``)."""
        if rows.start is None:
            q, h = self.unroll(rows.spread(x), start=start)
            return q.flatten(0, 1), h.flatten(0, 1)
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        w_x, w_h, b_x, b_h = (torch.stack([core.get_parameter(name) for core in self.gru]) for name in names)
        h = gru(rectified(self.fc_in, x), w_x, w_h, b_x, b_h, rows.start, start)
        return self.fc_out(h), h


class FeedForwardAgent(RecurrentAgent):
    """The same network without memory: a second hidden layer replaces the GRU.

    Its hidden state is the output of that layer, for hooks that read it; the network itself ignores the state it gets.
    """

    def make_core(self, networks: int) -> None:
        H = self.hidden_dim
        self.fc_mid: nn.Module = nn.Linear(H, H) if self.shared else StackedLinear(networks, H, H)

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(self.fc_mid(F.relu(self.fc_in(x))))
        return self.fc_out(h), h

    def unroll(self, x: Tensor, lengths: Tensor | None = None, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if x.device.type == "cpu" and lengths is not None:
            return super().unroll(x, lengths)
        return self.step(x, self.initial(*x.shape[:2]))

    def along(self, x: Tensor, rows: Rows, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h = rectified(self.fc_mid, rectified(self.fc_in, x))
        return self.fc_out(h), h
