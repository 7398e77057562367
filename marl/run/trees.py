"""Where configurations are found: in the framework's tree and in the user's own folders."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from marl.core.annotations import typed
from marl.core.types import ConfigError
from marl.run.quoting import quoted

TREE = "conf"
SEARCH = "hydra.searchpath"  # Hydra's option for folders in addition to the tree
FILE = "file://"

_beside: list[str] = []  # folders of the user's own, in Hydra's spelling: file:///home/me/conf


def tree_folder() -> Path:
    """Return the folder of the configuration tree."""
    return Path(str(importlib.import_module(TREE).__file__)).parent


@typed
def use_configs(folder: str | Path | None = None) -> None:
    """Add a folder of your own configurations, as ``--config-dir`` of the scripts does, for everything that follows in
    this process: with ``env/meet.yaml`` in it, ``env=meet`` is a game. Options of the framework keep their names.

    Args:
        folder (str | Path | None): holds the groups, as ``conf/`` of the framework does; added to those of earlier
            calls. A relative path starts from the working directory. None: forget all folders that were added.

    Raises:
        ConfigError: if this is not a folder.
    """
    if folder is None:
        _beside.clear()
        return
    path = Path(folder).absolute()
    if not str(folder) or not path.is_dir():
        raise ConfigError(f"use_configs: {str(folder) or 'an empty name'} is no folder")
    _add([f"{FILE}{path}"])


def own_folders() -> list[Path]:
    """Return the folders in addition to the tree, in the order in which they are searched."""
    return [Path(place.removeprefix(FILE)) for place in _beside if place.startswith(FILE)]


def folders() -> list[Path]:
    """Return all folders of configurations, in the order in which they are searched."""
    return [tree_folder(), *own_folders()]


def find(group: str, name: str) -> Path | None:
    """Return the file of ``group=name``; None if it has no file of its own."""
    files = (folder / group / f"{name}.yaml" for folder in folders())
    return next((file for file in files if file.is_file()), None)


def named_by(words: Sequence[str], config_dir: str | None = None) -> list[str]:
    """Return the folders that a command line gives by ``--config-dir`` and ``hydra.searchpath``, in Hydra's spelling
    and as absolute paths."""
    given: list[Any] = [config_dir] if config_dir is not None and Path(config_dir).is_dir() else []
    for word in words:
        if word.startswith(f"{SEARCH}="):
            try:
                value = OverridesParser.create().parse_override(word).value()
            except HydraException:  # composing says what is wrong with it
                continue
            given += [getattr(one, "text", one) for one in value] if isinstance(value, list) else []
    return [_spelled(place) for place in given if isinstance(place, str)]


def _spelled(place: str) -> str:
    scheme, found, path = place.rpartition("://")
    return place if found and scheme != "file" else f"{FILE}{Path(path).absolute()}"


def _add(places: Sequence[str]) -> None:
    _beside.extend(place for place in dict.fromkeys(places) if place not in _beside)


@contextmanager
def beside(places: Sequence[str]) -> Iterator[None]:
    """Search ``places`` (``named_by``) too, inside this context."""
    before = list(_beside)
    _add(places)
    try:
        yield
    finally:
        _beside[:] = before


def with_folders(words: Sequence[str]) -> list[str]:
    """Return the overrides ``words`` with one that makes Hydra search the user's folders, if there are any."""
    if not _beside or any(word.startswith(f"{SEARCH}=") and not named_by([word]) for word in words):
        return list(words)
    rest = [word for word in words if not word.startswith(f"{SEARCH}=")]
    return [*rest, f"{SEARCH}=[{','.join(map(quoted, _beside))}]"]


def flags() -> list[str]:
    """Return the overrides that make another script search the user's folders."""
    return with_folders([])
