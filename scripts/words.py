"""The words of a command line, before Hydra reads them: refuse what no script accepts, and answer ``--help`` with the
comments of the YAML files, which Hydra leaves out."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import yaml
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException

from marl.core.types import ConfigError
from marl.run.compose import choices, says_unread
from marl.run.trees import beside, named_by, tree_folder
from scripts.options import composed, listed, source

NO_CHOICE = re.compile(r"null|~|-?[\d.]+|true|false|\[.*|\{.*", re.IGNORECASE)  # not the name of an option of a group

PLUMBING = re.compile(r" *- (\w+_schema|_self_|override hydra/.*|logger@.*)")  # defaults that nobody chooses
WHOLE = ("experiment", "launch", "study", "suite", "table")  # groups whose options are best read as files
LAUNCHERS = {  # option of launch -> the package that it needs, and the extra that installs it
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "cluster"),
    "slurm": ("hydra_plugins.hydra_submitit_launcher", "cluster"),
    "slurm_dry": ("hydra_plugins.hydra_submitit_launcher", "cluster"),
    "optuna": ("hydra_plugins.hydra_optuna_sweeper", "search"),
    "ray": ("ray", "ray"),
}


def check_words(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line with Hydra's own parser. Raise ConfigError for flags that it does not know, words without a
    key, and groups that are given anything other than a name."""
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    parsed = parser.parse_args(list(words))
    with beside(named_by(parsed.overrides, parsed.config_dir)):
        _check_overrides(parsed.overrides)
    return parsed


def _check_overrides(words: Sequence[str]) -> None:
    for word in words:
        key, equals, value = word.lstrip("+~").partition("=")
        group = key.partition("@")[0]
        if equals and not key:
            raise ConfigError(f"'{word}' has no key; give key=value")
        package, extra = LAUNCHERS.get(value, (None, "")) if key == "launch" else (None, "")
        if not _is_installed(package):
            raise ConfigError(f"launch={value} needs {package}; pip install -e .[{extra}]")
        in_place = word.startswith("+") and value.startswith("{")  # a configuration instead of an option's name
        if equals and not in_place and NO_CHOICE.fullmatch(value) and (names := group_choices(group)):
            raise ConfigError(f"{key}={value} names no option of {group}; choose one of {', '.join(names)}")


def _is_installed(package: str | None) -> bool:
    """Return whether a package is installed; true for None, no package."""
    try:
        return package is None or importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # not even its parent package is installed
        return False


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; flags such as -m stand before or after all of key=value")


def group_choices(group: str) -> list[str]:
    """Return the names of a group of options; none where there is no such group."""
    return choices(group) if group and re.fullmatch(r"[\w/]+", group) else []


@contextmanager
def setting_up(begun: list[bool], given: str | None) -> Iterator[None]:
    """Turn errors that Python raises while a command is read and its folder is made into ConfigErrors; once the work
    has ``begun``, let them pass. ``given``: the folder of further configurations, if there is one."""
    try:
        yield
    except HydraException:  # some are OSErrors too
        raise
    except OSError as error:
        if begun:
            raise
        raise ConfigError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        if begun:
            raise
        folders = [tree_folder(), *([Path(given)] if given else [])]
        raise ConfigError(says_unread(error, folders)) from error
    except (ValueError, TypeError, AttributeError) as error:
        if begun:
            raise
        raise ConfigError(" ".join(str(error).split())) from error


def help_text(script: str, about: str, overrides: Sequence[str]) -> str:
    """Return what ``--help`` prints: ``about``, the options of the script with their comments, the choices of every
    group, and the options of what is chosen, by the script itself or by a ``group=name`` of ``overrides``."""
    raw = (tree_folder() / f"{script}.yaml").read_text(encoding="utf8")
    lines = raw.partition("\nhydra:")[0].rstrip().splitlines()
    shown = "\n".join(line for line in lines if not PLUMBING.fullmatch(line)).replace("\ndefaults:\n\n", "\n\n")
    chosen = defaults_of(raw)
    parts = [about.strip(), shown, *(["Choices, as GROUP=NAME:"] if chosen else [])]
    parts += [_listed(group, choices(group)) for group in dict.fromkeys(map(_group, chosen))]
    for word in overrides:
        group, equals, name = word.lstrip("+").partition("=")
        if equals and (group in chosen or choices(_group(group))):
            chosen[group] = name
    parts += [_choice_text(group, name) for group, name in chosen.items() if name not in (None, "???")]
    if chosen:
        parts.append(f"The options of another choice: python -m scripts.{script} --help GROUP=NAME")
    return "\n\n".join(parts)


def defaults_of(raw: str) -> dict[str, str | None]:
    """Return the choices that the configuration of a script makes on its own: the name for every ``group@package``."""
    entries = [entry for entry in yaml.safe_load(raw)["defaults"] if isinstance(entry, dict)]
    pairs = [(str(group).removeprefix("optional "), name) for entry in entries for group, name in entry.items()]
    return {group: name for group, name in pairs if not group.startswith("override ")}


def _group(key: str) -> str:
    return key.partition("@")[0]


def _choice_text(group: str, name: object) -> str:
    """Return a heading and the options of a choice, with their keys as on a command line; for a group that changes
    others (``experiment=``, ``study=``) its file."""
    found = source(_group(group), str(name))
    if found is None:
        return f"{group}={name}: there is no such choice"
    if group in WHOLE:
        return f"{group}={name}:\n{textwrap.indent(found[0].rstrip(), '  ')}"
    package = group.rpartition("@")[2]
    options = [option.below(package) for option in composed(_group(group), str(name)).values()]
    target = next((option.value for option in options if option.key == f"{package}._target_"), "")
    head = f"{group}={name}" + (f", {target}" if target else "")
    shown = listed(options)
    return f"{head}:\n{textwrap.indent(shown, '  ')}" if shown else f"{head}: no options of its own"


def _listed(group: str, names: list[str]) -> str:
    width = min(shutil.get_terminal_size().columns, 110)
    return textwrap.fill(f"{group}: {', '.join(names)}", width, initial_indent="  ", subsequent_indent="    ",
                         break_on_hyphens=False)  # fmt: skip
