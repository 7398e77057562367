"""The two networks with which Wolfpack decides when to start: one predicts what comes next, the other what an attack
would cost the team.

Both look back at most ``window`` steps and never ahead, through a single attention layer. Its keys depend on each step
alone, so that many windows share them, which makes labels affordable. Axis letters: ``d`` width, ``C`` steps to
look back at, ``R`` steps that look back, ``W`` window.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from marl.core.types import EnvSpec

Heads = Literal["own", "shared"]
Keys = tuple[Tensor, Tensor]  # keys and values, [*, C, d] each
UNSEEN = -1e9  # finite: a step of padding that sees nothing still has a softmax


def drop(x: Tensor, p: float, gen: Generator | None) -> Tensor:
    """Apply dropout with random numbers from ``gen``; none without it."""
    if gen is None or p == 0.0:
        return x
    return x * (torch.rand(x.shape, generator=gen, device=x.device) >= p) / (1.0 - p)


def gaps(place: Tensor, keys: Tensor, seen: Tensor, window: int) -> Tensor:
    """Count the steps from each key back to each query, long [*, R, C]; ``window`` means not seen.

    place long [*, R], keys long [*, C] are steps of the same episode, seen bool [*, C] (False: padding).
    """
    gap = place.unsqueeze(-1) - keys.unsqueeze(-2)
    return torch.where((gap >= 0) & (gap < window) & seen.unsqueeze(-2), gap, window)


class LookBack(nn.Module):
    """Attention with one head, and a learned bias for each number of steps back."""

    def __init__(self, dim: int, window: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.bias = nn.Parameter(torch.zeros(window))
        self.scale = dim**-0.5

    def keys(self, x: Tensor) -> Keys:
        return self.key(x), self.value(x)

    def forward(self, x: Tensor, keys: Keys, gap: Tensor, own: Keys | None = None) -> Tensor:
        """Map x [*, R, d] -> [*, R, d]. ``keys`` [*, C, d] are shared by all queries, gap long [*, R, C] (``gaps``).

        ``own`` [*, R, k, d]: keys of the k steps up to the query that only this query sees, newest last.
        """
        query, bias = self.query(x) * self.scale, F.pad(self.bias, (0, 1), value=UNSEEN)
        logits = query @ keys[0].transpose(-1, -2) + bias[gap]  # [*, R, C]
        if own is None:
            return self.out(logits.softmax(-1) @ keys[1])
        back = torch.arange(own[0].shape[-2] - 1, -1, -1, device=x.device)
        own_logits = (query.unsqueeze(-2) * own[0]).sum(-1) + bias[back]  # [*, R, k]
        weights = torch.cat([logits, own_logits], -1).softmax(-1)
        shared, mine = weights.split([logits.shape[-1], own_logits.shape[-1]], -1)
        return self.out(shared @ keys[1] + (mine.unsqueeze(-1) * own[1]).sum(-2))


class AgentHead(nn.Module):
    """Outputs for every agent from the team's features: x [*, dim] -> [*, n, outputs].

    ``own``: each agent has a linear layer. ``shared``, as published: one layer that also reads the agent's one-hot, so
    that agents differ only by constants, whatever the state.
    """

    def __init__(self, dim: int, n_agents: int, outputs: int, heads: Heads) -> None:
        super().__init__()
        self.dim, self.n_agents, self.heads = dim, n_agents, heads
        self.net = nn.Linear(dim, n_agents * outputs) if heads == "own" else nn.Linear(dim + n_agents, outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.heads == "own":
            return self.net(x).unflatten(-1, (self.n_agents, -1))
        team = F.linear(x, self.net.weight[:, : self.dim], self.net.bias)  # [*, outputs]
        return team.unsqueeze(-2) + self.net.weight[:, self.dim :].T


class Planner(nn.Module):
    """Predictor of next state and observations from the last ``window`` states, hidden states and executed actions.

    As published: each of the three embedded in ``dim`` numbers, one transformer decoder layer (one head, feed-forward
    ``ff_dim``, normalisation after each part) whose memory is its own input. Ours: it cannot look ahead, and knows how
    many steps back each input was.
    """

    def __init__(
        self, spec: EnvSpec, hidden: int, *, window: int, dim: int, ff_dim: int, dropout: float, heads: Heads
    ) -> None:
        super().__init__()
        n, self.n_actions, d = spec.n_agents, spec.n_actions, 3 * dim
        self.window, self.dropout = window, dropout
        self.embed_state = nn.Linear(spec.state_dim, dim)
        self.embed_hidden = nn.Linear(hidden, dim)
        self.embed_actions = nn.Linear(n * spec.n_actions, dim)
        self.over_self, self.over_memory = LookBack(d, window), LookBack(d, window)
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(3))
        self.grow, self.shrink = nn.Linear(d, ff_dim), nn.Linear(ff_dim, d)
        self.to_state, self.to_team = nn.Linear(d, spec.state_dim), nn.Linear(d, dim)
        self.to_obs = AgentHead(dim, n, spec.obs_dim, heads)

    def tokens(self, state: Tensor, hidden: Tensor, actions: Tensor) -> Tensor:
        """Embed state [*, S], hidden states after the step's observations [*, n, H], executed actions long [*, n]
        -> [*, d]."""
        taken = (actions.unsqueeze(-1) == torch.arange(self.n_actions, device=state.device)).to(state.dtype)
        parts = [
            self.embed_state(state),
            self.embed_hidden(hidden.flatten(-2)),
            self.embed_actions(taken.flatten(-2)),
        ]
        return F.relu(torch.cat(parts, -1))

    def keys(self, tokens: Tensor) -> list[Keys]:
        return [self.over_self.keys(tokens), self.over_memory.keys(tokens)]

    def forward(
        self, x: Tensor, keys: list[Keys], gap: Tensor, own: list[Keys] | None = None, gen: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map tokens x [*, R, d] -> next state [*, R, S], next observations [*, R, n, O]. ``gen``: dropout, in
        training."""
        looks = (self.over_self, self.over_memory)
        for k, (look, norm) in enumerate(zip(looks, self.norms, strict=False)):
            x = norm(x + drop(look(x, keys[k], gap, None if own is None else own[k]), self.dropout, gen))
        inner = drop(F.relu(self.grow(x)), self.dropout, gen)
        x = self.norms[2](x + drop(self.shrink(inner), self.dropout, gen))
        return self.to_state(x), self.to_obs(F.relu(self.to_team(x)))


