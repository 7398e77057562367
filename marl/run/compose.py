"""Compose configurations from overrides, as on a command line, with errors in one line.

The tree of configurations is the package ``conf`` next to ``marl``. It is found by name and never imported statically:
plug-ins reach the framework through configuration alone.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from marl.core.checks import refuse_strange, says_unknown
from marl.core.config import register, says_missing
from marl.core.store import share
from marl.core.types import ConfigError
from marl.run.quoting import repaired
from marl.run.trees import TREE, beside, folders, named_by, with_folders

# what Hydra puts around the reason: the word itself, the class of its own error, and functions of its grammar
NOISE = re.compile(r"^Error parsing override '.*?' (?=\S)|^LexerNoViableAltException: .*|(?<=') Available: .*")


@functools.cache
def register_configs() -> None:
    """Register the schemas and all options without files of their own with Hydra; only the first call has an effect."""
    register()
    importlib.import_module(TREE).register()
    share(ConfigStore.instance().repo)


def stored(group: str) -> Iterator[str]:
    """Yield the names that the config store has for ``group``; subgroups as ``folder/NAME``."""
    store = ConfigStore.instance()
    try:
        nodes = store.list(group)
    except OSError:  # the store has no such group
        return
    for node in nodes:
        if node.endswith(".yaml"):
            yield node.removesuffix(".yaml")
        else:
            yield from (f"{node}/{name}" for name in stored(f"{group}/{node}"))


def choices(group: str) -> list[str]:
    """Return the names that ``group=NAME`` accepts, from files and the config store; subgroups as ``folder/NAME``."""
    register_configs()
    names = set(stored(group))
    for folder in (tree / group for tree in folders()):
        names |= {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml")}
    return sorted(name for name in names if Path(name).name != "base")


def nearest(name: str, names: Sequence[str]) -> list[str]:
    """Return up to three of ``names`` that ``name`` may stand for, ignoring case and with or without the folder: ``3M``
    may stand for ``skirmish/3m``."""
    meant = {known: (known.lower(), known.rpartition("/")[2].lower()) for known in names}
    near = difflib.get_close_matches(name.lower(), [way for ways in meant.values() for way in ways], n=3, cutoff=0.5)
    return list(dict.fromkeys(known for way in near for known, ways in meant.items() if way in ways))[:3]


def one_line(error: BaseException) -> str:
    """Return the error's message on one line; for a choice that does not exist, with the nearest names."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).partition("/")
        if not name and not str(error.missing_cfg_file).endswith("/"):
            return f"there is no configuration {group}.yaml"
        names = choices(group)
        near = nearest(name, names)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        return f"{group}={name} does not exist; {hint}there are {', '.join(names)}"
    if isinstance(error, MissingMandatoryValue) and error.full_key:
        return says_missing(error)
    words = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        key, equals, _ = error.override.partition("=")
        said = words.partition(" See http")[0].removesuffix("^").strip()
        said = re.sub(NOISE, "", said)
        why = said and f": {said}"
        quoted = "['...','...']" if error.override.startswith(f"{key}=[") else "'...'"
        mend = f'put text in quotes: "{key}={quoted}"' if equals else "give key=value"
        return f"{error.override} cannot be read{why}; {mend}"
    cause = error.__cause__
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        if isinstance(cause, ConfigKeyError | ConfigAttributeError) and isinstance(cause.parent_node, DictConfig):
            known = [str(name) for name in cause.parent_node if name != "hydra" and not str(name).startswith("_")]
            return says_unknown(str(cause.full_key), cause.parent_node, known)
        words = f"{words.removesuffix('.')}: {str(cause.msg or cause).splitlines()[0]}"
    whole = re.search(r"Value '(\d+)\.0' of type 'float' could not be converted to Integer", words)
    return f"{words}; write {whole[1]}" if whole else words


def says_unread(error: yaml.YAMLError | UnicodeDecodeError, folders: Iterable[Path]) -> str:
    """Return the line that says which file of a configuration cannot be read, and why. ``folders``: where it may be."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark) is not None:
        return f"{mark.name} is no YAML: {error.problem or error.context} in line {mark.line + 1}"
    if isinstance(error, UnicodeDecodeError):
        for file in (file for folder in folders for file in sorted(folder.rglob("*.yaml"))):
            try:
                file.read_text(encoding="utf8")
            except UnicodeDecodeError as found:
                return f"{file} is not written in UTF-8: {found}"
    return " ".join(str(error).split())


def refuse_bases(chosen: Mapping[str, Any]) -> None:
    """Raise ConfigError for ``base``, which other options of a group are made of and which is not one on its own.
    ``chosen``: the choices by group."""
    for group in ("algo", "attack", "env"):
        if str(chosen.get(group)).rpartition("/")[2] == "base":
            raise ConfigError(
                f"{group}={chosen[group]} is what others are made of; choose one of {', '.join(choices(group))}"
            )


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Allow composing inside this context, even while a script's Hydra is active; restore Hydra afterwards."""
    active, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_module(TREE, version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = active
        HydraConfig.instance().cfg = config


def compose_with_choices(overrides: Sequence[str], config: str) -> tuple[DictConfig, dict[str, str]]:
    """Return the configuration that ``overrides`` of ``conf/<config>.yaml`` give, fully interpolated, and the choices
    by group. Raise ConfigError, in one line, for overrides that do not compose."""
    for word in overrides:
        if not isinstance(word, str):
            raise ConfigError(f"{word} is of the type {type(word).__name__}; an override is a word, as 'algo=vdn'")
    register_configs()
    for word in overrides:
        if word.startswith("-"):
            raise ConfigError(f"{word} is a flag of the scripts; give key=value, and folders by marl.use_configs(DIR)")
    words = repaired(overrides)
    with beside(named_by(words)), _own_hydra():
        try:
            cfg = hydra.compose(config, overrides=with_folders(words), return_hydra_config=True)
            HydraConfig.instance().set_config(cfg)
            chosen = {str(group): str(name) for group, name in cfg.hydra.runtime.choices.items()}
            with open_dict(cfg):
                del cfg["hydra"]
            OmegaConf.resolve(cfg)
            refuse_bases(chosen)
            refuse_strange(cfg)
        except ConfigError:
            raise
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(says_unread(error, folders())) from error
        except (HydraException, OmegaConfBaseException, ValueError) as error:  # a number as a name is a ValueError
            raise ConfigError(one_line(error)) from error
    return cfg, chosen


def compose(*overrides: str, config: str = "train") -> DictConfig:
    """Return the configuration of a command line: ``compose("algo=vdn", "env=toy/matrix")`` is what
    ``python -m scripts.train algo=vdn env=toy/matrix`` trains with; ``config`` names the script.

    Raise ConfigError, with the message of the command line, for overrides that do not compose.
    """
    return compose_with_choices(overrides, config)[0]


def option(group: str, name: str) -> DictConfig:
    """Return the configuration that ``group=name`` selects, for the groups of ``scripts.evaluate``."""
    return compose(f"{group}={name}", config="evaluate")[group]
