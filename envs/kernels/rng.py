"""One random stream per lane: a counter in the lane's record, hashed by splitmix64.

A lane's numbers depend only on (seed, lane), so results change neither with the number of lanes nor of threads.
"""

from __future__ import annotations

import numpy as np

from envs.kernels.compiled import Record, rule

STRIDE = np.uint64(0x9E3779B97F4A7C15)
MIX_A = np.uint64(0xBF58476D1CE4E5B9)
MIX_B = np.uint64(0x94D049BB133111EB)
ONE = np.uint64(1)
S11, S27, S30, S31 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)


@rule
def mix(z: np.uint64) -> np.uint64:
    """Apply splitmix64's finaliser, a bijection on 64-bit words."""
    z = (z ^ (z >> S30)) * MIX_A
    z = (z ^ (z >> S27)) * MIX_B
    return z ^ (z >> S31)


@rule
def seed_lane(lane: Record, seed: np.uint64, index: int) -> None:
    """Start the stream of lane ``index`` (its record ``lane``) for ``seed``."""
    lane.rng = mix(mix(np.uint64(seed) + STRIDE) + STRIDE * (np.uint64(index) + ONE))


@rule
def uniform(lane: Record) -> float:
    """Draw a number from [0, 1)."""
    lane.rng = lane.rng + STRIDE
    return np.float64(mix(lane.rng) >> S11) * 1.1102230246251565e-16


@rule
def below(lane: Record, limit: int) -> int:
    """Draw an integer from 0 .. limit - 1."""
    return int(uniform(lane) * limit)
