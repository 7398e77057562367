"""The self-contained parts of S2Q: encoder-decoder, distribution over candidates, claims, suppression."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from marl.core.checks import require_at_least, require_choice, require_positive
from marl.core.distributed import global_count, summed

TemperatureMode = Literal["absolute", "relative"]


class EncoderDecoder(nn.Module):
    """Encoder of the agents' histories into a latent, decoder of the state and the distribution over K+1 candidates."""

    def __init__(self, inputs: int, state_dim: int, candidates: int, *, hidden_dim: int, latent_dim: int) -> None:
        super().__init__()
        require_at_least("algo", 1, decoder_dim=hidden_dim, latent_dim=latent_dim)
        D = hidden_dim
        self.encoder = nn.Sequential(
            nn.Linear(inputs, D), nn.ReLU(), nn.Linear(D, D), nn.ReLU(), nn.Linear(D, latent_dim)
        )
        self.trunk = nn.Sequential(nn.Linear(latent_dim, D), nn.ReLU(), nn.Linear(D, D), nn.ReLU())
        self.to_state, self.to_logits = nn.Linear(D, state_dim), nn.Linear(D, candidates)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Map hidden states h [*, n, H] to the state [*, S] and log-probabilities [*, K+1]."""
        y = self.trunk(self.encode(h))
        return self.to_state(y), self.to_logits(y).log_softmax(-1)

    def encode(self, h: Tensor) -> Tensor:
        """Map hidden states h [*, n, H] to the latent [*, L]."""
        return self.encoder(h.flatten(-2))


class CandidateSoftmax(nn.Module):
    """P = softmax over the candidates of Q* / temperature (paper eq. 4).

    ``relative`` multiplies the temperature by a running standard deviation of candidate values, for rewards of unknown
    scale. ``dedup`` gives probability 0 to a joint action that an earlier head already proposes.
    """

    def __init__(self, temperature: float, mode: TemperatureMode, dedup: bool) -> None:
        super().__init__()
        require_positive("learner", temperature=temperature)
        require_choice("learner", get_args(TemperatureMode), temperature_mode=mode)
        self.temperature, self.relative, self.dedup = temperature, mode == "relative", dedup
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def observe(self, values: Tensor, filled: Tensor, rate: float = 0.05) -> None:
        """Move the scale towards the standard deviation of values [*, K+1] at the filled steps, bool [*]."""
        if self.relative:
            count = global_count(filled.sum() * values.shape[-1])
            mean = summed(torch.where(filled[..., None], values, 0.0).sum()) / count
            spread = summed(torch.where(filled[..., None], values - mean, 0.0).square().sum()) / count
            self.scale.lerp_(spread.sqrt(), rate)

    def forward(self, values: Tensor, candidates: Tensor) -> Tensor:
        """Map values [*, K+1] of the joint actions long [*, K+1, n] to probabilities [*, K+1]."""
        temperature = self.temperature * self.scale.clamp(min=1e-6) if self.relative else self.temperature
        logits = values / temperature
        return (logits.masked_fill(repeated(candidates), -torch.inf) if self.dedup else logits).softmax(-1)


def repeated(candidates: Tensor) -> Tensor:
    """Return which candidates long [*, K+1, n] repeat an earlier joint action, bool [*, K+1]."""
    same = (candidates.unsqueeze(-2) == candidates.unsqueeze(-3)).all(-1)  # [*, K+1, K+1]
    return same.tril(-1).any(-1)


def claimed_before(actions: Tensor, candidates: Tensor) -> Tensor:
    """Return for each head whether an earlier head's candidate (long [*, K+1, n]) is the joint action long [*, n], as
    bool [*, K+1]."""
    hit = (candidates == actions.unsqueeze(-2)).all(-1)
    return (hit.cumsum(-1) - hit.long()) > 0


def suppress_amount(q: Tensor, alpha: float, floor: float | None) -> Tensor:
    """Return how far a joint action that an earlier head claims is pushed below the target: alpha * max(Q*, ``floor``)
    (paper eq. 2; the published code has alpha 1 and no floor)."""
    return alpha * (q if floor is None else q.clamp(min=floor))
