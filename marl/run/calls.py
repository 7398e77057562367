"""Turn the arguments of a call into the configuration of the script that does the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from marl.core.types import ConfigError
from marl.run.compose import compose_with_choices


def folders(given: Any) -> list[Any]:
    """Return run folders and patterns as strings, given a path, an object with a folder ``dir``, or several of them."""
    several = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    paths = [getattr(one, "dir", one) for one in several]
    return [str(one) if isinstance(one, Path) else one for one in paths]


def configured(
    script: str, runs: Any, overrides: list[str], options: dict[str, Any]
) -> tuple[DictConfig, dict[str, str]]:
    """Return the configuration of ``script`` with its option ``runs`` (None: unchanged), overrides and options by name,
    and the choices by group. Raise ConfigError."""
    cfg, chosen = compose_with_choices(overrides, script)
    given = {**({} if runs is None else {"runs": folders(runs)}), **options}
    names = {key for key, value in given.items() if key in chosen and not isinstance(value, Mapping | None)}
    if names:
        cfg, chosen = compose_with_choices([*overrides, *(f"{key}='{given[key]}'" for key in names)], script)
    for key, value in given.items():
        if key not in cfg and key not in chosen:
            raise ConfigError(f"{key} is not an option of marl.{script}; there are {', '.join(map(str, cfg))}")
        if key in names:
            continue
        try:
            OmegaConf.update(cfg, key, str(value) if isinstance(value, Path) else value, merge=True)
        except (ValueError, TypeError) as error:  # of another type
            raise ConfigError(f"{key}={value}: {' '.join(str(error).split())}") from error
    return cfg, chosen
