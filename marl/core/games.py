"""Check that what a factory made is a game as ``VectorEnv`` defines it, before anything is played or written."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from marl.core.types import ConfigError, EnvSpec

NEEDED = ("spec", "n_envs", "device", "resumable", "reset", "step", "close")  # of VectorEnv, in every training


def spec_fault(spec: EnvSpec) -> str | None:
    """Return what is wrong with a spec, taken on its own, in one line; None if nothing is."""
    n, width = spec.n_agents, spec.obs_dim
    sizes = {name: getattr(spec, name) for name in ("n_agents", "n_actions", "obs_dim", "state_dim", "episode_limit")}
    for name, size in sizes.items():
        if not isinstance(size, Integral) or isinstance(size, bool):
            return f"{name}={size} must be a whole number"
        if size < 1:
            return f"{name}={size} must be at least 1"
    for name in ("obs_low", "obs_high"):
        bound = getattr(spec, name)
        if not isinstance(bound, Tensor) or bound.shape != (width,) or bound.dtype != torch.float32:
            return f"{name} is not f32 [{width}]"
    if not bool((spec.obs_low <= spec.obs_high).all()):
        return "obs_low exceeds obs_high"
    for name in ("noop_action", "idle_action"):
        action = getattr(spec, name)
        if action is not None and not 0 <= action < spec.n_actions:
            return f"{name} {action} of {spec.n_actions} actions"
    for name, size in (("obs_names", width), ("state_names", spec.state_dim), ("action_names", spec.n_actions)):
        given = len(getattr(spec, name))
        if given not in (0, size):
            return f"{name} has {given} entries, expected none or {size}"
    about = spec.about
    if about is not None and (about.shape != (n, n, width) or about.dtype != torch.bool):
        return f"about is not bool [{n}, {n}, {width}]"
    return None


def require_game(env: Any, n_envs: int, section: str, target: str) -> None:
    """Refuse what is not a game, is incomplete, or has the wrong number of lanes or a bad spec. Raise ConfigError."""
    if not (hasattr(env, "spec") and hasattr(env, "step")):
        raise ConfigError(f"{section}._target_={target} makes no environment, but a {type(env).__name__}")
    if missing := [name for name in NEEDED if not hasattr(env, name)]:
        raise ConfigError(f"{section}._target_={target}: {type(env).__name__} lacks {', '.join(missing)}")
    if env.n_envs != n_envs:
        raise ConfigError(f"{section}._target_={target}: n_envs={n_envs} lanes were asked for, it has {env.n_envs}")
    if (fault := spec_fault(env.spec)) is not None:
        raise ConfigError(f"{section}.{fault}")
