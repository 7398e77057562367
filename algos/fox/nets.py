"""FoX's networks: an encoder of histories, decoders of formation and history, and an agent that reads the latent.

Axis letters: ``Z`` latent size, ``b`` bits of a key, ``D`` numbers that encode a formation for the decoder.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marl.core.checks import require_at_least
from marl.core.networks import StackedLinear
from marl.core.types import EnvSpec
from marl.learn.agents import RecurrentAgent

FormTarget = Literal["bits", "raw"]


def mlp(inputs: int, hidden_dim: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, hidden_dim), nn.ReLU(),
        nn.Linear(hidden_dim, outputs),
    )  # fmt: skip


class Encoder(nn.Module):
    """q(z | h), a normal distribution over latents given an agent's hidden state."""

    def __init__(self, inputs: int, latent_dim: int, hidden_dim: int) -> None:
        super().__init__()
        require_at_least("fox", 1, latent_dim=latent_dim, encoder_dim=hidden_dim)
        self.latent_dim = latent_dim
        self.trunk = nn.Sequential(
            nn.Linear(inputs, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, hidden_dim), nn.ReLU()
        )
        self.mu, self.logvar = nn.Linear(hidden_dim, latent_dim), nn.Linear(hidden_dim, latent_dim)

    def mean(self, h: Tensor) -> Tensor:
        """Map h [*, H] to the mean [*, Z]."""
        return self.mu(self.trunk(h))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Map h [*, H] to the mean [*, Z] and the logarithm of the variance [*, Z]."""
        x = self.trunk(h)
        return self.mu(x), self.logvar(x).clamp(-10.0, 4.0)


def divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """Return the KL divergence [*, Z] of each latent from the standard normal distribution."""
    return -0.5 * (1.0 + logvar - mu.square() - logvar.exp())


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * grad, None


def reverse_gradient(x: Tensor, weight: float) -> Tensor:
    """Return ``x`` itself; the backward pass multiplies its gradient by ``-weight`` (Ganin & Lempitsky 2015)."""
    return _Reverse.apply(x, weight)


class FormationDecoder(nn.Module):
    """g(F | z_i, z_far, z_near): the whole team's formation from one agent's latent and its two partners'.

    ``form_target``: bits fits distances in units of the largest by squared error and the bits of the keys by
    cross-entropy; raw is the published code's squared error on all numbers divided by 1000, as if hashes had a metric.
    """

    def __init__(self, n_agents: int, latent_dim: int, hidden_dim: int, bits: int, form_target: FormTarget) -> None:
        super().__init__()
        self.n_agents, self.bits, self.raw = n_agents, bits, form_target == "raw"
        self.size = 4 * n_agents if self.raw else n_agents * (2 + 2 * bits)
        self.net = mlp(3 * latent_dim, hidden_dim, self.size)

    def encode(self, blocks: Tensor, reach: Tensor) -> Tensor:
        """Map formation blocks [*, n, 4] and the largest distance, 0-d, to 2n distances and 2nb bits, or raw to its 4n
        numbers in thousandths, [*, D]."""
        if self.raw:
            return blocks.flatten(-2) / 1000.0
        distances = blocks[..., :2] / torch.where(reach > 0, reach, 1.0)
        powers = torch.arange(self.bits - 1, -1, -1, device=blocks.device)
        bits = (blocks[..., 2:, None].long() >> powers) & 1  # [*, n, 2, b]
        return torch.cat([distances.flatten(-2), bits.flatten(-3).to(blocks.dtype)], -1)

    def forward(self, z: Tensor) -> Tensor:
        """Map z [*, 3Z] to logits [*, D]."""
        return self.net(z)

    def places(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return the first layer's weights for a latent in each of a trio's three places, [Z, H], and its bias."""
        enter = self.layers()[0]
        return tuple(place.t() for place in enter.weight.detach().chunk(3, 1)), enter.bias.detach()

    def room(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Allocate memory for ``finish``; on every call this would cost as much as the arithmetic."""
        like = self.layers()[0].weight.detach()
        return tuple(like.new_empty(rows, width) for width in (len(like), len(like), self.size))  # type: ignore[return-value]

    def layers(self) -> list[nn.Linear]:
        return [layer for layer in self.net if isinstance(layer, nn.Linear)]

    @torch.no_grad()
    def finish(self, room: tuple[Tensor, Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> Tensor:
        """Return log g [N] of the split targets ``wanted`` of N trios, given the first layer before its ReLU in room[0]
        [N, H]; ``room`` is overwritten."""
        _, hidden, leave = self.layers()
        x, y, logits = room
        torch.addmm(hidden.bias, x.relu_(), hidden.weight.t(), out=y)
        torch.addmm(leave.bias, y.relu_(), leave.weight.t(), out=logits)
        return self.fit(logits, wanted)

    def wanted(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Split target [*, D] into its distances and a sign for each bit, -1 where it is set; raw: all numbers, no
        signs."""
        split = self.size if self.raw else 2 * self.n_agents
        return target[..., :split], 1.0 - 2.0 * target[..., split:]

    def log_likelihood(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return log g [*] of target [*, D] up to a constant: per number for bits, summed for raw as published."""
        return self.fit(logits, self.wanted(target))

    def fit(self, logits: Tensor, wanted: tuple[Tensor, Tensor]) -> Tensor:
        """Return ``log_likelihood`` for a target that ``wanted`` has split."""
        numbers, signs = wanted
        squared = (torch.sigmoid(logits[..., : numbers.shape[-1]]) - numbers).square().sum(-1)
        if self.raw:
            return -squared
        return -(squared + F.softplus(logits[..., numbers.shape[-1] :] * signs).sum(-1)) / self.size

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the reconstruction error [*] per number."""
        return -self.log_likelihood(logits, target) / (self.size if self.raw else 1)

    def bit_accuracy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the share, 0-d, of the keys' bits that are right."""
        split = 2 * self.n_agents
        return ((logits[..., split:] > 0) == (target[..., split:] > 0.5)).float().mean()


class FoXHeads(nn.Module):
    """Q_i = shared(h_i) + local_i(h_i) + formation(z_i), where z_i is the encoder's mean, also in tests and targets."""

    def __init__(self, shared: nn.Module, encoder: Encoder, n_agents: int, hidden_dim: int, n_actions: int) -> None:
        super().__init__()
        self.shared, self.encoder = shared, encoder
        self.local = StackedLinear(n_agents, hidden_dim, n_actions)
        self.formation = nn.Linear(encoder.latent_dim, n_actions)

    def forward(self, h: Tensor) -> Tensor:
        """Map h [*, n, H] to q [*, n, A]."""
        return self.shared(h) + self.local(h) + self.formation(self.encoder.mean(h))


class FoXAgent(RecurrentAgent):
    """The recurrent agent with an additional head per agent and a head on the latent. ``FoXHook`` trains the encoder;
    with other algorithms it is an ordinary part of the agent."""

    def __init__(self, spec: EnvSpec, *, latent_dim: int, encoder_dim: int, **base: Any) -> None:
        super().__init__(spec, **base)
        encoder = Encoder(self.hidden_dim, latent_dim, encoder_dim)
        self.fc_out = FoXHeads(self.fc_out, encoder, spec.n_agents, self.hidden_dim, spec.n_actions)
