"""Conversion of Gymnasium's spaces and lists to the padded arrays of a lane, for the adapters; imports no torch.

Agents may have different sizes: shorter observations are padded with zeros, missing actions are unavailable.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim, flatten, flatten_space

from envs.adapters.returned import MASK_NAMES, OBS_NAMES, Bounds, find_mask, flag, mask_row, shown

Pooling = Literal["sum", "mean", "shared"]
WON_KEYS = ("won", "battle_won", "is_success")


class TeamSpaces:
    """The agents' action and observation spaces as one padded layout.

    A dictionary observation that holds an observation and an action mask, under their usual names, is split into the
    two. ``low``/``high`` f32 [O] cover all agents, and zero, which stands for anything absent. Raises ValueError for
    actions that are not Discrete.
    """

    def __init__(self, actions: Sequence[spaces.Space[Any]], observations: Sequence[spaces.Space[Any]]) -> None:
        if len(actions) != len(observations) or not actions:
            raise ValueError(f"{len(actions)} action spaces for {len(observations)} observation spaces")
        for agent, space in enumerate(actions):
            if not isinstance(space, spaces.Discrete):
                raise ValueError(f"agent {agent} has the action space {space}; only Discrete actions are supported")
        self.actions = [space for space in actions if isinstance(space, spaces.Discrete)]
        self.keys = [_observation_key(space) for space in observations]
        self.observations = [
            space[key] if key is not None and isinstance(space, spaces.Dict) else space
            for key, space in zip(self.keys, observations, strict=True)
        ]
        self.bounds = Bounds()
        self.n_agents = len(actions)
        self.n_actions = max(int(space.n) for space in self.actions)
        self.widths = [flatdim(space) for space in self.observations]
        self.obs_dim = max(self.widths)
        self.low, self.high = np.zeros(self.obs_dim, np.float32), np.zeros(self.obs_dim, np.float32)
        self.lows: list[np.ndarray] = []
        self.highs: list[np.ndarray] = []
        for space, width in zip(self.observations, self.widths, strict=True):
            box = flatten_space(space)
            assert isinstance(box, spaces.Box)
            self.lows.append(box.low.astype(np.float32))
            self.highs.append(box.high.astype(np.float32))
            self.low[:width] = np.minimum(self.low[:width], box.low.astype(np.float32))
            self.high[:width] = np.maximum(self.high[:width], box.high.astype(np.float32))
        self.legal = np.zeros((self.n_agents, self.n_actions), bool)  # [n, A] without any mask
        for agent, space in enumerate(self.actions):
            self.legal[agent, : int(space.n)] = True

    def write(self, agent: int, observation: Any, row: np.ndarray) -> Any:
        """Flatten an observation into ``row`` f32 [O]; return the action mask found inside it, or None."""
        mask, key, space = None, self.keys[agent], self.observations[agent]
        if key is not None:
            if not isinstance(observation, dict) or key not in observation:
                raise ValueError(f"the observation of agent {agent} must have '{key}', got {shown(observation)}")
            observation, mask = observation[key], find_mask(observation)
        if isinstance(space, spaces.Box) and np.shape(observation) != space.shape:
            wanted = f"the shape {space.shape} of its space"
            raise ValueError(f"the observation of agent {agent} must have {wanted}, got {np.shape(observation)}")
        width = self.widths[agent]
        row[:width], row[width:] = flatten(space, observation), 0.0
        self.bounds.check(agent, row[:width], self.lows[agent], self.highs[agent])
        return mask

    def allow(self, agent: int, mask: Any, row: np.ndarray) -> None:
        """Write the available actions into ``row`` bool [A]; ``mask`` None means all that the agent has."""
        row[:] = self.legal[agent]
        if mask is not None:
            size = int(self.actions[agent].n)
            row[:size] &= mask_row(mask, size, f"the action mask of agent {agent}")

    def require_noop(self, noop: int | None) -> None:
        """Raise ValueError for a ``noop_action`` that no agent has."""
        if noop is not None and noop not in range(self.n_actions):
            raise ValueError(f"noop_action={noop} must be within [0, {self.n_actions - 1}], or null for none")

    def native(self, agent: int, action: int) -> int:
        """Return the action in the game's own numbering (Discrete spaces may start anywhere)."""
        return int(action) + int(self.actions[agent].start)


def _observation_key(space: spaces.Space[Any]) -> str | None:
    """Return the key of the observation in a dictionary that also holds an action mask; None for other spaces."""
    if isinstance(space, spaces.Dict) and any(name in space.spaces for name in MASK_NAMES):
        for key in OBS_NAMES:
            if key in space.spaces:
                return key
        names = ", ".join(map(str, space.spaces))
        raise ValueError(f"an observation with a mask must be under {', '.join(OBS_NAMES)}; this game has {names}")
    return None


def pool_rewards(rewards: Sequence[float], how: Pooling, n_agents: int) -> float:
    """Return the team's reward. ``mean`` divides by the full team; ``shared`` needs equal rewards of all present."""
    values = [float(value) for value in rewards]
    if how == "sum":
        return sum(values)
    if how == "mean":
        return sum(values) / n_agents
    if how != "shared":
        raise ValueError(f"reward must be 'sum', 'mean' or 'shared', got '{how}'")
    if any(value != values[0] for value in values):
        raise ValueError(f"reward=shared, but the agents got {values}; choose reward=sum or reward=mean")
    return values[0] if values else 0.0


def find_won(info: dict[str, Any], part: str = "info") -> bool:
    """Return whether a game's info reports success under one of the usual names; None says nothing. Raise ValueError,
    in which the info is called ``part``, if it is not one flag."""
    return any([flag(info[key], f"'{key}' in {part}") for key in WON_KEYS if info.get(key) is not None])


def load_factory(path: str, default: str) -> Callable[..., Any]:
    """Return the function behind "package.module:function"; without a colon, ``default`` is its name."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name or default)
