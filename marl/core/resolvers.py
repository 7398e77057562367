"""Resolvers for ``${...}`` in configurations: parts of a run's path, and values that depend on the map."""

from __future__ import annotations

import hashlib
from typing import Any

from omegaconf import DictConfig, OmegaConf

# keys that may differ between a checkpoint and the run that continues it
FREE_ON_RESUME = (
    "name",
    "device",
    "threads",
    "resume",
    "objective",
    "runs_dir",
    "run_path",
    "eval",
    "checkpoint",
    "log",
    "train.total_steps",
    "env.timeout",
)

LONGEST_VARIANT = 160  # file systems allow 255 bytes; longer variants end in a digest

# groups and keys that the rest of the run's path already names
IN_PATH = ("name", "algo", "env", "attack", "seed", "launch", "experiment")


def is_free(key: str) -> bool:
    """Return whether a continued run may change ``key``."""
    return any(key == free or key.startswith(free + ".") for free in FREE_ON_RESUME)


def _variant(overrides: list[str]) -> str:
    """Return a folder prefix made of the overrides that the rest of the path does not name, so that a sweep over a
    learning rate makes one folder per value."""
    kept = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        named = key in IN_PATH and not value.startswith("{")  # a choice, not a mapping of options
        if not named and not is_free(key) and not key.startswith("hydra"):
            kept.append(f"{key}={value}".replace("/", "-"))
    text = ",".join(sorted(kept))
    if len(text) > LONGEST_VARIANT:
        text = f"{text[: LONGEST_VARIANT - 13]}~{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return f"{text}-" if text else ""


def _by_map(default: Any, *exceptions: Any, _root_: DictConfig) -> Any:
    """Return the value for the environment's map in ``exceptions`` (map, value, map, value, ...), or ``default``."""
    return dict(zip(exceptions[::2], exceptions[1::2], strict=True)).get(_root_.env.get("map"), default)


def _updates_in(episodes: int, _root_: DictConfig) -> int:
    """Return how many updates ``algo.episodes_per_update`` means in that many episodes, at least one. A value that is
    not a positive number is refused elsewhere."""
    each = _root_.algo.get("episodes_per_update")
    if isinstance(each, bool) or not isinstance(each, int | float) or each <= 0:
        return episodes
    return max(1, round(episodes / each))


def register() -> None:
    """Register the resolvers with OmegaConf; safe to call twice."""
    OmegaConf.register_new_resolver("variant", lambda overrides: _variant(list(overrides)), replace=True)
    OmegaConf.register_new_resolver("flat", lambda text: str(text).replace("/", "-"), replace=True)
    OmegaConf.register_new_resolver("by_map", _by_map, replace=True)
    OmegaConf.register_new_resolver("updates_in", _updates_in, replace=True)
