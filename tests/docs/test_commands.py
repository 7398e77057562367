"""Every command that the documentation and the comments of configurations show is one that works."""

from __future__ import annotations

import functools
import gc
import importlib.util
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from marl.core.config import SCHEMAS
from marl.core.validation import refuse_early
from marl.run.compose import choices, register_configs
from tests.support.documented import COMMENTED, PAGES, ROOT, Shown, in_comments, on_page

SHOWN = [*itertools.chain(*map(on_page, PAGES)), *itertools.chain(*map(in_comments, COMMENTED))]
PLACEHOLDER = re.compile(r"\b(?:NAME|MAP|METHOD|KEY)$")  # the last part of a choice
FLAGS = {
    "-m": 0,
    "--multirun": 0,
    "--help": 0,
    "--cfg": 1,
    "--config-dir": 1,
}  # Hydra's; how many words follow
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf8")
TARGETS = re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)
VARIABLES = re.findall(r"^(?:[a-z]+: )?([A-Z]+) \?=", MAKEFILE, re.MULTILINE)  # that a caller may set


def script_and_words(command: list[str]) -> tuple[str, list[str]] | None:
    """Return the script that a command starts and its words; None where it starts none (``make test``)."""
    if command[0] == "make":
        target, *rest = command[1:] or ["help"]
        assert target in TARGETS, f"the Makefile has no {target}; there are {', '.join(TARGETS)}"
        options = [word.partition("=") for word in rest]
        assert {key for key, _, _ in options} <= {*VARIABLES}
        given = [word for key, _, value in options if key == "ARGS" for word in value.split()]
        return (target, given) if target in SCHEMAS else None
    at = command.index("-m") + 1
    assert command[at].startswith("scripts."), command[at]
    return command[at].removeprefix("scripts."), command[at + 1 :]


def overrides_of(words: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield the overrides of a command without Hydra's flags; those of a sweep over choices once for each choice."""
    rest, given = list(words), []
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            del rest[: FLAGS[word]]
        else:
            given.append(word)
    values = []
    for one in OverridesParser.create().parse_overrides(given):
        if one.is_interval_sweep():  # of a search: its lower end
            values.append([f"{one.get_key_element()}={one.value().start}"])
        elif one.is_sweep_override():
            swept = [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
            values.append(swept if is_group(one.key_or_group) else swept[:1])
        else:
            values.append([str(one.input_line)])
    for k in range(max(map(len, values), default=1)):
        yield tuple(found[k % len(found)] for found in values)


def is_group(key: str) -> bool:
    return (ROOT / "conf" / key).is_dir()


def filled(override: str) -> str:
    """Return an override with the first choice in place of a placeholder (``env=skirmish/MAP``)."""
    key, _, value = override.partition("=")
    group = key.partition("@")[0]
    if not is_group(group) or not PLACEHOLDER.search(value):
        return override
    return f"{key}={next(name for name in choices(group) if name.startswith(PLACEHOLDER.sub('', value)))}"


def unset(node: object, path: str = "") -> Iterator[str]:
    """Yield the keys of a configuration that have no value."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from unset(value, f"{path}.{key}" if path else str(key))
    elif node == "???":
        yield path


@pytest.fixture(scope="module", autouse=True)
def one_hydra() -> Iterator[None]:
    """Read the configurations once for all commands, while Hydra knows nothing yet of what was chosen, as when a
    command checks what it can before it begins. What is alive now is not searched for garbage again and again, which
    would take half the time of composing."""
    register_configs()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch, initialize_config_module("conf", version_base="1.3"):
        patch.setattr(HydraConfig.instance(), "cfg", None)
        yield
    gc.unfreeze()


@functools.cache
def composed(script: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    cfg = compose(script, overrides=list(overrides))
    if script == "train":
        refuse_early(cfg)
    found = OmegaConf.to_container(cfg)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: f"{shown.file}:{shown.line}")
def test_a_command_that_is_shown_composes(shown: Shown, tmp_path: Path) -> None:
    commands = shown.commands(tmp_path)
    assert commands, shown
    for command in commands:
        found = script_and_words(command)
        if found is None or "--config-dir" in command:  # recipes: test_recipes.py trains with them
            continue
        script, words = found
        if "launch=optuna" in words and importlib.util.find_spec("optuna") is None:
            pytest.skip("needs optuna: pip install -e .[search]")
        assert script in SCHEMAS, f"scripts has no {script}"
        for overrides in overrides_of(words):
            cfg = composed(script, tuple(map(filled, overrides)))
            assert not list(unset(cfg)), f"{shown}: {', '.join(unset(cfg))} must be given"
            if shown.file != "CONTRIBUTING.md":
                places = {key: str(cfg.get(key)) for key in ("out", "results")}
                assert not any(place.startswith("docs") for place in places.values()), (
                    f"{shown}: {places} change what is published"
                )
