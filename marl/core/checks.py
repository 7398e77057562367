"""Checks of options for the whole project. Each refuses a bad value in one line that names the key, the value and the
values that are allowed.

``section`` is the dotted path above the keyword names ("" for none), so that ``require_share("attack", p=2.0)`` says
"attack.p=2.0 must be within [0, 1]".
"""

from __future__ import annotations

import difflib
import importlib.util
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePath
from typing import Any

from omegaconf import Container, DictConfig, OmegaConf

from marl.core.types import ConfigError

MOST_THREADS = 1024
FILES = (".png", ".pdf", ".svg", ".gif", ".json", ".csv", ".html", ".tex")  # endings that no folder may have
LONGEST_NAME = 255  # bytes, of one part of a path
LONGEST_PATH = 4095  # bytes
SIMILAR = 0.75  # from 0 to 1, how similar a key must be to be suggested for an unknown one


def require_at_least(section: str, least: float, *, or_null: bool = False, **values: float | None) -> None:
    """Refuse values below ``least``; raise ConfigError naming the first. ``or_null`` accepts None."""
    for name, value in values.items():
        if value is None and or_null:
            continue
        if value is None or not value >= least:
            _refuse(section, name, value, f"must be at least {least}", or_null)


def require_positive(section: str, *, or_null: bool = False, **values: float | None) -> None:
    """Refuse values that are not above zero; raise ConfigError naming the first. ``or_null`` accepts None."""
    for name, value in values.items():
        if value is None and or_null:
            continue
        if value is None or not value > 0:
            _refuse(section, name, value, "must be above 0", or_null)


def require_within(
    section: str, low: float, high: float, *, ends: str = "[]", or_null: bool = False, note: str = "",
    **values: float | None,
) -> None:  # fmt: skip
    """Refuse values outside an interval; raise ConfigError naming the first. ``ends`` are its brackets: "(" and ")"
    exclude the bound. ``note`` says where the bounds come from. ``or_null`` accepts None."""
    for name, value in values.items():
        _require_inside(section, name, value, low, high, ends, or_null, note)


def require_share(section: str, *, or_null: bool = False, **values: float | None) -> None:
    """Refuse values outside [0, 1]; raise ConfigError naming the first. ``or_null`` accepts None."""
    for name, value in values.items():
        _require_inside(section, name, value, 0, 1, "[]", or_null, "")


def require_threads(threads: int | None) -> None:
    """Refuse numbers of threads that no machine has; raise ConfigError."""
    require_at_least("", 1, or_null=True, threads=threads)
    require_within("", 1, MOST_THREADS, or_null=True, threads=threads)


def require_choice(section: str, allowed: Iterable[Any], *, or_null: bool = False, **values: Any) -> None:
    """Refuse values that are not among ``allowed``; raise ConfigError naming the first. Pass ``get_args`` of the
    ``Literal`` that annotates the option, so that the choices are written once. ``or_null`` accepts None."""
    options = list(allowed)
    for name, value in values.items():
        if value not in options and not (value is None and or_null):
            _refuse(section, name, value, f"is not known; choose one of {', '.join(map(str, options))}", or_null)


def require_writable(section: str, *, files: bool = False, **paths: Path) -> None:
    """Refuse folders, or ``files``, that cannot be written; raise ConfigError naming the first. It must be possible
    to make folders that do not exist yet, and they may not be named like a picture or a table; nothing is left behind.
    """
    for name, path in paths.items():
        _require_short(f"{section}.{name}" if section else name, str(path))
        if not files and path.suffix.lower() in FILES and not os.path.lexists(path):
            allowed = f"is the name of a file; it must be a folder, as {path.with_suffix('')}"
            _refuse(section, name, path, allowed, or_null=False)
        if files and path.is_dir():
            _refuse(section, name, path, "is a folder, not a file", or_null=False)
        there = next(place for place in (path, *path.parents, Path())[files:] if os.path.lexists(place))
        try:
            with tempfile.TemporaryFile(dir=str(there)):
                continue
        except OSError as error:
            reason = "is a file" if there.is_file() else f"takes no files ({error.strerror})"
            _refuse(section, name, path, f"cannot be written: {there} {reason}", or_null=False)


