"""Test that options and comments are read from YAML files as they stand there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from marl.run.compose import compose
from scripts.options import Option, about, composed, listed, options, shared_part, source

CONF = Path(__file__).resolve().parents[2] / "conf"
TEXT = """\
# @package _global_
# What it is for,
# in two lines.
defaults: [base]
plain: 1            # a number
bare: text
section:            # of two
  low: 0.5          # begins here
                    # and goes on
  pattern: "^a # b"  # has a hash in it
  deep: {x: 1, y: [2, 3]}  # of y
long: [a,
  b]                # over two lines
hydra: {job: {name: hidden}}
"""


def test_options_have_their_dots_values_and_comments() -> None:
    assert options(TEXT) == [
        Option("plain", "1", "a number"),
        Option("bare", "text", ""),
        Option("section", "", "of two"),
        Option("section.low", "0.5", "begins here and goes on"),
        Option("section.pattern", '"^a # b"', "has a hash in it"),
        Option("section.deep.x", "1", ""),
        Option("section.deep.y", "[2, 3]", "of y"),
        Option("long", "[a, b]", "over two lines"),
    ]
    assert about(TEXT) == "What it is for,\nin two lines."
    assert options("") == [] and about("a: 1") == ""


def test_options_are_listed_with_comments_in_a_column() -> None:
    found = [Option("a", "1", "one"), Option("b._target_", "some.Class", ""), Option("long_name", "2", "two")]
    assert listed(found) == "a: 1          # one\nlong_name: 2  # two"


def leaves(node: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        path = f"{above}.{key}" if above else str(key)
        if isinstance(value, dict) and value:
            yield from leaves(value, path)
        elif above or key not in ("defaults", "hydra"):
            yield path, value


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_is_read_as_yaml_reads_it(path: Path) -> None:
    text = path.read_text(encoding="utf8")
    whole = yaml.safe_load(text) or {}
    plain = {**whole, "hydra": {}, "defaults": []}
    found = {option.key: option.value for option in options(text) if option.value}
    expected = dict(leaves(plain))
    assert list(found) == list(expected)
    for key, value in found.items():
        assert value == "..." or yaml.safe_load(value) == expected[key], key


@pytest.mark.parametrize(
    "group, name",
    [("algo", "qmix"), ("algo", "vdn"), ("algo", "hsp"), ("algo", "ippo/sbc_null"), ("algo", "s2q"),
     ("env", "toy/matrix"),
     ("env", "skirmish/3m"), ("attack", "rarl"), ("attack", "pgd")],
)  # fmt: skip
def test_a_choice_has_the_keys_and_values_that_hydra_composes(group: str, name: str) -> None:
    needed = ["algo.runs=[x]"] if name == "hsp" else []
    expected = dict(leaves(OmegaConf.to_container(compose(f"{group}={name}", *needed)[group])))
    found = {key: option.value for key, option in composed(group, name).items() if option.value}
    assert {key for key in expected if key not in found} == set()
    known = {key: value for key, value in found.items() if "${" not in value and value not in ("???", "...")}
    assert len(known) > 1
    assert {key: value for key, value in known.items() if yaml.safe_load(value) != expected[key]} == {}


def test_a_choice_keeps_comments_of_what_it_is_made_of() -> None:
    found = composed("attack", "rarl")
    assert found["learner.population"] == Option("learner.population", "1", "attackers that train side by side")
    assert composed("algo", "nope") == {} and source("algo", "nope") is None


def test_one_of_several_options_in_a_file_has_its_lines_alone() -> None:
    text = "one: {a: 1}  # first\nten:\n  a: 10\n\n  b: 2\none_more: {a: 3}\n"
    assert shared_part(text, "one") == "one: {a: 1}  # first"
    assert shared_part(text, "ten") == "ten:\n  a: 10\n\n  b: 2"
    assert shared_part(text, "two") == ""
