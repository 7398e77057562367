"""Check that a training configuration is within range, as far as that is known before anything is built."""

from __future__ import annotations

from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf

from marl.core.checks import (
    refuse_strange,
    require_at_least,
    require_below,
    require_choice,
    require_name,
    require_share,
    require_threads,
)
from marl.core.config import Objective, ProgressMode, ResumeMode
from marl.core.distributed import world
from marl.core.types import ConfigError


def refuse_early(cfg: DictConfig) -> None:
    """Refuse what can be refused before the run's folder exists: unknown keys, numbers that are not finite, and names
    that lead out of ``runs_dir``. Raise ConfigError."""
    refuse_strange(cfg)
    written = OmegaConf.to_container(cfg, resolve=False)  # values may refer to Hydra's own settings, which come later

    def known(*keys: str) -> dict[str, Any]:
        return {key: written[key] for key in keys if "${" not in str(written[key])}  # type: ignore[call-overload, index]

    require_name(**known("runs_dir", "init_from"))
    require_below("runs_dir", **known("name", "run_path"))


def validate(cfg: DictConfig) -> None:
    """Refuse top-level options that are out of range. Raise ConfigError."""
    refuse_early(cfg)
    require_at_least("train", 1, **{key: cfg.train[key] for key in ("total_steps", "n_envs")})
    if cfg.train.n_envs % world()[1]:
        raise ConfigError(f"train.n_envs={cfg.train.n_envs} lanes must be a multiple of the {world()[1]} processes")
    require_at_least("train", 1, rollout=cfg.train.rollout, or_null=True)
    require_at_least("train", 0, attack_start=cfg.train.attack_start)
    require_share("train", attack_fraction=cfg.train.attack_fraction)
    require_at_least("eval", 1, **{key: cfg.eval[key] for key in ("every", "episodes", "final_episodes", "n_envs")})
    require_at_least("replay", 1, capacity=cfg.replay.capacity)
    require_at_least("checkpoint", 1, every=cfg.checkpoint.every, keep=cfg.checkpoint.keep)
    require_at_least("checkpoint", 1, or_null=True, milestone=cfg.checkpoint.milestone)
    require_at_least("log", 1, every=cfg.log.every)
    require_choice("log", get_args(ProgressMode), progress=cfg.log.progress)
    require_at_least("", 0, seed=cfg.seed)
    require_threads(cfg.threads)
    require_choice("", get_args(ResumeMode), resume=cfg.resume)
    require_choice("", get_args(Objective), objective=cfg.objective)
    _require_room(cfg)


def _require_room(cfg: DictConfig) -> None:
    """Refuse a replay that cannot hold the episodes that the algorithm waits for."""
    if "warmup_episodes" not in cfg.algo:  # it does not wait, or its batches are not whole episodes
        return
    for key in ("warmup_episodes", "batch_size"):
        needed = cfg.algo.get(key)
        if isinstance(needed, int | float) and cfg.replay.capacity < needed:  # other types are refused elsewhere
            raise ConfigError(
                f"replay.capacity={cfg.replay.capacity} is smaller than algo.{key}={needed}: "
                "nothing would ever be learnt"
            )
