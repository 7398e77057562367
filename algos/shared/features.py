"""State features and step information by the names an environment gives them, as plug-in options refer to them."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from marl.core.types import ConfigError, EnvSpec


def feature_names(spec: EnvSpec) -> tuple[str, ...]:
    """Return one name per state feature; "dim 7" where the environment gives none."""
    return spec.state_names or tuple(f"dim {d}" for d in range(spec.state_dim))


def matching(spec: EnvSpec, patterns: list[str], key: str, must: bool = True) -> Tensor:
    """Return which state features match the patterns, bool [S]. A pattern is a regular expression searched for in
    feature names, or a slice such as "3:7". Raise ConfigError if one matches no feature, unless ``must`` is False."""
    names, chosen = feature_names(spec), torch.zeros(spec.state_dim, dtype=torch.bool)
    for pattern in patterns:
        if cut := re.fullmatch(r"(\d*):(\d*)", pattern):
            found = torch.zeros_like(chosen)
            found[slice(*(int(end) if end else None for end in cut.groups()))] = True
        else:
            try:
                found = torch.tensor([re.search(pattern, name) is not None for name in names])
            except re.error as error:
                raise ConfigError(f"{key}='{pattern}' is no regular expression: {error}") from error
        if must and not found.any():
            raise ConfigError(f"{key}='{pattern}' names no state feature; there are {', '.join(names[:40])}")
        chosen |= found
    return chosen


def require_info(spec: EnvSpec, section: str, *names: str) -> None:
    """Raise ConfigError naming the first of ``names`` that is missing from the environment's ``Step.info``."""
    for name in names:
        if name not in spec.info_names:
            there = ", ".join(spec.info_names) or "nothing"
            raise ConfigError(f"{section}: '{name}' is not told by this environment; it tells {there}")
