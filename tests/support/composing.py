"""Composing takes most of the time of many tests: leave out what makes no difference to what is composed."""

from __future__ import annotations

import copy
import functools
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tests.support.documented import ROOT

OURS = ("pkg://conf", f"file://{ROOT / 'conf'}", "pkg://hydra.conf", "structured://")  # which no test changes
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


def parsing_once(parse: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``parse``, which reads one override, that reads each once; each call gets an object of its own."""
    read: dict[tuple[str, str], Any] = {}

    @functools.wraps(parse)
    def parsed(self: OverridesParser, text: str, rule: str) -> Any:
        if (text, rule) not in read:
            read[text, rule] = parse(self, text, rule)
        return copy.copy(read[text, rule])

    return parsed


def stored(path: str) -> Any:
    """Return what Hydra's store holds under a path of a configuration, None for a file."""
    level: Any = ConfigStore.instance().repo
    for part in f"{path}.yaml".split("/"):
        level = level.get(part) if isinstance(level, dict) else None
    return level


def merging_once(merge: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``merge``, which puts together the chosen options, that does so once for the same choices: most tests
    compose what others have composed but for single values, which come later. Folders of a test's own may change."""
    merged: dict[Any, tuple[list[Any], bytes]] = {}  # the options of the store, kept alive, and what they gave

    @functools.wraps(merge)
    def made(self: ConfigLoaderImpl, defaults: list[Any], repo: Any) -> Any:
        if not all(f"{source.scheme()}://{source.path}" in OURS for source in repo.get_sources()):
            return merge(self, defaults, repo)
        options = [stored(default.config_path) for default in defaults if default.config_path is not None]
        key = (*map(repr, defaults), *map(id, options))
        if key not in merged:
            found = merge(self, defaults, repo)
            merged[key] = options, pickle.dumps(found)
            return found
        return pickle.loads(merged[key][1])

    return made


def compose_quickly() -> None:
    """Let Hydra read each file of YAML and each override and merge the same options once in this process and in its
    forks, and list no choices that nobody reads."""
    OmegaConf.load = staticmethod(remembering(OmegaConf.load))  # type: ignore[method-assign]
    OverridesParser.parse_rule = parsing_once(OverridesParser.parse_rule)  # type: ignore[method-assign]
    merge = ConfigLoaderImpl._compose_config_from_defaults_list
    ConfigLoaderImpl._compose_config_from_defaults_list = merging_once(merge)  # type: ignore[method-assign]
    defaults_list._create_interpolation_map = only_if_asked(defaults_list._create_interpolation_map)
