"""Composing takes most of the time of many tests: leave out what makes no difference to what is composed."""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra._internal import defaults_list
from omegaconf import OmegaConf

READ: dict[tuple[str, int, int], bytes] = {}  # by path, time of change and size: the configuration, pickled


def remembering(load: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a ``load`` that reads a file again only if it has changed; each call gets a copy of its own."""

    @functools.wraps(load)
    def loaded(file: Any) -> Any:
        name = str(file if isinstance(file, str | Path) else getattr(file, "name", ""))
        if not os.path.isabs(name):
            return load(file)
        stat = os.stat(name)
        key = (name, stat.st_mtime_ns, stat.st_size)
        if key not in READ:
            made = load(file)
            READ[key] = pickle.dumps(made)
            return made
        return pickle.loads(READ[key])

    return loaded


def only_if_asked(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``make``, which says what has been chosen, that does so only for choices that refer to others: Hydra
    asks at every file, and ours have none."""

    @functools.wraps(make)
    def made(overrides: Any, entries: list[Any], self_added: bool) -> Any:
        return make(overrides, entries, self_added) if any(entry.is_interpolation() for entry in entries) else None

    return made


def compose_quickly() -> None:
    """Let Hydra read each file of YAML once in this process and in its forks, and list no choices that nobody reads."""
    OmegaConf.load = staticmethod(remembering(OmegaConf.load))  # type: ignore[method-assign]
    defaults_list._create_interpolation_map = only_if_asked(defaults_list._create_interpolation_map)
