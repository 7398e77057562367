"""The words of a command line, before Hydra reads them: what no script takes is refused, and ``--help`` answered with
the comments of the YAML files, which Hydra leaves out."""

from __future__ import annotations

import argparse
import importlib.util
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import yaml
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException

from marl.core.types import ConfigError
from marl.run.compose import choices, tree_folder

NO_CHOICE = re.compile(r"null|~|-?[\d.]+|true|false|\[.*|\{.*", re.IGNORECASE)  # no name of an option of a group

LAUNCHERS = {  # option of launch -> the package that it needs, and the extra that brings it
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "cluster"),
    "slurm": ("hydra_plugins.hydra_submitit_launcher", "cluster"),
    "slurm_dry": ("hydra_plugins.hydra_submitit_launcher", "cluster"),
    "optuna": ("hydra_plugins.hydra_optuna_sweeper", "search"),
    "ray": ("ray", "ray"),
}


def check_words(words: Sequence[str]) -> argparse.Namespace:
    """Return what Hydra's own parser makes of a command line. Raise ConfigError for flags that it does not know, words
    without a key, and groups that are given something else than a name."""
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    parsed = parser.parse_args(list(words))
    for word in parsed.overrides:
        key, equals, value = word.lstrip("+~").partition("=")
        group = key.partition("@")[0]
        if equals and not key:
            raise ConfigError(f"'{word}' has no key; give key=value")
        package, extra = LAUNCHERS.get(value, (None, "")) if key == "launch" else (None, "")
        if not _is_installed(package):
            raise ConfigError(f"launch={value} needs {package}; pip install -e .[{extra}]")
        in_place = word.startswith("+") and value.startswith("{")  # what to make instead of an option's name
        if equals and not in_place and NO_CHOICE.fullmatch(value) and (names := group_choices(group)):
            raise ConfigError(f"{key}={value} names no option of {group}; choose one of {', '.join(names)}")
    return parsed


def _is_installed(package: str | None) -> bool:
    """Return whether a package is there; None is none."""
    try:
        return package is None or importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # nor the one that it is in
        return False


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; flags such as -m stand before or after all of key=value")


def group_choices(group: str) -> list[str]:
    """Return the names of a group of options; none where there is no such group."""
    return choices(group) if group and re.fullmatch(r"[\w/]+", group) else []


@contextmanager
def setting_up(begun: list[bool]) -> Iterator[None]:
    """Turn what Python raises while a command is read and its folder is made into a ConfigError; once the work has
    ``begun``, let it pass."""
    try:
        yield
    except HydraException:  # some are OSErrors too
        raise
    except OSError as error:
        if begun:
            raise
        raise ConfigError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
    except (ValueError, TypeError, AttributeError) as error:
        if begun:
            raise
        raise ConfigError(" ".join(str(error).split())) from error


def help_text(script: str, about: str, overrides: Sequence[str]) -> str:
    """Return what ``--help`` prints: ``about``, the options of the script with their comments, the choices of every
    group, and for each ``group=name`` of ``overrides`` the options of that choice."""
    raw = (tree_folder() / f"{script}.yaml").read_text(encoding="utf8")
    shown = raw.partition("\nhydra:")[0].rstrip()
    groups = {
        re.sub(r"@.*", "", str(group).removeprefix("optional ")): None
        for entry in yaml.safe_load(raw)["defaults"]
        if isinstance(entry, dict)
        for group in entry
        if not str(group).startswith("override ")
    }
    parts = [about.strip(), shown, "Choices, as GROUP=NAME:"]
    parts += [_listed(group, choices(group)) for group in groups]
    for word in overrides:
        group, _, name = word.lstrip("+").partition("=")
        text = _option_text(group.partition("@")[0], name)
        parts.append(f"{word}:\n{textwrap.indent(text, '  ')}" if text else f"{word}: no options of its own")
    if not overrides:
        parts.append(f"The options of a choice: python -m scripts.{script} --help GROUP=NAME")
    return "\n\n".join(parts)


def _listed(group: str, names: list[str]) -> str:
    return textwrap.fill(f"{group}: {', '.join(names)}", 110, initial_indent="  ", subsequent_indent="    ",
                         break_on_hyphens=False)  # fmt: skip


def _option_text(group: str, name: str) -> str:
    """Return the text of an option: that of its file, or its part of a file of several options."""
    folder = tree_folder()
    if (file := folder / group / f"{name}.yaml").is_file():
        return file.read_text(encoding="utf8").rstrip()
    above, _, key = name.rpartition("/")
    shared = Path(folder, "options", group, above).with_suffix(".yaml")
    if not shared.is_file():
        return ""
    found = re.search(rf"^{re.escape(key)}:.*(?:\n .*)*", shared.read_text(encoding="utf8"), re.MULTILINE)
    return found[0].rstrip() if found else ""
