"""Attackers as a population: networks in one matrix, how they choose a victim, and the archive that they evolve from.

Yuan et al. 2023, "Robust Multi-agent Coordination via Evolutionary Generation of Auxiliary Adversarial Attackers"
(ROMANCE), arXiv 2305.05909 (docs/romance.md). Axis letters in addition to the usual ones: ``P``
attackers, ``D`` weights of one, ``C`` = n + 1 choices (a victim, or nobody: the last), ``R`` rows, ``I`` inputs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from marl.core.checks import require_at_least, require_positive, require_share

Layers = list[tuple[Tensor, Tensor]]
RENEWAL = 0.25
TINY = 1e-30  # inside logarithms: a choice of probability 0 then adds 0 to a divergence, not 0 * inf


class Networks:
    """Multilayer perceptrons of the same size with ReLU between layers; each is a row of a matrix of weights [P, D]."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.shapes = list(itertools.pairwise(sizes))
        self.width = sum(i * o + o for i, o in self.shapes)  # D

    def fresh(self, count: int, gen: Generator) -> Tensor:
        """Create ``count`` networks initialised like ``nn.Linear``, [count, D] on the CPU, where ``gen`` lives."""
        parts = []
        for i, o in self.shapes:
            parts.append((2 * torch.rand(count, i * o + o, generator=gen) - 1) / math.sqrt(i))
        return torch.cat(parts, 1)

    def split(self, weights: Tensor) -> Layers:
        """Split [P, D] into a matrix [P, inputs, outputs] and a bias [P, 1, outputs] per layer."""
        layers, start = [], 0
        for i, o in self.shapes:
            matrix = weights[:, start : start + i * o].unflatten(1, (i, o))
            bias = weights[:, None, start + i * o : start + i * o + o]
            layers.append((matrix, bias))
            start += i * o + o
        return layers

    @staticmethod
    def values(layers: Layers, x: Tensor) -> Tensor:
        """Return the values of all networks: x [P, R, I] -> [P, R, C]."""
        for k, (matrix, bias) in enumerate(layers):
            x = torch.baddbmm(bias, F.relu(x) if k else x, matrix)
        return x


def reference(n_agents: int, delta: float) -> Tensor:
    """Return p_ref [C]: nobody with probability 1 - delta, the rest split equally among the agents."""
    return torch.tensor([delta / n_agents] * n_agents + [1.0 - delta])


def choice_policy(q: Tensor, p_ref: Tensor, temperature: float, floor: float) -> Tensor:
    """Return v [*, C] for values q [*, C]: v ~ p_ref exp(q / temperature), then no choice below ``floor``."""
    v = torch.softmax(p_ref.log() + q / temperature, -1)
    return v * (1.0 - q.shape[-1] * floor) + floor


def soft_value(q: Tensor, p_ref: Tensor, temperature: float) -> Tensor:
    """Return temperature log sum_c p_ref(c) exp(q(c) / temperature): q [*, C] -> [*]."""
    return temperature * torch.logsumexp(p_ref.log() + q / temperature, -1)


