"""The parts of S2Q that are easy to state alone: encoder-decoder, distribution over candidates, claims, suppression."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from marl.core.types import ConfigError, require_positive


class EncoderDecoder(nn.Module):
    """From the agents' histories to a latent, and from it to the state and the distribution over K+1 candidates."""

    def __init__(self, inputs: int, state_dim: int, candidates: int, *, hidden_dim: int, latent_dim: int) -> None:
        super().__init__()
        require_positive("algo", decoder_dim=hidden_dim, latent_dim=latent_dim)
        D = hidden_dim
        self.encoder = nn.Sequential(
            nn.Linear(inputs, D), nn.ReLU(), nn.Linear(D, D), nn.ReLU(), nn.Linear(D, latent_dim)
        )
        self.trunk = nn.Sequential(nn.Linear(latent_dim, D), nn.ReLU(), nn.Linear(D, D), nn.ReLU())
        self.to_state, self.to_logits = nn.Linear(D, state_dim), nn.Linear(D, candidates)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states h [*, n, H] -> state [*, S], log-probabilities [*, K+1]."""
        y = self.trunk(self.encode(h))
        return self.to_state(y), self.to_logits(y).log_softmax(-1)

    def encode(self, h: Tensor) -> Tensor:
        """h [*, n, H] -> latent [*, L]."""
        return self.encoder(h.flatten(-2))


class CandidateSoftmax(nn.Module):
    """P = softmax over the candidates of Q* / temperature (paper eq. 4).

    ``relative`` multiplies the temperature by a running standard deviation of candidate values, for rewards of unknown
    scale. ``dedup`` gives a joint action that an earlier head proposes already no probability of its own.
    """

    def __init__(self, temperature: float, mode: Literal["absolute", "relative"], dedup: bool) -> None:
        super().__init__()
        if temperature <= 0:
            raise ConfigError(f"learner.temperature={temperature} must be positive")
        if mode not in ("absolute", "relative"):
            raise ConfigError(f"learner.temperature_mode={mode} is not known; choose one of absolute, relative")
        self.temperature, self.relative, self.dedup = temperature, mode == "relative", dedup
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def observe(self, values: Tensor, filled: Tensor, rate: float = 0.05) -> None:
        """Move the scale towards the deviation of values [M, T, K+1] at the filled steps, bool [M, T]."""
        if self.relative:
            count = filled.sum() * values.shape[-1]
            kept = torch.where(filled[..., None], values, 0.0)
            spread = torch.where(filled[..., None], values - kept.sum() / count, 0.0).square().sum() / count
            self.scale.lerp_(spread.sqrt(), rate)

    def forward(self, values: Tensor, candidates: Tensor) -> Tensor:
        """Values [*, K+1] of the joint actions long [*, K+1, n] -> probabilities [*, K+1]."""
        temperature = self.temperature * self.scale.clamp(min=1e-6) if self.relative else self.temperature
        logits = values / temperature
        return (logits.masked_fill(repeated(candidates), -torch.inf) if self.dedup else logits).softmax(-1)


def repeated(candidates: Tensor) -> Tensor:
    """Bool [*, K+1]: an earlier candidate is the same joint action; candidates long [*, K+1, n]."""
    same = (candidates.unsqueeze(-2) == candidates.unsqueeze(-3)).all(-1)  # [*, K+1, K+1]
    return same.tril(-1).any(-1)


def claimed_before(actions: Tensor, candidates: Tensor) -> Tensor:
    """Bool [*, K+1]: the joint action long [*, n] is the candidate of an earlier head; candidates long [*, K+1, n]."""
    hit = (candidates == actions.unsqueeze(-2)).all(-1)
    return (hit.cumsum(-1) - hit.long()) > 0


def suppress_amount(q: Tensor, alpha: float, floor: float | None) -> Tensor:
    """How far below the target a joint action goes that an earlier head claims: alpha times its Q*, at least ``floor``
    (paper eq. 2; the published code has alpha 1 and no floor)."""
    return alpha * (q if floor is None else q.clamp(min=floor))