class QDifference(nn.Module):
    """Predictor of the team value lost to an attack that starts 0, 1, .. ``window`` - 1 steps from now with each agent.

    As published: state and time embedded in ``dim`` numbers, one causal block, a linear layer on its output.
    """

    def __init__(self, spec: EnvSpec, *, window: int, dim: int, dropout: float, heads: Heads) -> None:
        super().__init__()
        self.window, self.dropout, self.dim = window, dropout, dim
        self.embed_state, self.embed_time = nn.Linear(spec.state_dim, dim), nn.Embedding(spec.episode_limit, dim)
        self.look = LookBack(dim, window)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.grow, self.shrink = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.head = AgentHead(dim, spec.n_agents, window, heads)

    def tokens(self, state: Tensor, t: Tensor) -> Tensor:
        """Embed state [*, S] at steps t long [*] -> [*, d]."""
        return self.norms[0](self.embed_state(state) + self.embed_time(t))

    def keys(self, tokens: Tensor) -> Keys:
        return self.look.keys(tokens)

    def forward(self, x: Tensor, keys: Keys, gap: Tensor, gen: Generator | None = None) -> Tensor:
        """Map tokens x [*, R, d] -> [*, R, n, W]."""
        x = self.norms[1](x + drop(self.look(x, keys, gap), self.dropout, gen))
        x = self.norms[2](x + drop(self.shrink(F.gelu(self.grow(x))), self.dropout, gen))
        return self.head(x)


class Track:
    """The steps of running episodes as ``QDifference`` needs them, one row per lane; at most one window of them."""

    def __init__(self, net: QDifference, n_envs: int, device: torch.device) -> None:
        self.net, self.token = net, torch.zeros(n_envs, 1, net.dim, device=device)
        self.keys: list[Tensor] = [torch.zeros(n_envs, 0, net.dim, device=device) for _ in range(2)]

    def see(self, state: Tensor, t: int) -> None:
        """Append state [B, S] of step ``t``."""
        self.token = self.net.tokens(state, torch.full((len(state),), t, device=state.device)).unsqueeze(1)
        fresh, W = self.net.keys(self.token), self.net.window
        self.keys = [torch.cat([old, new], 1)[:, -W:] for old, new in zip(self.keys, fresh, strict=True)]

    def foresee(self) -> Tensor:
        """Return forecasts [B, n, W] from the newest step."""
        steps = torch.arange(self.keys[0].shape[1] - 1, -1, -1, device=self.token.device)
        gap = steps.expand(len(self.token), 1, -1)
        return self.net(self.token, (self.keys[0], self.keys[1]), gap).squeeze(1)