def jensen_shannon(v: Tensor) -> Tensor:
    """Return the mean divergence of P distributions from their mean: v [P, R, C] -> 0-d, nats, 0 to ln P."""
    return divergence(v, v.mean(0, keepdim=True)).mean()


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of p from q, mean over rows: [*, R, C] -> [*], nats."""
    return (p * (p.clamp(min=TINY).log() - q.clamp(min=TINY).log())).sum(-1).mean(-1)


def draw(u: Tensor, v: Tensor) -> Tensor:
    """Sample a choice by inverse transform sampling: u [*] in [0, 1), v [*, C] -> long [*]."""
    return (v.cumsum(-1) <= u.unsqueeze(-1)).sum(-1).clamp(max=v.shape[-1] - 1)


def pick_rows(rows: Tensor, preferred: Tensor, count: int, gen: Generator) -> Tensor:
    """Draw ``count`` of the rows [R, I], with replacement, from the preferred ones (bool [R]) if there are any."""
    allowed = (preferred if bool(preferred.any()) else torch.ones_like(preferred)).nonzero().flatten()
    index = (torch.rand(count, generator=gen) * len(allowed)).long().to(allowed.device)
    return rows[allowed[index]]


class Archive:
    """At most ``size`` attackers, oldest first, kept because they are strong or unlike the others. Size 0: none.

    ``quality`` [k] is minus the team's return under each; ``behaviour`` [k, R, I] are inputs at which each attacked.
    From start to end, ``nearness`` changes linearly over the whole run (``progress`` 0 to 1) and ``fresh`` over
    ``fresh_generations``.
    """

    def __init__(
        self,
        nets: Networks,
        *,
        size: int,
        nearness_start: float,
        nearness_end: float,
        select_temperature: float,
        fresh_start: float,
        fresh_end: float,
        fresh_generations: int,
    ) -> None:
        require_at_least("attack.archive", 1, fresh_generations=fresh_generations)
        require_at_least("attack.archive", 0, size=size)
        require_positive("attack.archive", select_temperature=select_temperature)
        require_share("attack.archive", nearness_start=nearness_start, nearness_end=nearness_end)
        require_share("attack.archive", fresh_start=fresh_start, fresh_end=fresh_end)
        self.nets, self.size, self.select_temperature = nets, size, select_temperature
        self.nearness, self.fresh = (nearness_start, nearness_end), (fresh_start, fresh_end)
        self.fresh_generations = fresh_generations
        self.weights = torch.zeros(0, nets.width)
        self.quality = torch.zeros(0)
        self.behaviour = torch.zeros(0, 0, nets.shapes[0][0])

    def __len__(self) -> int:
        return len(self.quality)

    def offer(
        self,
        weights: Tensor,
        behaviour: Tensor,
        quality: float,
        progress: float,
        policy: Callable[[Tensor, Tensor], Tensor],
        gen: Generator,
    ) -> str:
        """Consider an attacker [D] that attacked at ``behaviour`` [R, I]; return "added", "replaced" or "refused".

        It is added, and the oldest leaves a full archive, if its nearest neighbour is further away than 1 - nearness
        times the mean distance. Otherwise it duels with that neighbour: it takes its place with probability
        R_near / (R + R_near), R the team's return under it; if one is negative, both count from the lower one.
        Distance: divergence of ``policy`` (weights [k, D], inputs [k, R, I]) -> [k, R, C] at the inputs of both.
        """
        weights, behaviour = weights.cpu(), behaviour.cpu()
        distance = torch.full((1,), torch.inf)
        if len(self):
            pooled = torch.cat([behaviour.expand_as(self.behaviour), self.behaviour], 1)  # [k, 2R, I]
            distance = divergence(policy(self.weights, pooled), policy(weights.expand_as(self.weights), pooled))
        near = int(distance.argmin())
        if len(self) == 0 or distance[near] > (1.0 - between(self.nearness, progress)) * distance.mean():
            self._append(weights, behaviour, quality)
            return "added"
        mine, other = -quality, -float(self.quality[near])
        base = min(mine, other, 0.0)
        if float(torch.rand((), generator=gen)) >= chance_to_win(mine - base, other - base):
            return "refused"
        self.weights[near], self.behaviour[near], self.quality[near] = weights, behaviour, quality
        return "replaced"

    def _append(self, weights: Tensor, behaviour: Tensor, quality: float) -> None:
        keep = slice(1, None) if len(self) >= self.size else slice(None)
        self.weights = torch.cat([self.weights[keep], weights[None]])
        self.behaviour = torch.cat([self.behaviour.reshape(-1, *behaviour.shape)[keep], behaviour[None]])
        self.quality = torch.cat([self.quality[keep], torch.tensor([quality])])

    def select(self, count: int, generation: int, gen: Generator, trained: bool = True) -> Tensor:
        """Select attackers [count, D] to train next: samples with probabilities softmax(quality / select_temperature),
        each replaced by a new network with probability ``fresh``. If the archive has at most ``count``: all of them,
        then new ones. If nobody will train them (``trained`` false), no network is new."""
        chance = torch.softmax(self.quality / self.select_temperature, 0)
        if not trained:
            return self.weights[torch.multinomial(chance, count, replacement=True, generator=gen)]
        new = self.nets.fresh(count, gen)
        if len(self) <= count:
            return torch.cat([self.weights, new[len(self) :]])
        index = torch.multinomial(chance, count, replacement=True, generator=gen)
        fresh = between(self.fresh, generation / self.fresh_generations)
        return torch.where(torch.rand(count, 1, generator=gen) < fresh, new, self.weights[index])

    def review(self, member: Tensor, team_return: Tensor) -> None:
        """Update the qualities of the members that played: members long [M], the team's returns [M]. Every episode
        replaces a share ``RENEWAL`` of the old quality."""
        played = torch.bincount(member, minlength=len(self))
        mean = torch.zeros(len(self)).index_add(0, member, team_return.float()) / played.clamp(min=1)
        self.quality = torch.lerp(-mean, self.quality, (1.0 - RENEWAL) ** played)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights, "quality": self.quality, "behaviour": self.behaviour}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights, self.quality, self.behaviour = (
            state[name].cpu().clone() for name in ("weights", "quality", "behaviour")
        )


def chance_to_win(mine: float, other: float) -> float:
    """Return the chance that an attacker under which the team earns ``mine`` beats one under which it earns ``other``;
    both >= 0."""
    return other / (mine + other) if mine + other > 0 else 0.5


def between(ends: tuple[float, float], progress: float) -> float:
    """Interpolate from the first to the second while progress goes from 0 to 1, then stay constant."""
    return ends[0] + (ends[1] - ends[0]) * min(1.0, progress)