def require_name(**paths: str | None) -> None:
    """Refuse names of files and folders that are empty, or that no file system accepts; raise ConfigError naming the
    first. None passes."""
    for key, path in paths.items():
        if path is not None and not path.strip():
            raise ConfigError(f"{key}= must name a file or folder, or be left out")
        if path is not None:
            _require_short(key, path)


def require_below(folder: str, **paths: str) -> None:
    """Refuse names that lead out of the folder that the option ``folder`` names, or that no file system accepts; raise
    ConfigError naming the first."""
    for key, path in paths.items():
        parts = PurePath(path).parts
        if not parts or PurePath(path).is_absolute() or ".." in parts:
            raise ConfigError(f"{key}={path} must name a folder below {folder}: without .. and not absolute")
        _require_short(key, path)


def require_extra(package: str, extra: str, wanted_by: str) -> None:
    """Refuse ``wanted_by``, an option as typed on the command line, if the package that it needs is not installed;
    raise a ConfigError that says how to install it."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{wanted_by} needs the package '{package}', which is not installed: pip install -e .[{extra}]"
        )


def says_unknown(key: str, parent: Container, known: Sequence[str]) -> str:
    """Return the error message for ``key``, which ``parent`` does not have. It suggests options with the same last word
    or a similar name from anywhere in the configuration, and lists those ``known`` in ``parent``."""
    above, _, last = key.rpartition(".")
    if isinstance(parent, DictConfig) and not parent._is_none() and len(parent) == 0:
        return f"{key} is not an option yet, since {above} is empty; to add it, write +{key}=..."
    alike = {
        there: ratio
        for there in _paths(parent._get_root(), "")
        if (ratio := difflib.SequenceMatcher(None, key, there).ratio()) >= SIMILAR or there.endswith(f".{last}")
        if not f"{key}.".startswith(f"{there}.")
    }
    near = [there for there in alike if alike[there] > max(alike.values()) - 0.05]
    hint = f"did you mean {' or '.join(near[:3])}? " if near else ""
    return f"{key} is not an option; {hint}there are {', '.join(known) or 'none'}"


def _paths(cfg: Any, above: str) -> Iterator[str]:
    """Yield the dotted keys of all options, without Hydra's own and without ``_target_`` and the like."""
    if not isinstance(cfg, DictConfig) or cfg._is_none() or cfg._is_missing():
        return
    for name in map(str, cfg):
        key = f"{above}{name}"
        if not name.startswith("_") and key != "hydra":
            yield key
            yield from _paths(cfg._get_node(name), f"{key}.")


def refuse_strange(cfg: DictConfig, section: str = "") -> None:
    """Refuse keys that ``+`` has added to a section with a schema, and numbers that are nan or infinite, at any depth;
    raise ConfigError naming the first."""
    schema = OmegaConf.get_type(cfg)
    known = [field.name for field in fields(schema)] if is_dataclass(schema) else None
    for name, value in cfg.items_ex(resolve=False):
        key = f"{section}.{name!s}" if section else str(name)
        if key == "hydra":  # Hydra's own settings
            continue
        if known is not None and name not in known:
            raise ConfigError(says_unknown(key, cfg, known))
        if isinstance(value, DictConfig) and not (value._is_none() or value._is_missing()):
            refuse_strange(value, key)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key}={value} must be a finite number")


def _require_short(key: str, path: str) -> None:
    if any(len(part.encode()) > LONGEST_NAME for part in PurePath(path).parts):
        raise ConfigError(f"{key}={path} has a part that is longer than {LONGEST_NAME} bytes")
    if len(path.encode()) > LONGEST_PATH:
        raise ConfigError(f"{key}={path} is longer than {LONGEST_PATH} bytes")


def _require_inside(
    section: str, name: str, value: float | None, low: float, high: float, ends: str, or_null: bool, note: str
) -> None:
    if value is None and or_null:
        return
    above = value is not None and (value > low if ends[0] == "(" else value >= low)
    below = value is not None and (value < high if ends[1] == ")" else value <= high)
    if not (above and below):
        allowed = f"must be within {ends[0]}{low}, {high}{ends[1]}{f', {note}' if note else ''}"
        _refuse(section, name, value, allowed, or_null)


def _refuse(section: str, name: str, value: Any, allowed: str, or_null: bool) -> None:
    key = f"{section}.{name}" if section else name
    raise ConfigError(f"{key}={value} {allowed}{', or null' if or_null else ''}")
