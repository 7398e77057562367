"""How well FoX's latents predict the formation: networks, their losses, and the reward for predicting it together.

Equations as implemented: docs/fox.md. Axis letters: ``P`` sampled (step, agent) pairs, ``R`` rows, ``D`` as in
``algos.fox.nets``.
"""

from __future__ import annotations

from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from algos.fox.gains import Gains
from algos.fox.nets import Encoder, FormationDecoder, FormTarget, FoXHeads, divergence, mlp, reverse_gradient
from marl.core.checks import require_at_least, require_choice, require_positive
from marl.core.distributed import all_reduce_gradients, global_count, greatest
from marl.core.types import ConfigError, EpisodeBatch, Metrics
from marl.learn.agents import RecurrentAgent
from marl.learn.learner import make_optimizer

CACHED, LARGE = 1024, 65536  # (step, agent) pairs decoded at once: on a CPU, as many as fit into its cache; on a GPU


class Awareness:
    """Encoder q(z | h), decoder g of formations, decoder k of histories, and the reward that they give.

    The encoder is ``agent``'s if it has one. ``bits``: the bits of a formation's keys. ``code`` keeps the defects of
    the published code (docs/fox.md). ``form_target``: see ``FormationDecoder``; null: the variant's. ``samples``
    latents per agent and step estimate the reward. Every ``interval`` updates, one gradient step on ``minibatch``
    (step, agent) pairs trains the networks; ``flip`` weights the reversed gradient. ``gen`` samples latents and
    minibatches.
    """

    def __init__(
        self,
        agent: RecurrentAgent,
        gen: Generator,
        bits: int,
        code: bool,
        *,
        form_target: FormTarget | None,
        samples: int,
        minibatch: int,
        interval: int,
        latent_dim: int,
        encoder_dim: int,
        flip: float,
        kl_weight: float,
        lr: float,
        grad_clip: float,
    ) -> None:
        require_at_least("fox.aware", 1, samples=samples, minibatch=minibatch, interval=interval)
        require_at_least("fox.aware", 1, encoder_dim=encoder_dim)
        require_choice("fox.aware", get_args(FormTarget), form_target=form_target, or_null=True)
        require_at_least("fox.aware", 0, flip=flip, kl_weight=kl_weight)
        require_positive("fox.aware", grad_clip=grad_clip)
        target = form_target or ("raw" if code else "bits")
        self.n, self.gen, self.code, self.device = agent.n_agents, gen, code, gen.device
        self.samples, self.minibatch, self.interval = samples, minibatch, interval
        self.flip, self.kl_weight, self.grad_clip = flip, kl_weight, grad_clip
        self.encoder = encoder_of(agent, latent_dim, encoder_dim)
        self.decoder = FormationDecoder(self.n, latent_dim, encoder_dim, bits, target)
        self.history = mlp(latent_dim, encoder_dim, agent.hidden_dim)
        for net in self.networks().values():
            net.to(self.device)
        self.weights = [p for net in self.networks().values() for p in net.parameters()]
        self.optimizer = make_optimizer("adam", self.weights, lr, eps=1e-8)
        self.reach, self.largest = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        self.calls = 0

    def networks(self) -> dict[str, nn.Module]:
        return {"fox_encoder": self.encoder, "fox_decoder": self.decoder, "fox_history": self.history}

    def observe(self, blocks: Tensor) -> None:
        """Record the largest distance so far in formation blocks [R, n, 4], the decoder's unit of distance."""
        self.reach = torch.maximum(self.reach, greatest(blocks[..., :2].amax()).to(self.device))

    @torch.no_grad()
    def reward(self, h: Tensor, partners: Tensor, blocks: Tensor, nonpositive: bool) -> tuple[Tensor, Tensor]:
        """Return the sum over agents [R] of the mean of ``samples`` gains, and c, 0-d, from h [R, n, H], partners long
        [R, n, 2] and blocks [R, n, 4].

        A gain says how much better three latents together predict the formation than each alone. The agent's smallest
        and largest gain in the batch scale it to [0, c], or with ``nonpositive`` to [-c, 0]. c = |mean log g| / its
        running maximum falls as the decoder learns."""
        mu, logvar = self.encoder(h)
        std, target = (0.5 * logvar).exp(), self.decoder.encode(blocks, self.reach)  # [R, D]
        gains, known = torch.zeros(h.shape[:2], device=h.device), torch.zeros((), device=h.device)
        low, high = torch.full_like(gains[0], torch.inf), torch.full_like(gains[0], -torch.inf)
        pairs = CACHED if h.device.type == "cpu" else LARGE
        steps = max(1, pairs // h.shape[1])
        for first in range(0, len(h), steps):
            part = slice(first, first + steps)
            drawn = Gains(self.decoder, mu[part], std[part], partners[part], target[part], self.samples, self.gen)
            for number in range(self.samples):
                log_g, gain = drawn.draw(number)
                gains[part] += gain
                known += log_g.sum()
                low, high = torch.minimum(low, gain.amin(0)), torch.maximum(high, gain.amax(0))
        known = (known / (self.samples * gains.numel())).abs()
        self.largest = torch.maximum(self.largest, greatest(known))
        c = known / self.largest.clamp(min=1e-12)
        edge = high if nonpositive else low
        return (c * (gains / self.samples - edge) / (high - low + 1e-6)).sum(-1), c

    def noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.gen, device=like.device)

    def update(self, batch: EpisodeBatch, h: Tensor) -> Metrics:
        """Take one gradient step every ``interval`` calls and return what to log; h [M, T+1, n, H]."""
        self.calls += 1
        if self.calls % self.interval:
            return {}
        loss, facts = self.latent_loss(batch, h)
        self.optimizer.zero_grad(set_to_none=True)
        (loss / global_count(torch.ones((), device=loss.device))).backward()  # the mean over ranks
        all_reduce_gradients(self.weights)
        nn.utils.clip_grad_norm_(self.weights, self.grad_clip)
        self.optimizer.step()
        return facts | {"loss/fox": loss.detach()}

    def latent_loss(self, batch: EpisodeBatch, h: Tensor) -> tuple[Tensor, Metrics]:
        """Return the loss, 0-d, of encoder and decoders on ``minibatch`` sampled pairs of a filled step and an agent,
        and what to log; h [M, T+1, n, H]."""
        where = batch.filled.nonzero()
        m, t = where[torch.randint(len(where), (self.minibatch,), generator=self.gen, device=where.device)].unbind(1)
        i = torch.randint(self.n, (self.minibatch, 1), generator=self.gen, device=where.device)
        trio = torch.cat([i, batch.fox_partners[m, t, i[:, 0]].long()], 1)  # the agent itself, farthest, nearest
        return self.loss_of(take(h[m, t], trio), self.decoder.encode(batch.fox_blocks[m, t], self.reach))

    def loss_of(self, h: Tensor, target: Tensor) -> tuple[Tensor, Metrics]:
        """Return the loss, 0-d, and what to log, from hidden states h [P, 3, H] of an agent, its farthest and its
        nearest teammate, and target [P, D]."""
        mu, logvar = self.encoder(h)
        z = mu + (0.5 * logvar).exp() * self.noise(mu)
        logits = self.decoder(z.flatten(-2))
        recon, kl = self.decoder.loss(logits, target).mean(), divergence(mu, logvar)  # kl [P, 3, Z]
        if self.code:
            # three backward calls without zeroing gradients: the reversal cancels out, the divergence dominates
            tau = F.mse_loss(torch.sigmoid(self.history(z[:, 0])), h[:, 0])
            per_latent = kl.sum(-1).mean(0)  # [3]
            loss = 2.0 * (recon + per_latent.sum()) + (1.0 - self.flip) * (tau + per_latent[0])
        else:
            tau = F.mse_loss(torch.tanh(self.history(reverse_gradient(z[:, 0], self.flip))), h[:, 0])
            loss = recon + self.kl_weight * kl.mean() + tau
        facts = {"fox/recon": recon.detach(), "fox/kl": kl.mean().detach(), "fox/tau_recon": tau.detach()}
        return loss, facts if self.decoder.raw else facts | {"fox/bit_acc": self.decoder.bit_accuracy(logits, target)}

    def state_dict(self) -> dict[str, Any]:
        return {
            **{name: net.state_dict() for name, net in self.networks().items()},
            "optimizer": self.optimizer.state_dict(),
            "reach": self.reach,
            "largest": self.largest,
            "calls": self.calls,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, net in self.networks().items():
            net.load_state_dict(state[name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.reach, self.largest = state["reach"].to(self.device), state["largest"].to(self.device)
        self.calls = int(state["calls"])


def encoder_of(agent: RecurrentAgent, latent_dim: int, encoder_dim: int) -> Encoder:
    """Return the agent's own encoder, or a new one where the agent has none."""
    if not isinstance(agent.fc_out, FoXHeads):
        return Encoder(agent.hidden_dim, latent_dim, encoder_dim)
    encoder = agent.fc_out.encoder
    if encoder.latent_dim != latent_dim:
        raise ConfigError(
            f"algo.agent.latent_dim={encoder.latent_dim} and fox.aware.latent_dim={latent_dim} must be equal"
        )
    return encoder


def take(x: Tensor, agents: Tensor) -> Tensor:
    """Select the agents long [R, k] of each row of x [R, n, F] -> [R, k, F]."""
    return x.gather(1, agents.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
