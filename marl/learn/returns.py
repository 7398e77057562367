"""TD(lambda) targets for whole episodes at once. Sutton & Barto (2018), section 12.1, eq. 12.2-12.3."""

from __future__ import annotations

import torch
from torch import Tensor


def td_lambda(reward: Tensor, terminated: Tensor, filled: Tensor, v: Tensor, gamma: float, lam: float) -> Tensor:
    """Return the lambda-returns [M, T, m].

    ``reward`` [M, T, 1 or m], ``terminated`` bool [M, T, 1], ``filled`` bool [M, T, 1], ``v`` [M, T+1, m] the values to
    bootstrap from. A truncated episode bootstraps from its last value, a terminated one does not; each episode's
    recursion starts at its own last filled step, however long the others are. Unfilled steps get 0.

    The recursion ``y[t] = r[t] + gamma (1 - terminated[t]) ((1 - lam) v[t+1] + lam y[t+1])`` has constant coefficients
    up to the episode's end, so that it is one product with the upper triangular matrix ``(gamma lam) ** (j - t)``.
    """
    running = filled & ~terminated
    goes_on = torch.zeros_like(filled)
    goes_on[:, :-1] = filled[:, 1:]
    weight = gamma * (1.0 - lam * goes_on.to(v.dtype)) * running  # [M, T, 1] of the bootstrap value
    local = torch.where(filled, reward + weight * v[:, 1:], 0.0)  # [M, T, m]
    steps = torch.arange(local.shape[1], device=local.device, dtype=local.dtype)
    distance = steps[None, :] - steps[:, None]  # [T, T]
    decay = torch.where(distance >= 0, (gamma * lam) ** distance.clamp(min=0), 0.0)
    return torch.where(filled, decay @ local, 0.0)
