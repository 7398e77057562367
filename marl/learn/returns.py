"""TD(lambda) targets for whole episodes at once. Sutton & Barto (2018), section 12.1, eq. 12.2-12.3."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from marl.core.caching import njit

BLOCK = 512  # steps that one product covers; beyond that, memory is linear in the number of steps


@njit(cache=True)
def _sum_backwards(x: np.ndarray, factor: float) -> None:
    """Replace x [M, T, m] by its discounted sums."""
    M, T, m = x.shape
    for lane in range(M):
        for t in range(T - 2, -1, -1):
            for k in range(m):
                x[lane, t, k] += factor * x[lane, t + 1, k]


def discounted_sums(x: Tensor, factor: float) -> Tensor:
    """Return ``y[t] = x[t] + factor y[t+1]`` for x [M, T, m]: on the CPU by a compiled loop; elsewhere, or if a
    gradient is needed, by matrix products."""
    if x.device.type == "cpu" and not x.requires_grad:
        sums = x.clone(memory_format=torch.contiguous_format)
        _sum_backwards(sums.numpy(), factor)
        return sums
    return sums_by_products(x, factor)


def sums_by_products(x: Tensor, factor: float) -> Tensor:
    """Compute ``discounted_sums`` without a loop over steps: within each block of steps, one product with the upper
    triangular matrix ``factor ** (j - t)``, plus the discounted sum after the block."""
    steps = torch.arange(min(x.shape[1], BLOCK), device=x.device, dtype=x.dtype)
    distance = steps[None, :] - steps[:, None]  # [BLOCK, BLOCK]
    decay = torch.where(distance >= 0, factor ** distance.clamp(min=0), 0.0)
    if x.shape[1] <= BLOCK:
        return decay @ x
    sums: list[Tensor] = []  # of the blocks, the last first
    for block in reversed(x.split(BLOCK, 1)):
        size = block.shape[1]
        within = decay[:size, :size] @ block
        if sums:
            within = within + factor ** (size - steps[:size, None]) * sums[-1][:, :1]
        sums.append(within)
    return torch.cat(sums[::-1], 1)


def td_lambda(reward: Tensor, terminated: Tensor, filled: Tensor, v: Tensor, gamma: float, lam: float) -> Tensor:
    """Return the lambda-returns [M, T, m].

    ``reward`` [M, T, 1 or m], ``terminated`` bool [M, T, 1], ``filled`` bool [M, T, 1], ``v`` [M, T+1, m] the values to
    bootstrap from. A truncated episode bootstraps from its last value, a terminated one does not; each episode's
    recursion starts at its own last filled step, however long the others are. Unfilled steps get 0.

    The recursion ``y[t] = r[t] + gamma (1 - terminated[t]) ((1 - lam) v[t+1] + lam y[t+1])`` has constant coefficients
    up to the episode's end, so that it is a discounted sum of what each step adds.
    """
    running = filled & ~terminated
    goes_on = torch.zeros_like(filled)
    goes_on[:, :-1] = filled[:, 1:]
    weight = gamma * (1.0 - lam * goes_on.to(v.dtype)) * running  # [M, T, 1] of the bootstrap value
    local = torch.where(filled, reward + weight * v[:, 1:], 0.0)  # [M, T, m]
    return torch.where(filled, discounted_sums(local, gamma * lam), 0.0)
