"""The grid games with the values of their configurations (hunts are smaller); keywords change them."""

from __future__ import annotations

from typing import Any

from envs.grid.pushbox import PushBox
from envs.grid.spread import Spread
from envs.grid.staghunt import StagHunt

PUSH: dict[str, Any] = {"size": 11, "n_boxes": 2, "lone_push": 0.2, "goal_reward": 10.0, "episode_limit": 40}
SPREAD: dict[str, Any] = {
    "size": 8, "n_agents": 4, "distance": 6, "sight": 0, "start": "centre",
    "goal_reward": 1.0, "episode_limit": 30,
}  # fmt: skip
HUNT: dict[str, Any] = {
    "size": 6, "n_predators": 4, "n_prey": 2, "capture_needs": 2, "capture_reward": 10.0, "penalty": 2.0,
    "catchers_leave": True, "prey_rest": 0.0, "sight": 2, "episode_limit": 30,
}  # fmt: skip


def push(n_envs: int, seed: int = 0, **changes: Any) -> PushBox:
    return PushBox(**{**PUSH, **changes}, n_envs=n_envs, seed=seed)


def spread(n_envs: int, seed: int = 0, **changes: Any) -> Spread:
    return Spread(**{**SPREAD, **changes}, n_envs=n_envs, seed=seed)


def hunt(n_envs: int, seed: int = 0, game: type[StagHunt] = StagHunt, **changes: Any) -> StagHunt:
    return game(**{**HUNT, **changes}, n_envs=n_envs, seed=seed)
