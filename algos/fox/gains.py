"""Samples of FoX's gain: how much better three latents together predict a formation than each alone (docs/fox.md).

Axis letters: ``N`` (step, agent) pairs, ``Z`` latent size, ``H`` units of a layer, ``D`` as in ``algos.fox.nets``.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from algos.fox.nets import FormationDecoder


class Gains:
    """The gains of a set of steps, for one draw of all their latents at a time.

    Latents are normal with ``mu``, ``std`` [R, n, Z]; ``partners`` long [R, n, 2] are each agent's farthest and nearest
    teammate, ``target`` [R, D] is each step's formation. Whatever recurs is computed once:

    - Noise is sampled once; each draw reads it from a different row offset. So a row's noise is independent between
      draws, and rows are independent within a draw.
    - What a latent predicts alone does not depend on whose partner its agent is, so it is decoded once.
    - The first layer is linear in a trio, so the contribution of each of its places is computed separately.
    """

    def __init__(
        self, decoder: FormationDecoder, mu: Tensor, std: Tensor, partners: Tensor, target: Tensor, draws: int,
        gen: Generator,
    ) -> None:  # fmt: skip
        self.decoder, self.shape = decoder, partners.shape[:2]
        self.mu, self.std = mu.flatten(0, 1), std.flatten(0, 1)
        self.far, self.far_of = distinct(partners[..., 0])
        self.near, self.near_of = distinct(partners[..., 1])
        self.weights, self.bias = decoder.places()
        everybody = torch.arange(len(self.mu), device=mu.device)
        decoded = [everybody, everybody, self.far, self.near]  # all trios, all agents alone, partners alone
        self.parts, rows = [len(agents) for agents in decoded], torch.cat(decoded)
        self.wanted, self.room = decoder.wanted(target[rows // self.shape[1]]), decoder.room(len(rows))
        count, (first, second, third) = max(len(self.mu), draws), self.weights
        self.offsets = torch.randperm(count, generator=gen, device=gen.device)[:draws].tolist()
        latent, one, two = normal(3, count, self.mu.shape[1], gen)
        others = one @ second + two @ third, one @ first + two @ third, one @ first + two @ second
        self.latent, self.others = latent.repeat(2, 1), [(other + self.bias).repeat(2, 1) for other in others]

    def draw(self, number: int) -> tuple[Tensor, Tensor]:
        """Return log g [R, n] of each agent's trio and each agent's gain [R, n], for draw ``number``."""
        offset, (first, second, third) = self.offsets[number], self.weights
        z = torch.addcmul(self.mu, self.std, self.latent[offset:][: len(self.mu)])
        own, far, near = z @ first, z.index_select(0, self.far) @ second, z.index_select(0, self.near) @ third
        together, *alone = self.room[0].split(self.parts)
        torch.add(own, self.bias, out=together)
        together.add_(far.index_select(0, self.far_of)).add_(near.index_select(0, self.near_of))
        for part, place, others in zip(alone, (own, far, near), self.others, strict=True):
            torch.add(place, others[offset:][: len(part)], out=part)
        known, own, far, near = self.decoder.finish(self.room, self.wanted).split(self.parts)
        gain = known - (own + far[self.far_of] + near[self.near_of]) / 3.0
        return known.view(self.shape), gain.view(self.shape)


def normal(kinds: int, rows: int, width: int, gen: Generator) -> Tensor:
    """Sample standard normal numbers [kinds, rows, width]."""
    return torch.randn(kinds, rows, width, generator=gen, device=gen.device)


def distinct(partner: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows r n + j of all agents that are someone's partner (long [R, n]), each once, and which of these is
    each agent's, long [N]."""
    steps = torch.arange(len(partner), device=partner.device)[:, None]
    rows, which = (partner + partner.shape[1] * steps).flatten().unique(return_inverse=True)
    return rows, which
