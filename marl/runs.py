"""Reading run folders: their configuration, their newest checkpoint, and the policy in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from marl import checkpoint
from marl.build import Parts, build
from marl.types import Clock, ConfigError


def read_config(run_dir: Path) -> DictConfig:
    """The resolved configuration that a run was trained with."""
    path = run_dir / "config.json"
    if not path.exists():
        raise ConfigError(f"run={run_dir} is not a run folder: it has no config.json")
    return OmegaConf.create(json.loads(path.read_text(encoding="utf8")))


def pick_checkpoint(run_dir: Path, step: int | None) -> Path:
    """The newest whole checkpoint, or the one of environment step ``step``."""
    root = run_dir / "checkpoints"
    if step is None:
        found = checkpoint.newest(root)
        if found is None:
            raise ConfigError(f"run={run_dir} has no usable checkpoint")
        return found[0]
    by_step = {int(folder.name.removeprefix("step_")): folder for folder in checkpoint.folders(root)}
    if step not in by_step:
        raise ConfigError(f"checkpoint={step} is not in {root}; there are {', '.join(map(str, sorted(by_step)))}")
    checkpoint.verify(by_step[step])
    return by_step[step]


def load_trained(run_dir: Path, overrides: dict[str, Any], n_envs: int, step: int | None = None) -> tuple[Parts, Clock]:
    """The trained team of a run on a fresh environment with ``n_envs`` lanes.

    ``overrides`` replaces top-level keys of the stored configuration: seed, device, threads, env, attack.
    """
    cfg = read_config(run_dir)
    folder = pick_checkpoint(run_dir, step)
    for key, value in overrides.items():
        if value is not None:
            cfg[key] = value
    parts = build(cfg, n_envs, env_stream="eval")
    state = checkpoint.load_state(folder, parts.device)
    try:
        parts.algo.load_state_dict(state["algo"])
    except RuntimeError as error:  # torch's message lists every tensor
        parts.env.close()
        raise ConfigError(
            f"the team of {run_dir} does not fit this environment: {str(error).splitlines()[-1].strip()}"
        ) from error
    clock = Clock()
    clock.load_state_dict(state["clock"])
    return parts, clock
