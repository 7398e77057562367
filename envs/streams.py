"""Per-lane random numbers: a hash of seed, lane, episode and a counter, vectorised over lanes.

A lane's numbers do not depend on how many other lanes there are or what they do; only two integers need saving.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class LaneStreams:
    """Counter-based random numbers: lane ``b`` draws from hash(seed, b, episode, counter), whatever the other lanes do.

    ``key`` uint64 [B] is fixed by (seed, b); ``episode`` int64 [B] counts the lane's resets. Nothing else needs saving.
    """

    def __init__(self, n_envs: int, seed: int) -> None:
        self.key = lane_keys(n_envs, seed)
        self.episode = np.zeros(n_envs, np.int64)

    def restart(self, mask: np.ndarray, seed: int | None) -> None:
        """Begin the next episode in the lanes of ``mask`` bool [B]; a seed restarts the streams of these lanes."""
        if seed is not None:
            self.key[mask] = lane_keys(len(self.key), seed)[mask]
            self.episode[mask] = 0
        self.episode[mask] += 1

    def redraw(self, seed: int) -> None:
        """Use the random numbers of another seed for the rest of the unfinished episodes."""
        self.key[:] = lane_keys(len(self.key), seed)

    def draw(self, counter: int | np.ndarray) -> np.ndarray:
        """Return uint64 [B], one number per lane for this ``counter`` of the current episode (a scalar or [B])."""
        with np.errstate(over="ignore"):
            return _mix(_mix(self.key + self.episode.astype(np.uint64)) + np.asarray(counter).astype(np.uint64))

    def integers(self, high: int, size: int) -> np.ndarray:
        """Return int64 [B, size], uniform in 0..high-1, from the first ``size`` counters of the current episode."""
        return np.stack([(self.draw(i) % np.uint64(high)).astype(np.int64) for i in range(size)], axis=1)

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "key": torch.from_numpy(self.key.view(np.int64).copy()),
            "episode": torch.from_numpy(self.episode.copy()),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if len(state["key"]) != len(self.key):
            raise ValueError(f"saved with {len(state['key'])} lanes, this environment has {len(self.key)}")
        self.key[:] = state["key"].numpy().view(np.uint64)
        self.episode[:] = state["episode"].numpy()


def _mix(x: np.ndarray) -> np.ndarray:
    """Apply the SplitMix64 step (Steele, Lea, Flood 2014), which maps neighbouring integers to unrelated ones."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def lane_keys(n_envs: int, seed: int) -> np.ndarray:
    """Return uint64 [B]: one key per (seed, lane)."""
    with np.errstate(over="ignore"):
        # Not symmetric in seed and lane, or lane 2 of seed 1 would be lane 1 of seed 2.
        return _mix(_mix(np.full(1, seed % 2**64, np.uint64)) + np.arange(n_envs, dtype=np.uint64))
